//! Signals by system call number: sets of the kernel's size, structures in the kernel's form.
//!
//! Owns: nothing; what the sets mean is signal.rs's. Called by: exports::numbered. Must not: touch a byte of the program's but by
//! copying, since what can't be read or stored is EFAULT here and not a fault, or look for a function of libc's.

use core::ffi::c_int;

use libc::c_long;

use super::buffers::{self, Bounce};
use super::process::in_shared_memory_child;
use super::signal as signals;
use crate::engine::delivery::{self, owns_a_signal};
use crate::sys::errno::Errno;
use crate::sys::signal::{self, KernelAction, Set, bit};
use crate::sys::syscall;

type Arguments = [usize; 6];
type Answer = Result<usize, Errno>;

/// Bytes of the kernel's set.
const SET_BYTES: usize = size_of::<Set>();
/// Words of a siginfo.
const INFO_WORDS: usize = size_of::<libc::siginfo_t>() / 8;
const EFAULT: Errno = Errno(libc::EFAULT);

fn kernel(number: c_long, args: Arguments) -> Answer {
    // SAFETY: the program's own call, or one on copies that are live.
    unsafe { syscall::call(number, args) }
}

fn load<const WORDS: usize>(at: usize) -> Result<[u64; WORDS], Errno> {
    let mut words = [0u64; WORDS];
    for (i, word) in words.iter_mut().enumerate() {
        let mut bytes = [0; 8];
        if buffers::load(at + i * 8, &mut bytes) < 8 {
            return Err(EFAULT);
        }
        *word = u64::from_ne_bytes(bytes);
    }
    Ok(words)
}

fn store(at: usize, words: &[u64]) -> Result<(), Errno> {
    if at == 0 {
        return Ok(());
    }
    for (i, word) in words.iter().enumerate() {
        if buffers::store(at + i * 8, &word.to_ne_bytes()) < 8 {
            return Err(EFAULT);
        }
    }
    Ok(())
}

/// Whether the kernel can be asked as it is.
fn not_concerned(size: usize) -> bool {
    size != SET_BYTES || !owns_a_signal() && buffers::idle()
}

/// A call that takes one set.
fn with_set(
    at: usize,
    size: usize,
    translate: impl Fn(Set) -> Set,
    make: impl FnOnce(usize) -> Answer,
) -> Answer {
    if at == 0 || not_concerned(size) {
        return make(at);
    }
    let [set] = load(at)?;
    let set = translate(set);
    signal::waiting_with(set, || make(&raw const set as usize))
}

fn without_ours(set: Set) -> Set {
    signal::to_kernel(set & if owns_a_signal() { !bit(signal::ours()) } else { Set::MAX })
}

/// The calls that change or wait with a mask; `None` for another number.
pub fn served(number: c_long, args: Arguments) -> Option<Answer> {
    Some(match number {
        libc::SYS_rt_sigprocmask => procmask(args),
        libc::SYS_rt_sigaction => action(args),
        libc::SYS_rt_sigpending => pending(args),
        libc::SYS_rt_sigtimedwait => timed_wait(args),
        libc::SYS_rt_sigsuspend => {
            with_set(args[0], args[1], signal::to_kernel, |set| kernel(number, [set, args[1], 0, 0, 0, 0]))
        }
        libc::SYS_ppoll | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 | libc::SYS_pselect6 => {
            poll(number, args)
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_signalfd => with_descriptor_set(number, args),
        libc::SYS_signalfd4 => with_descriptor_set(number, args),
        _ => return None,
    })
}

fn with_descriptor_set(number: c_long, args: Arguments) -> Answer {
    let [descriptor, set, size, flags, ..] = args;
    with_set(set, size, without_ours, |set| kernel(number, [descriptor, set, size, flags, 0, 0]))
}

fn procmask(args: Arguments) -> Answer {
    let [how, set, out, size, ..] = args;
    if not_concerned(size) {
        return kernel(libc::SYS_rt_sigprocmask, args);
    }
    let mut got: Set = 0;
    let at = &raw mut got as usize;
    let done = with_set(set, size, signal::to_kernel, |set| {
        kernel(libc::SYS_rt_sigprocmask, [how, set, at, size, 0, 0])
    })?;
    store(out, &[signal::to_program(got)]).map(|()| done)
}

fn pending(args: Arguments) -> Answer {
    let [out, size, ..] = args;
    if not_concerned(size) {
        return kernel(libc::SYS_rt_sigpending, args);
    }
    let got = signal::pending();
    if out == 0 { Err(EFAULT) } else { store(out, &[signal::to_program(got)]).map(|()| 0) }
}

fn words_of(action: &KernelAction) -> [u64; 4] {
    [action.handler as u64, action.flags, action.restorer as u64, action.mask]
}

fn action(args: Arguments) -> Answer {
    let [number, new, out, size, ..] = args;
    if not_concerned(size) {
        return kernel(libc::SYS_rt_sigaction, args);
    }
    if owns_a_signal() && signal::stand_in() == Some(number as c_int) {
        return Err(Errno(libc::EINVAL));
    }
    let mut wanted = None;
    if new != 0 {
        let [handler, flags, restorer, mask] = load(new)?;
        wanted = Some(KernelAction { handler: handler as usize, flags, restorer: restorer as usize, mask });
    }
    let before = if owns_a_signal() && number as c_int == signal::ours() && !in_shared_memory_child() {
        match &wanted {
            Some(wanted) => delivery::set_program_action(wanted),
            None => delivery::program_action(),
        }
    } else {
        if let Some(wanted) = &mut wanted {
            wanted.mask = signal::to_kernel(wanted.mask);
        }
        let mut before = KernelAction::default();
        let at = wanted.as_ref().map_or(0, |wanted| &raw const *wanted as usize);
        kernel(libc::SYS_rt_sigaction, [number, at, &raw mut before as usize, size, 0, 0])?;
        before.mask = signal::to_program(before.mask);
        before
    };
    store(out, &words_of(&before)).map(|()| 0)
}

fn timed_wait(args: Arguments) -> Answer {
    let [set, out, limit, size, ..] = args;
    if not_concerned(size) {
        return kernel(libc::SYS_rt_sigtimedwait, args);
    }
    let limit: Option<[u64; 2]> = if limit == 0 { None } else { Some(load(limit)?) };
    let limit_at = limit.as_ref().map_or(0, |limit| limit.as_ptr() as usize);
    let mut info = [0u64; INFO_WORDS];
    let info_at = info.as_mut_ptr() as usize;
    if set == 0 {
        return Err(EFAULT);
    }
    // Our signal may come under either number.
    let both = |set: Set| signal::to_kernel(set) | set & bit(signal::ours());
    let number = with_set(set, size, both, |set| {
        kernel(libc::SYS_rt_sigtimedwait, [set, info_at, limit_at, size, 0, 0])
    })?;
    let shown = signals::shown_number(number as c_int);
    if shown != number as c_int {
        // SAFETY: the siginfo that the kernel gave.
        unsafe { delivery::show_as_ours(info.as_mut_ptr().cast()) };
    }
    store(out, &info).map(|()| shown as usize)
}

/// ppoll, pselect6, epoll_pwait and epoll_pwait2, which by number tell how much of the time is left.
fn poll(number: c_long, args: Arguments) -> Answer {
    let mut bounce = Bounce::new();
    let mut args = args;
    let mut out = |at: usize, length: usize| bounce.output(at as *mut u8, || length) as usize;
    let (set, size) = match number {
        libc::SYS_ppoll => {
            args[0] = out(args[0], args[1].saturating_mul(size_of::<libc::pollfd>()));
            args[2] = out(args[2], size_of::<libc::timespec>());
            (3, args[4])
        }
        libc::SYS_pselect6 => {
            for i in 1..4 {
                args[i] = out(args[i], args[0].div_ceil(64) * 8);
            }
            args[4] = out(args[4], size_of::<libc::timespec>());
            (5, SET_BYTES)
        }
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            args[1] = out(args[1], args[2].saturating_mul(size_of::<libc::epoll_event>()));
            if number == libc::SYS_epoll_pwait2 {
                args[3] = out(args[3], size_of::<libc::timespec>());
            }
            (4, args[5])
        }
        _ => return Err(Errno(libc::ENOSYS)),
    };
    let result = if number == libc::SYS_pselect6 {
        selected(args)
    } else {
        with_set(args[set], size, signal::to_kernel, |at| {
            args[set] = at;
            kernel(number, args)
        })
    };
    bounce.finish();
    result
}

/// pselect6's last argument is two words: a set, and its size.
fn selected(mut args: Arguments) -> Answer {
    if args[5] == 0 || not_concerned(SET_BYTES) {
        return kernel(libc::SYS_pselect6, args);
    }
    let [set, size]: [u64; 2] = load(args[5])?;
    with_set(set as usize, size as usize, signal::to_kernel, |at| {
        let pair = [at as u64, size];
        args[5] = pair.as_ptr() as usize;
        kernel(libc::SYS_pselect6, args)
    })
}
