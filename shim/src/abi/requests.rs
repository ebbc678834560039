//! Requests whose buffers are known by what is asked for: prctl, and memory of processes by vectors.
//!
//! Owns: which argument of which request is a buffer. Called by: exports. Must not: know a request that is not about a plain buffer:
//! its buffer goes on as it came.

use core::ffi::c_int;

use libc::iovec;

use super::buffers::{self, Bounce, Kind};
use crate::sys::app::Span;
use crate::sys::errno::Errno;

/// Bytes of a thread's name, its zero included.
const NAME_BYTES: usize = 16;
/// PR_GET_AUXV (Linux 6.4) and PR_SET_VMA, which this libc crate does not have everywhere.
const PR_GET_AUXV: c_int = 0x4155_5856;
const PR_SET_VMA: c_int = 0x5356_4d41;

/// Puts the buffer of a prctl(2) over private memory, if it has one.
///
/// # Safety
/// The request's own arguments.
pub unsafe fn prctl(bounce: &mut Bounce, request: c_int, args: &mut [usize; 4]) {
    let mut out = |at: usize, length: usize| bounce.output(at as *mut u8, || length) as usize;
    match request {
        libc::PR_GET_PDEATHSIG
        | libc::PR_GET_UNALIGN
        | libc::PR_GET_FPEMU
        | libc::PR_GET_FPEXC
        | libc::PR_GET_ENDIAN
        | libc::PR_GET_TSC
        | libc::PR_GET_CHILD_SUBREAPER => args[0] = out(args[0], 4),
        libc::PR_GET_TID_ADDRESS => args[0] = out(args[0], 8),
        libc::PR_GET_NAME => args[0] = out(args[0], NAME_BYTES),
        PR_GET_AUXV => args[0] = out(args[0], args[1]),
        libc::PR_SET_NAME => buffers::path_ready(args[0] as *const _),
        PR_SET_VMA => buffers::path_ready(args[3] as *const _),
        _ => {}
    }
}

/// process_vm_readv(2) and process_vm_writev(2): the vectors, and both sides as far as they are this process's. What another process
/// has in mappings of its own must be present there.
pub fn process_memory(
    process: c_int,
    local: (*const iovec, usize),
    remote: (*const iovec, usize),
    write: bool,
    mut make: impl FnMut(&[iovec], &[iovec]) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let count = |count: usize| c_int::try_from(count).unwrap_or(c_int::MAX);
    let here = buffers::vectors(local.0, count(local.1))?;
    let there = buffers::vectors(remote.0, count(remote.1))?;
    let own = process == rustix::process::getpid().as_raw_nonzero().get();
    let step = |step: buffers::Step<'_>| {
        let rest = buffers::behind(&there, step.done);
        if own {
            for span in rest.iter().filter(|span| buffers::touches(**span)) {
                let whole: Span = *span;
                buffers::prepare(whole, write)?;
            }
        }
        buffers::with_vectors(&rest, |rest| make(step.vectors, rest))
    };
    if write {
        buffers::drain(&here, || Kind::Regular, step)
    } else {
        buffers::fill(&here, || Kind::Regular, step)
    }
}
