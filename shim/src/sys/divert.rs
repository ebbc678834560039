//! A function of libc's is replaced where it stands, for libc's own calls too.
//!
//! Owns: the jump at its entry. Called by: abi::inner, before the program has threads. Must not: need what was there: nobody calls that
//! any more.
//!
//! What libc calls of its own does not go through a symbol that we could define. The kernel lets a process write its own text
//! through /proc/self/mem (FOLL_FORCE: the page becomes private to it), so nothing is writable and executable at any moment.

#![cfg(all(target_arch = "x86_64", target_env = "gnu"))]

use core::ffi::{CStr, c_void};

use super::errno::Errno;

/// jmp *0(%rip), and the address behind it.
const JUMP: [u8; 6] = [0xff, 0x25, 0, 0, 0, 0];
/// endbr64: where indirect calls may land.
const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// <dlfcn.h>
const RTLD_DL_SYMENT: i32 = 1;

/// Elf64_Sym (elf(5)).
#[repr(C)]
struct Symbol {
    name: u32,
    kind: [u8; 2],
    section: u16,
    value: u64,
    size: u64,
}

/// Whoever calls libc's function of this name gets to `instead`, by whatever way. EBUSY where another thread could be in it, ENOENT where it
/// is not libc's or there is no room for the jump, or the kernel's error (a kernel with `proc_mem.force_override=never`: EIO).
///
/// # Safety
/// `instead` is a function of the same type, which does what that one does.
pub unsafe fn divert(name: &CStr, instead: *const c_void) -> Result<(), Errno> {
    const NOT_THERE: Errno = Errno(libc::ENOENT);
    if super::proc::threads().len() != 1 {
        return Err(Errno(libc::EBUSY));
    }
    // SAFETY: the name is a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // Where two names are one function, of which another library may define one.
    let (base, size) = library_of(found).ok_or(NOT_THERE)?;
    let libc_base = library_of(libc::gnu_get_libc_version as *const c_void).ok_or(NOT_THERE)?.0;
    if base != libc_base {
        return Err(NOT_THERE);
    }
    // SAFETY: that much of the function's text is there.
    let entry = unsafe { core::slice::from_raw_parts(found as *const u8, size) };
    let skipped = if entry.starts_with(&LANDING) { LANDING.len() } else { 0 };
    let jump = [&JUMP[..], &(instead as usize).to_ne_bytes()].concat();
    if entry.len() < skipped + jump.len() {
        return Err(NOT_THERE);
    }
    let memory = super::file::open("/proc/self/mem", rustix::fs::OFlags::RDWR, 0)?;
    super::file::write_at(&memory, &jump, (found as usize + skipped) as u64)
}

/// Where a function's library is mapped, and the bytes of the function.
fn library_of(function: *const c_void) -> Option<(usize, usize)> {
    if function.is_null() {
        return None;
    }
    let mut symbol: *mut c_void = core::ptr::null_mut();
    // SAFETY: both are filled in, and the symbol is the library's own.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let told = libc::dladdr1(function, &raw mut info, &raw mut symbol, RTLD_DL_SYMENT);
        let symbol = symbol.cast::<Symbol>().as_ref()?;
        (told != 0).then_some((info.dli_fbase as usize, symbol.size as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn other() -> *mut c_void {
        core::ptr::null_mut()
    }

    #[test]
    fn a_function_that_is_not_libcs_or_beside_other_threads_stays_as_it_is() {
        // The test runner has a thread of its own beside this one.
        // SAFETY: it is refused.
        let busy = unsafe { divert(c"gnu_get_libc_version", other as *const c_void) };
        assert_eq!(busy, Err(Errno(libc::EBUSY)));
        assert!(library_of(libc::getpid as *const c_void).is_some_and(|(_, size)| size > 0));
        assert_eq!(library_of(core::ptr::null()), None);
    }
}
