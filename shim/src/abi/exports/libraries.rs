//! dlopen and dlsym. Both end in a jump: the loader looks at the return address for who asks.
//!
//! Owns: the names below. Called by: the program, and our own look-ups. Must not: stand between the caller and the loader.

use super::loader::{DLOPEN, DLSYM, by_handle, find};

/// Jumps to the loader's function, found first if need be, with the registers as they came.
macro_rules! jump_to_the_loader {
    ($place:ident, [$($before:literal),*] $($bind:tt)*) => {{
        #[cfg(target_arch = "x86_64")]
        core::arch::naked_asm!(
            $($before,)*
            "mov rax, [rip + {place}]", "test rax, rax", "jnz 3f",
            "push rdi", "push rsi", "sub rsp, 8", "call {find}", "add rsp, 8", "pop rsi", "pop rdi",
            "mov rax, [rip + {place}]",
            "3:", "jmp rax",
            place = sym $place, find = sym find, $($bind)*
        );
        #[cfg(target_arch = "aarch64")]
        core::arch::naked_asm!(
            $($before,)*
            "adrp x16, {place}", "ldr x16, [x16, :lo12:{place}]", "cbnz x16, 3f",
            "stp x0, x1, [sp, -32]!", "str x30, [sp, 16]", "bl {find}", "ldr x30, [sp, 16]", "ldp x0, x1, [sp], 32",
            "adrp x16, {place}", "ldr x16, [x16, :lo12:{place}]",
            "3:", "br x16",
            place = sym $place, find = sym find, $($bind)*
        );
    }};
}

// The flags without RTLD_DEEPBIND.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlopen() {
    #[cfg(target_arch = "x86_64")]
    jump_to_the_loader!(DLOPEN, ["and esi, {flags}"] flags = const !libc::RTLD_DEEPBIND);
    #[cfg(target_arch = "aarch64")]
    jump_to_the_loader!(DLOPEN, ["and w1, w1, {flags}"] flags = const !libc::RTLD_DEEPBIND);
}

// RTLD_DEFAULT and RTLD_NEXT, 0 and -1, begin at the caller, and find us as its own calls do.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlsym() {
    #[cfg(target_arch = "x86_64")]
    jump_to_the_loader!(DLSYM, ["lea rax, [rdi + 1]", "cmp rax, 1", "ja {by_handle}"] by_handle = sym by_handle);
    #[cfg(target_arch = "aarch64")]
    jump_to_the_loader!(DLSYM, ["add x16, x0, 1", "cmp x16, 1", "b.ls 2f", "b {by_handle}", "2:"] by_handle = sym by_handle);
}
