//! `syscall(2)` by numbers that are served for their sets and buffers alone: which argument is one, how long, and which way it goes.
//!
//! Owns: that table. Called by: numbers. Must not: look for a function of libc's, or have more than a line a call.

use super::buffered::{EVENT, LIMIT, POLL, SIGNAL, TIME, TIMER, USAGE, fd_set};
use super::{Bounce, buffers, c_int, call};
use crate::abi::{masks, requests};
use crate::sys::errno::Errno;

/// `index way bytes` for each argument that is a buffer; a..f are the call's arguments.
macro_rules! numbered {
    ($number:ident, $args:ident; $($(#[$attribute:meta])* $name:ident [$($index:literal $way:ident $length:expr),*];)*) => {{
        let mut bounce = Bounce::new();
        match $number {
            $($(#[$attribute])* libc::$name => {
                $($args[$index] = bounce.$way($args[$index] as *mut u8, || $length) as usize;)*
            })*
            _ => return None,
        }
        let result = call($number, $args);
        bounce.finish();
        Some(result)
    }};
}

/// The call, if it is one of these and concerned.
pub(super) unsafe fn served(number: libc::c_long, mut args: [usize; 6]) -> Option<Result<usize, Errno>> {
    if let Some(answer) = masks::served(number, args) {
        return Some(answer);
    }
    if buffers::idle() {
        return None;
    }
    let [a, b, c, d, _, _] = args;
    if number == libc::SYS_prctl {
        let mut bounce = Bounce::new();
        let mut words = [args[1], args[2], args[3], args[4]];
        requests::prctl(&mut bounce, a as c_int, &mut words);
        let result = call(number, [a, words[0], words[1], words[2], words[3], 0]);
        bounce.finish();
        return Some(result);
    }
    numbered! { number, args;
        // Waiting for descriptors.
        #[cfg(target_arch = "x86_64")]
        SYS_poll [0 output b * POLL];
        #[cfg(target_arch = "x86_64")]
        SYS_select [1 output fd_set(a as c_int), 2 output fd_set(a as c_int), 3 output fd_set(a as c_int), 4 output TIME];
        #[cfg(target_arch = "x86_64")]
        SYS_epoll_wait [1 output (c as c_int).max(0) as usize * EVENT];
        SYS_epoll_ctl [3 input EVENT];

        // Sockets and pipes.
        #[cfg(target_arch = "x86_64")]
        SYS_pipe [0 output 8];
        SYS_socketpair [3 output 8];
        SYS_accept [1 output buffers::word(c), 2 output 4];
        SYS_accept4 [1 output buffers::word(c), 2 output 4];
        SYS_bind [1 input c];
        SYS_connect [1 input c];
        SYS_getpeername [1 output buffers::word(c), 2 output 4];
        SYS_getsockname [1 output buffers::word(c), 2 output 4];
        SYS_getsockopt [3 output buffers::word(args[4]), 4 output 4];
        SYS_setsockopt [3 input args[4]];

        // Time.
        #[cfg(target_arch = "x86_64")]
        SYS_time [0 output 8];
        SYS_gettimeofday [0 output 16, 1 output 8];
        SYS_clock_getres [1 output TIME];
        SYS_clock_settime [1 input TIME];
        SYS_clock_nanosleep [2 input TIME, 3 output TIME];
        SYS_getitimer [1 output TIMER];
        SYS_setitimer [1 input TIMER, 2 output TIMER];
        SYS_timer_create [1 input size_of::<libc::sigevent>(), 2 output 4];
        SYS_timer_gettime [1 output TIMER];
        SYS_timer_settime [2 input TIMER, 3 output TIMER];
        SYS_timerfd_gettime [1 output TIMER];
        SYS_timerfd_settime [2 input TIMER, 3 output TIMER];
        SYS_times [0 output size_of::<libc::tms>()];

        // Processes.
        SYS_wait4 [1 output 4, 3 output USAGE];
        SYS_waitid [2 output SIGNAL, 4 output USAGE];
        SYS_rt_sigqueueinfo [2 input SIGNAL];
        SYS_rt_tgsigqueueinfo [3 input SIGNAL];
        SYS_getgroups [1 output (a as c_int).max(0) as usize * 4];
        SYS_setgroups [1 input a.saturating_mul(4)];
        SYS_getresuid [0 output 4, 1 output 4, 2 output 4];
        SYS_getresgid [0 output 4, 1 output 4, 2 output 4];
        SYS_getrlimit [1 output LIMIT];
        SYS_setrlimit [1 input LIMIT];
        SYS_prlimit64 [2 input LIMIT, 3 output LIMIT];
        SYS_getrusage [1 output USAGE];
        SYS_sched_getaffinity [2 output b];
        SYS_sched_setaffinity [2 input b];
        SYS_sched_getparam [1 output 4];
        SYS_sched_setparam [1 input 4];
        SYS_sched_setscheduler [2 input 4];
        SYS_sched_getattr [1 output c];
        SYS_sched_rr_get_interval [1 output TIME];
        SYS_getcpu [0 output 4, 1 output 4];
        SYS_capget [0 output 8, 1 output 24];
        SYS_capset [0 output 8, 1 input 24];

        // Queues.
        SYS_msgsnd [1 input c.saturating_add(8)];
        SYS_msgrcv [1 output c.saturating_add(8)];
        SYS_semop [1 input c.saturating_mul(6)];
        SYS_semtimedop [1 input c.saturating_mul(6), 3 input TIME];
        SYS_mq_timedsend [1 input c, 4 input TIME];
        SYS_mq_timedreceive [1 output c, 3 output 4, 4 input TIME];
        SYS_mq_getsetattr [1 input 64, 2 output 64];
        SYS_fsetxattr [1 string 0, 2 input d];
        SYS_fgetxattr [1 string 0, 2 output d];
    }
}
