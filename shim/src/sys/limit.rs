//! A limit of the data that the process may have, while there is no room for more (RLIMIT_DATA, setrlimit(2)).
//!
//! Owns: the limit, and what it was before. Called by: far, to set it; mem, whose memory of our own is beside it. Must not: allocate.

use core::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes by the program's own limit, while another is set; all ones: it has none. 0: no other is. Of the process: a forked child begins with
/// its parent's.
static OWN: AtomicU64 = AtomicU64::new(0);

/// From now on mmap(2) and brk(2) say ENOMEM beyond so many bytes of data.
pub fn set(bytes: u64) {
    let own = getrlimit(Resource::Data);
    let is_less = own.current.is_none_or(|own| own > bytes);
    if is_less
        && OWN
            .compare_exchange(0, own.current.unwrap_or(u64::MAX), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    {
        let _ = setrlimit(Resource::Data, Rlimit { current: Some(bytes), ..own });
    }
}

/// The program's own limit, again.
pub fn restore() {
    let own = OWN.swap(0, Ordering::Relaxed);
    if own != 0 {
        let maximum = getrlimit(Resource::Data).maximum;
        let _ = setrlimit(Resource::Data, Rlimit { current: (own != u64::MAX).then_some(own), maximum });
    }
}

/// Memory of our own was refused: room for so much more, if it is for the limit that it was.
pub fn make_room(bytes: usize) -> bool {
    let now = getrlimit(Resource::Data);
    match (OWN.load(Ordering::Relaxed), now.current) {
        (0, _) | (_, None) => false,
        (_, Some(current)) => {
            let raised = current.saturating_add(bytes as u64);
            setrlimit(Resource::Data, Rlimit { current: Some(raised), ..now }).is_ok()
        }
    }
}
