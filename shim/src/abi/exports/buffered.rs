//! Calls that are served only for their buffers: a table of which argument is one, how long, and which way it goes.
//!
//! Owns: the names below. Called by: the program. Must not: have more than a line a call.
//!
//! `input[bytes]` is read by the call, `output[bytes]` filled or changed; what has neither goes on as it came.

use super::*;
use crate::abi::requests;

macro_rules! buffered {
    ($($name:ident ($($arg:ident: $type:ty $(= $way:ident [$length:expr])?),*) -> $result:ty => $hook:ident;)*) => {$(
        hook! {
            unsafe fn $name($($arg: $type),*) -> $result => $hook {
                if buffers::idle() {
                    return real!($name)($($arg),*);
                }
                let mut bounce = Bounce::new();
                $($(let $arg = bounce.$way($arg, || $length);)?)*
                let result = real!($name)($($arg),*);
                bounce.finish();
                result
            }
        }
    )*};
}

type In = *const c_void;
type Out = *mut c_void;
type Size = *mut u32;

pub(super) const TIME: usize = size_of::<libc::timespec>();
pub(super) const TIMER: usize = size_of::<libc::itimerspec>();
const STATFS: usize = size_of::<libc::statfs>();
pub(super) const SIGNAL: usize = size_of::<libc::siginfo_t>();
pub(super) const LIMIT: usize = size_of::<libc::rlimit>();
pub(super) const USAGE: usize = size_of::<libc::rusage>();
const CLOCK: usize = size_of::<libc::timex>();
const QUEUE: usize = size_of::<libc::mq_attr>();
pub(super) const POLL: usize = size_of::<libc::pollfd>();
pub(super) const EVENT: usize = size_of::<libc::epoll_event>();

/// Bytes of an fd_set that select looks at: whole words.
pub(super) fn fd_set(count: c_int) -> usize {
    count.max(0) as usize / 8 / 8 * 8 + if count > 0 && count % 64 != 0 { 8 } else { 0 }
}

/// Bytes behind an ioctl's argument: what its number says; a few old numbers say nothing.
fn argument(request: libc::c_ulong) -> usize {
    const SIZE_SHIFT: u32 = 16;
    match request {
        libc::FIONREAD
        | libc::FIONBIO
        | libc::FIOASYNC
        | libc::TIOCOUTQ
        | libc::TIOCGPGRP
        | libc::TIOCSPGRP => 4,
        libc::TIOCMGET | libc::TIOCMSET | libc::TIOCGSID | libc::TIOCGETD | libc::TIOCSETD => 4,
        libc::TIOCGWINSZ | libc::TIOCSWINSZ => size_of::<libc::winsize>(),
        libc::TCGETS | libc::TCSETS | libc::TCSETSW | libc::TCSETSF => 36,
        _ if request >> 30 & 3 != 0 => (request >> SIZE_SHIFT & 0x3fff) as usize,
        _ => 0,
    }
}

buffered! {
    // Descriptors and sockets.
    accept(number: c_int, address: Out = output[buffers::word(size as usize)], size: Size = output[4]) -> c_int => nm_accept;
    accept4(number: c_int, address: Out = output[buffers::word(size as usize)], size: Size = output[4], flags: c_int) -> c_int => nm_accept4;
    bind(number: c_int, address: In = input[size as usize], size: u32) -> c_int => nm_bind;
    connect(number: c_int, address: In = input[size as usize], size: u32) -> c_int => nm_connect;
    getpeername(number: c_int, address: Out = output[buffers::word(size as usize)], size: Size = output[4]) -> c_int => nm_getpeername;
    getsockname(number: c_int, address: Out = output[buffers::word(size as usize)], size: Size = output[4]) -> c_int => nm_getsockname;
    getsockopt(number: c_int, level: c_int, option: c_int, value: Out = output[buffers::word(size as usize)], size: Size = output[4]) -> c_int => nm_getsockopt;
    setsockopt(number: c_int, level: c_int, option: c_int, value: In = input[size as usize], size: u32) -> c_int => nm_setsockopt;
    pipe(ends: Out = output[8]) -> c_int => nm_pipe;
    pipe2(ends: Out = output[8], flags: c_int) -> c_int => nm_pipe2;
    socketpair(domain: c_int, kind: c_int, protocol: c_int, ends: Out = output[8]) -> c_int => nm_socketpair;
    eventfd_read(number: c_int, value: Out = output[8]) -> c_int => nm_eventfd_read;
    getdents64(number: c_int, entries: Out = output[length], length: size_t) -> ssize_t => nm_getdents64;
    fgetxattr(number: c_int, name: In = string[0], value: Out = output[length], length: size_t) -> ssize_t => nm_fgetxattr;
    fsetxattr(number: c_int, name: In = string[0], value: In = input[length], length: size_t, flags: c_int) -> c_int => nm_fsetxattr;
    flistxattr(number: c_int, names: Out = output[length], length: size_t) -> ssize_t => nm_flistxattr;
    fremovexattr(number: c_int, name: In = string[0]) -> c_int => nm_fremovexattr;
    memfd_create(name: In = string[0], flags: c_uint) -> c_int => nm_memfd_create;

    // What a descriptor is.
    fstatfs(number: c_int, into: Out = output[STATFS]) -> c_int => nm_fstatfs;
    fstatfs64(number: c_int, into: Out = output[STATFS]) -> c_int => nm_fstatfs64;

    // Waiting for descriptors.
    poll(entries: Out = output[count as usize * POLL], count: libc::nfds_t, limit: c_int) -> c_int => nm_poll;
    __poll_chk(entries: Out = output[count as usize * POLL], count: libc::nfds_t, limit: c_int, room: size_t) -> c_int => nm___poll_chk;
    select(count: c_int, reads: Out = output[fd_set(count)], writes: Out = output[fd_set(count)], others: Out = output[fd_set(count)], limit: Out = output[TIME]) -> c_int => nm_select;
    epoll_ctl(number: c_int, operation: c_int, other: c_int, event: Out = output[EVENT]) -> c_int => nm_epoll_ctl;
    epoll_wait(number: c_int, events: Out = output[count.max(0) as usize * EVENT], count: c_int, limit: c_int) -> c_int => nm_epoll_wait;

    // Time.
    clock_getres(clock: c_int, into: Out = output[TIME]) -> c_int => nm_clock_getres;
    clock_gettime(clock: c_int, into: Out = output[TIME]) -> c_int => nm_clock_gettime;
    gettimeofday(into: Out = output[size_of::<libc::timeval>()], zone: Out = output[8]) -> c_int => nm_gettimeofday;
    time(into: Out = output[8]) -> libc::time_t => nm_time;
    clock_settime(clock: c_int, wish: In = input[TIME]) -> c_int => nm_clock_settime;
    clock_nanosleep(clock: c_int, flags: c_int, wish: In = input[TIME], left: Out = output[TIME]) -> c_int => nm_clock_nanosleep;
    nanosleep(wish: In = input[TIME], left: Out = output[TIME]) -> c_int => nm_nanosleep;
    getitimer(which: c_int, into: Out = output[TIMER]) -> c_int => nm_getitimer;
    setitimer(which: c_int, new: In = input[TIMER], old: Out = output[TIMER]) -> c_int => nm_setitimer;
    timer_create(clock: c_int, event: In = input[size_of::<libc::sigevent>()], timer: Out = output[8]) -> c_int => nm_timer_create;
    timer_gettime(timer: *mut c_void, into: Out = output[TIMER]) -> c_int => nm_timer_gettime;
    timer_settime(timer: *mut c_void, flags: c_int, new: In = input[TIMER], old: Out = output[TIMER]) -> c_int => nm_timer_settime;
    timerfd_gettime(number: c_int, into: Out = output[TIMER]) -> c_int => nm_timerfd_gettime;
    timerfd_settime(number: c_int, flags: c_int, new: In = input[TIMER], old: Out = output[TIMER]) -> c_int => nm_timerfd_settime;
    times(into: Out = output[size_of::<libc::tms>()]) -> libc::clock_t => nm_times;

    adjtimex(clock: Out = output[CLOCK]) -> c_int => nm_adjtimex;
    __adjtimex(clock: Out = output[CLOCK]) -> c_int => nm___adjtimex;
    ntp_adjtime(clock: Out = output[CLOCK]) -> c_int => nm_ntp_adjtime;
    clock_adjtime(which: c_int, clock: Out = output[CLOCK]) -> c_int => nm_clock_adjtime;

    // Processes.
    wait(status: Out = output[4]) -> c_int => nm_wait;
    waitpid(child: c_int, status: Out = output[4], options: c_int) -> c_int => nm_waitpid;
    wait3(status: Out = output[4], options: c_int, usage: Out = output[USAGE]) -> c_int => nm_wait3;
    wait4(child: c_int, status: Out = output[4], options: c_int, usage: Out = output[USAGE]) -> c_int => nm_wait4;
    waitid(kind: c_uint, id: c_uint, info: Out = output[SIGNAL], options: c_int) -> c_int => nm_waitid;
    getgroups(count: c_int, groups: Out = output[count.max(0) as usize * 4]) -> c_int => nm_getgroups;
    setgroups(count: size_t, groups: In = input[count * 4]) -> c_int => nm_setgroups;
    getresuid(real: Out = output[4], effective: Out = output[4], saved: Out = output[4]) -> c_int => nm_getresuid;
    getresgid(real: Out = output[4], effective: Out = output[4], saved: Out = output[4]) -> c_int => nm_getresgid;
    getrlimit(which: c_uint, into: Out = output[LIMIT]) -> c_int => nm_getrlimit;
    getrlimit64(which: c_uint, into: Out = output[LIMIT]) -> c_int => nm_getrlimit64;
    setrlimit(which: c_uint, limit: In = input[LIMIT]) -> c_int => nm_setrlimit;
    setrlimit64(which: c_uint, limit: In = input[LIMIT]) -> c_int => nm_setrlimit64;
    prlimit(process: c_int, which: c_uint, new: In = input[LIMIT], old: Out = output[LIMIT]) -> c_int => nm_prlimit;
    prlimit64(process: c_int, which: c_uint, new: In = input[LIMIT], old: Out = output[LIMIT]) -> c_int => nm_prlimit64;
    getrusage(who: c_int, into: Out = output[USAGE]) -> c_int => nm_getrusage;
    sched_getaffinity(process: c_int, length: size_t, set: Out = output[length]) -> c_int => nm_sched_getaffinity;
    sched_setaffinity(process: c_int, length: size_t, set: In = input[length]) -> c_int => nm_sched_setaffinity;
    sched_getparam(process: c_int, into: Out = output[4]) -> c_int => nm_sched_getparam;
    sched_setparam(process: c_int, from: In = input[4]) -> c_int => nm_sched_setparam;
    sched_setscheduler(process: c_int, policy: c_int, from: In = input[4]) -> c_int => nm_sched_setscheduler;
    sched_rr_get_interval(process: c_int, into: Out = output[TIME]) -> c_int => nm_sched_rr_get_interval;
    pthread_getaffinity_np(thread: libc::pthread_t, length: size_t, set: Out = output[length]) -> c_int => nm_pthread_getaffinity_np;
    pthread_setaffinity_np(thread: libc::pthread_t, length: size_t, set: In = input[length]) -> c_int => nm_pthread_setaffinity_np;

    pthread_getname_np(thread: libc::pthread_t, name: *mut c_char = output[length], length: size_t) -> c_int => nm_pthread_getname_np;
    pthread_setname_np(thread: libc::pthread_t, name: *const c_char = string[0]) -> c_int => nm_pthread_setname_np;
    capget(version: Out = output[8], sets: Out = output[24]) -> c_int => nm_capget;
    capset(version: Out = output[8], sets: In = input[24]) -> c_int => nm_capset;

    // The system.
    sethostname(name: *const c_char = input[length], length: size_t) -> c_int => nm_sethostname;
    setdomainname(name: *const c_char = input[length], length: size_t) -> c_int => nm_setdomainname;
    ttyname_r(number: c_int, name: *mut c_char = output[length], length: size_t) -> c_int => nm_ttyname_r;
    __ttyname_r_chk(number: c_int, name: *mut c_char = output[length], length: size_t, room: size_t) -> c_int => nm___ttyname_r_chk;
    getrandom(into: Out = output[length], length: size_t, flags: c_uint) -> ssize_t => nm_getrandom;
    getentropy(into: Out = output[length], length: size_t) -> c_int => nm_getentropy;
    sysinfo(into: Out = output[size_of::<libc::sysinfo>()]) -> c_int => nm_sysinfo;
    uname(into: Out = output[size_of::<libc::utsname>()]) -> c_int => nm_uname;

    // Queues.
    mq_open(name: *const c_char = string[0], flags: c_int, mode: mode_t, attributes: In = input[QUEUE]) -> c_int => nm_mq_open;
    __mq_open_2(name: *const c_char = string[0], flags: c_int) -> c_int => nm___mq_open_2;
    mq_unlink(name: *const c_char = string[0]) -> c_int => nm_mq_unlink;
    msgctl(queue: c_int, command: c_int, into: Out = output[size_of::<libc::msqid_ds>()]) -> c_int => nm_msgctl;
    shmctl(segment: c_int, command: c_int, into: Out = output[size_of::<libc::shmid_ds>()]) -> c_int => nm_shmctl;
    mq_getattr(queue: c_int, into: Out = output[QUEUE]) -> c_int => nm_mq_getattr;
    mq_setattr(queue: c_int, new: In = input[QUEUE], old: Out = output[QUEUE]) -> c_int => nm_mq_setattr;
    mq_send(queue: c_int, message: In = input[length], length: size_t, priority: c_uint) -> c_int => nm_mq_send;
    mq_timedsend(queue: c_int, message: In = input[length], length: size_t, priority: c_uint, limit: In = input[TIME]) -> c_int => nm_mq_timedsend;
    mq_receive(queue: c_int, message: Out = output[length], length: size_t, priority: Out = output[4]) -> ssize_t => nm_mq_receive;
    mq_timedreceive(queue: c_int, message: Out = output[length], length: size_t, priority: Out = output[4], limit: In = input[TIME]) -> ssize_t => nm_mq_timedreceive;
    msgsnd(queue: c_int, message: In = input[8 + length], length: size_t, flags: c_int) -> c_int => nm_msgsnd;
    msgrcv(queue: c_int, message: Out = output[8 + length], length: size_t, kind: libc::c_long, flags: c_int) -> ssize_t => nm_msgrcv;
    semop(set: c_int, operations: In = input[count * 6], count: size_t) -> c_int => nm_semop;
    semtimedop(set: c_int, operations: In = input[count * 6], count: size_t, limit: In = input[TIME]) -> c_int => nm_semtimedop;
}

hook! {
    unsafe fn ioctl(number: c_int, request: libc::c_ulong, value: *mut c_void) -> c_int => nm_ioctl {
        buffers::filled(value, argument(request), |value| finish(file::control(number, request, value as usize), || real!(ioctl)(number, request, value)))
    }
}

hook! {
    unsafe fn prctl(request: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int => nm_prctl {
        if buffers::idle() {
            return real!(prctl)(request, a, b, c, d);
        }
        let (mut bounce, mut args) = (Bounce::new(), [a, b, c, d]);
        requests::prctl(&mut bounce, request, &mut args);
        let result = real!(prctl)(request, args[0], args[1], args[2], args[3]);
        bounce.finish();
        result
    }
}

hook! {
    unsafe fn process_vm_readv(process: c_int, local: *const iovec, locals: size_t, remote: *const iovec, remotes: size_t, flags: size_t) -> ssize_t => nm_process_vm_readv {
        if buffers::idle() || flags != 0 {
            return real!(process_vm_readv)(process, local, locals, remote, remotes, flags);
        }
        raw_result(requests::process_memory(process, (local, locals), (remote, remotes), false, |local, remote| {
            of_libc(real!(process_vm_readv)(process, local.as_ptr(), local.len(), remote.as_ptr(), remote.len(), flags))
        }))
    }
}

hook! {
    unsafe fn process_vm_writev(process: c_int, local: *const iovec, locals: size_t, remote: *const iovec, remotes: size_t, flags: size_t) -> ssize_t => nm_process_vm_writev {
        if buffers::idle() || flags != 0 {
            return real!(process_vm_writev)(process, local, locals, remote, remotes, flags);
        }
        raw_result(requests::process_memory(process, (local, locals), (remote, remotes), true, |local, remote| {
            of_libc(real!(process_vm_writev)(process, local.as_ptr(), local.len(), remote.as_ptr(), remote.len(), flags))
        }))
    }
}
