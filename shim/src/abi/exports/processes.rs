//! Processes: exec and the ways to end.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;
use crate::abi::exec::Program::{At, In, Searched};

hook! {
    unsafe fn __libc_start_main(main: *const c_void, count: c_int, arguments: *const *const c_char, init: *const c_void, fini: *const c_void, rtld_fini: *const c_void, stack_end: *const c_void) -> c_int => nm___libc_start_main {
        process::before_main();
        real!(__libc_start_main)(main, count, arguments, init, fini, rtld_fini, stack_end)
    }
}

hook! {
    unsafe fn _exit(status: c_int) -> () => nm__exit {
        process::at_exit();
        real!(_exit)(status)
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
        exec::execute(At(path), [arguments, environment], |path| real!(execve)(path, arguments, environment))
    }
}

hook! {
    unsafe fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execv {
        exec::execute(At(path), [arguments, core::ptr::null()], |path| real!(execv)(path, arguments))
    }
}

hook! {
    unsafe fn execvp(path: *const c_char, arguments: *const *const c_char) -> c_int => nm_execvp {
        exec::execute(Searched(path), [arguments, core::ptr::null()], |path| real!(execvp)(path, arguments))
    }
}

hook! {
    unsafe fn execvpe(path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_execvpe {
        exec::execute(Searched(path), [arguments, environment], |path| real!(execvpe)(path, arguments, environment))
    }
}

hook! {
    unsafe fn fexecve(number: c_int, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_fexecve {
        exec::execute(In(number, c"".as_ptr()), [arguments, environment], |_| real!(fexecve)(number, arguments, environment))
    }
}

hook! {
    unsafe fn execveat(directory: c_int, path: *const c_char, arguments: *const *const c_char, environment: *const *const c_char, flags: c_int) -> c_int => nm_execveat {
        exec::execute(In(directory, path), [arguments, environment], |path| real!(execveat)(directory, path, arguments, environment, flags))
    }
}

hook! {
    unsafe fn posix_spawn(pid: *mut libc::pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_posix_spawn {
        spawn::spawn(pid, At(path), (actions, attributes), [arguments, environment], |pid, path| real!(posix_spawn)(pid, path, actions, attributes, arguments, environment))
    }
}

hook! {
    unsafe fn posix_spawnp(pid: *mut libc::pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void, arguments: *const *const c_char, environment: *const *const c_char) -> c_int => nm_posix_spawnp {
        spawn::spawn(pid, Searched(path), (actions, attributes), [arguments, environment], |pid, path| real!(posix_spawnp)(pid, path, actions, attributes, arguments, environment))
    }
}

hook! {
    unsafe fn posix_spawn_file_actions_init(actions: *mut c_void) -> c_int => nm_posix_spawn_file_actions_init {
        { spawn::forget(actions); real!(posix_spawn_file_actions_init)(actions) }
    }
}

hook! {
    unsafe fn posix_spawn_file_actions_destroy(actions: *mut c_void) -> c_int => nm_posix_spawn_file_actions_destroy {
        { spawn::forget(actions); real!(posix_spawn_file_actions_destroy)(actions) }
    }
}

hook! {
    unsafe fn posix_spawn_file_actions_addopen(actions: *mut c_void, number: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int => nm_posix_spawn_file_actions_addopen {
        spawn::add_open(actions, path, flags, mode, |path, flags| real!(posix_spawn_file_actions_addopen)(actions, number, path, flags, mode))
    }
}

hook! {
    unsafe fn posix_spawn_file_actions_addchdir_np(actions: *mut c_void, path: *const c_char) -> c_int => nm_posix_spawn_file_actions_addchdir_np {
        spawn::add_directory(path, |path| real!(posix_spawn_file_actions_addchdir_np)(actions, path))
    }
}

/// A call that starts a shell, which inherits what the program set.
unsafe fn with_shell<T>(command: *const c_char, make: impl FnOnce(*const c_char) -> T) -> T {
    exec::bring_in(command, [core::ptr::null(); 2]);
    let told = signals::shell_command(command);
    let command = told.as_ref().map_or(command, |told| told.as_ptr());
    signals::as_inherited(|| make(command))
}

hook! {
    unsafe fn system(command: *const c_char) -> c_int => nm_system {
        with_shell(command, |command| real!(system)(command))
    }
}

hook! {
    unsafe fn popen(command: *const c_char, kind: *const c_char) -> *mut c_void => nm_popen {
        with_shell(command, |command| real!(popen)(command, kind))
    }
}

hook! {
    unsafe fn daemon(stay: c_int, keep: c_int) -> c_int => nm_daemon {
        if process::in_shared_memory_child() || process::disabled() { real!(daemon)(stay, keep) } else { daemons::daemon(stay != 0, keep != 0) }
    }
}

hook! {
    unsafe fn login_tty(terminal: c_int) -> c_int => nm_login_tty {
        { let result = real!(login_tty)(terminal); daemons::streams_replaced(); result }
    }
}

hook! {
    unsafe fn forkpty(terminal: *mut c_int, name: *mut c_char, settings: *const c_void, size: *const c_void) -> libc::pid_t => nm_forkpty {
        { let child = real!(forkpty)(terminal, name, settings, size); if child == 0 { daemons::streams_replaced() } child }
    }
}

hook! {
    unsafe fn _Fork() -> libc::pid_t => nm__Fork {
        fork::around(|| real!(_Fork)())
    }
}

hook! {
    unsafe fn clone(function: extern "C" fn(*mut c_void) -> c_int, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent: usize, tls: usize, child: usize) -> c_int => nm_clone {
        fork::cloned(function, flags, argument, |function, argument| real!(clone)(function, stack, flags, argument, parent, tls, child))
    }
}

hook! {
    unsafe fn __clone(function: extern "C" fn(*mut c_void) -> c_int, stack: *mut c_void, flags: c_int, argument: *mut c_void, parent: usize, tls: usize, child: usize) -> c_int => nm___clone {
        fork::cloned(function, flags, argument, |function, argument| real!(__clone)(function, stack, flags, argument, parent, tls, child))
    }
}

hook! {
    unsafe fn pthread_create(thread: *mut libc::pthread_t, attributes: *const libc::pthread_attr_t, start: *mut c_void, argument: *mut c_void) -> c_int => nm_pthread_create {
        {
            fork::before_thread();
            signals::hold_thread_stack(attributes);
            let code = real!(pthread_create)(thread, attributes, start, argument);
            if code == 0 {
                crate::far::fork::note_thread(thread);
            }
            code
        }
    }
}

// The variadic ones: variadic.c collects their arguments and comes back through these.

unsafe extern "C" {
    fn netmem_execl();
    fn netmem_execlp();
    fn netmem_execle();
}

/// pthread_exit unwinds its thread's frames, so none of ours may be among them.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_exit() {
    #[cfg(target_arch = "x86_64")]
    core::arch::naked_asm!(
        "push rdi",
        "call {note}",
        "pop rdi",
        "jmp rax",
        note = sym netmem_before_pthread_exit,
    );
    #[cfg(target_arch = "aarch64")]
    core::arch::naked_asm!(
        "stp x0, x30, [sp, #-16]!",
        "bl {note}",
        "mov x9, x0",
        "ldp x0, x30, [sp], #16",
        "br x9",
        note = sym netmem_before_pthread_exit,
    );
}

/// What ends a thread, after a look at whether we would be all that is left.
extern "C" fn netmem_before_pthread_exit() -> usize {
    crate::sys::thread::before_exit();
    resolve::next(c"pthread_exit") as usize
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
