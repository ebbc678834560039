//! Processes: exec and the ways to end.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn _exit(status: c_int) -> () => nm__exit {
        process::at_exit();
        real!(_exit)(status)
    }
}

hook! {
    unsafe fn quick_exit(status: c_int) -> () => nm_quick_exit {
        process::at_exit();
        real!(quick_exit)(status)
    }
}

hook! {
    unsafe fn _Exit(status: c_int) -> () => nm__Exit {
        process::at_exit();
        real!(_Exit)(status)
    }
}

hook! {
    unsafe fn execve(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_execve {
        executed(|| real!(execve)(path, arguments, environment))
    }
}

hook! {
    unsafe fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execv {
        executed(|| real!(execv)(path, arguments))
    }
}

hook! {
    unsafe fn execvp(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execvp {
        executed(|| real!(execvp)(path, arguments))
    }
}

hook! {
    unsafe fn execvpe(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_execvpe {
        executed(|| real!(execvpe)(path, arguments, environment))
    }
}

hook! {
    unsafe fn fexecve(number: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_fexecve {
        executed(|| real!(fexecve)(number, arguments, environment))
    }
}

// The variadic ones: variadic.c collects their arguments and comes back through these.

unsafe extern "C" {
    fn netmem_execl();
    fn netmem_execlp();
    fn netmem_execle();
}

super::jump!(execl, netmem_execl);
super::jump!(execlp, netmem_execlp);
super::jump!(execle, netmem_execle);

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execv(path: *const c_char, arguments: *const *const c_char) -> c_int {
    nm_execv(path, arguments)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execvp(path: *const c_char, arguments: *const *const c_char) -> c_int {
    nm_execvp(path, arguments)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn netmem_hook_execve(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    nm_execve(path, arguments, environment)
}
