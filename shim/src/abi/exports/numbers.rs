//! `syscall(2)`, the function: futexes and buffers by number; files and memory are raw.rs's, and all other numbers go on as they
//! came, errno and all.
//!
//! Owns: the name, and what comes before raw.rs's table. Called by: the program. Must not: look for a function of libc's before the program
//! uses netmem (jemalloc opens and reads files by number inside malloc).

use core::ffi::c_long;

use super::*;

// A child of clone or vfork comes back here on a stack of its own, or with its parent's in use: for these numbers there must be
// nothing but the instruction between the caller and the kernel.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        "cmp rdi, {clone}", "je 2f",
        "cmp rdi, {fork}", "je 2f",
        "cmp rdi, {vfork}", "je 2f",
        "cmp rdi, {clone3}", "je 2f",
        "cmp rdi, {sigreturn}", "je 2f",
        "jmp {served}",
        "2:",
        "mov rax, rdi", "mov rdi, rsi", "mov rsi, rdx", "mov rdx, rcx", "mov r10, r8", "mov r8, r9", "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095", "jae 3f", "ret",
        "3:",
        "mov rdi, rax", "jmp {failed}",
        clone = const libc::SYS_clone, fork = const libc::SYS_fork, vfork = const libc::SYS_vfork,
        clone3 = const libc::SYS_clone3, sigreturn = const libc::SYS_rt_sigreturn,
        served = sym served, failed = sym failed,
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        "cmp x0, {clone}", "b.eq 2f",
        "cmp x0, {clone3}", "b.eq 2f",
        "cmp x0, {sigreturn}", "b.eq 2f",
        "b {served}",
        "2:",
        "mov x8, x0", "mov x0, x1", "mov x1, x2", "mov x2, x3", "mov x3, x4", "mov x4, x5", "mov x5, x6",
        "svc 0",
        "cmn x0, 4095", "b.cs 3f", "ret",
        "3:",
        "b {failed}",
        clone = const libc::SYS_clone, clone3 = const libc::SYS_clone3, sigreturn = const libc::SYS_rt_sigreturn,
        served = sym served, failed = sym failed,
    );
}

unsafe extern "C" fn failed(result: isize) -> c_long {
    errno::set(Errno(-result as i32));
    -1
}

/// Words that the kernel waits on or changes where they are. Whatever else it is given goes over private memory.
unsafe fn futex(args: [usize; 6]) -> isize {
    const WAIT: usize = 0;
    const WAKE: usize = 1;
    const WAIT_BITSET: usize = 9;
    const WAKE_BITSET: usize = 10;
    if buffers::idle() {
        return raw6(libc::SYS_futex, args);
    }
    let operation = args[1] & 0x7f;
    let waits = matches!(operation, WAIT | WAIT_BITSET | 6 | 11 | 13);
    let only_read = matches!(operation, WAIT | WAKE | WAIT_BITSET | WAKE_BITSET);
    let words = [args[0], if waits { 0 } else { args[4] }];
    buffers::given(args[3] as *const c_void, if waits { 16 } else { 0 }, |limit| {
        let args = [args[0], args[1], args[2], limit as usize, args[4], args[5]];
        raw_result(buffers::on_words(&words, !only_read, || call(libc::SYS_futex, args)))
    })
}

macro_rules! numbers {
    ($number:expr, $raw:expr; $($name:ident => $hook:expr;)*) => {
        match $number {
            libc::SYS_futex => futex($raw),
            $(libc::$name => ($hook) as isize,)*
            number => raw::served(number, $raw) as isize,
        }
    };
}

/// Paths and descriptors that programs use before netmem is: without a function of libc's.
unsafe fn early(number: c_long, args: [usize; 6]) -> Option<isize> {
    let [a, b, c, ..] = args;
    let raw = || raw6(number, args);
    Some(match number {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => {
            let path = a as *const c_char;
            finish(links::open(libc::AT_FDCWD, path, b as c_int, c as mode_t), || {
                links::foreign(path, raw() as c_int)
            }) as isize
        }
        libc::SYS_openat => {
            let path = b as *const c_char;
            finish(links::open(a as c_int, path, c as c_int, args[3] as mode_t), || {
                links::foreign(path, raw() as c_int)
            }) as isize
        }
        libc::SYS_close => finish(links::close(a as c_int), || raw() as c_int) as isize,
        libc::SYS_read | libc::SYS_write if file::is_plain(a as c_int) => raw(),
        _ => return None,
    })
}

unsafe extern "C" fn served(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> isize {
    use super::{
        attributes::*, buffered::*, files::*, names::*, sockets::*, transfers::nm_splice, walks::nm_getcwd,
    };
    let args = [a, b, c, d, e, f];
    if let Some(result) = early(number, args) {
        return result;
    }
    if let Some(answer) = numbered::served(number, args) {
        return raw_result(answer);
    }
    numbers! { number, args;
        SYS_splice => nm_splice(a as _, b as _, c as _, d as _, e, f as _);
        SYS_truncate => nm_truncate(a as _, b as _);
        SYS_ioctl => nm_ioctl(a as _, b as _, c as _);
        SYS_fstat => nm_fstat(a as _, b as _);
        SYS_statfs => nm_statfs(a as _, b as _);
        SYS_fstatfs => nm_fstatfs(a as _, b as _);
        SYS_getcwd => { let at = nm_getcwd(a as _, b); if at.is_null() { -1 } else { libc::strlen(at) as isize + 1 } };
        SYS_getdents64 => nm_getdents64(a as _, b as _, c);
        SYS_symlinkat => nm_symlinkat(a as _, b as _, c as _);
        SYS_memfd_create => nm_memfd_create(a as _, b as _);
        SYS_getrandom => nm_getrandom(a as _, b, c as _);
        SYS_recvmsg => nm_recvmsg(a as _, b as _, c as _);
        SYS_sendmsg => nm_sendmsg(a as _, b as _, c as _);
        SYS_recvfrom => nm_recvfrom(a as _, b as _, c, d as _, e as _, f as _);
        SYS_sendto => nm_sendto(a as _, b as _, c, d as _, e as _, f as _);
        SYS_pipe2 => nm_pipe2(a as _, b as _);
        SYS_nanosleep => nm_nanosleep(a as _, b as _);
        SYS_clock_gettime => nm_clock_gettime(a as _, b as _);
        SYS_uname => nm_uname(a as _);
        SYS_sysinfo => nm_sysinfo(a as _);
    }
}
