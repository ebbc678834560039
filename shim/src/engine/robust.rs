//! Robust mutexes that are held, or just being taken, by threads of this process: when a thread ends, the kernel stores into their
//! words, and gives up in silence at one that is protected; who waits for the mutex would wait for ever.
//!
//! Owns: finding them. Called by: the harvest, on the rungs that protect. Must not: touch what the lists point to but by copies
//! that take no fault.

use super::pins;
use super::state::Looking;
use crate::host::Runtime;
use crate::sys::{app, proc, syscall};

/// Entries of a list that the kernel looks at (ROBUST_LIST_LIMIT).
const LIST_MAX: usize = 2048;

/// `struct robust_list_head`: the first entry, where the word lies as seen from an entry, the entry that is being taken.
#[derive(Clone, Copy)]
struct Head {
    first: usize,
    offset: usize,
    pending: usize,
}

fn words<const N: usize>(at: usize) -> Option<[usize; N]> {
    let mut bytes = [0u8; 24];
    let length = N * size_of::<usize>();
    if app::copy_in(at, &mut bytes[..length]) < length {
        return None;
    }
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(size_of::<usize>())) {
        *word = bytes.try_into().map_or(0, usize::from_ne_bytes);
    }
    Some(words)
}

fn list_of(thread: i32) -> Option<(usize, Head)> {
    let (mut at, mut length) = (0usize, 0usize);
    let args = [thread as usize, &raw mut at as usize, &raw mut length as usize, 0, 0, 0];
    // SAFETY: two words of ours, which the kernel fills.
    unsafe { syscall::call(libc::SYS_get_robust_list, args) }.ok()?;
    let [first, offset, pending] = words(at)?;
    Some((at, Head { first, offset, pending }))
}

/// Opens the pages of every held word to the kernel, and keeps the next harvests from closing them. A mutex that was taken before
/// the harvest is in its thread's list, or pending there; one that is taken later makes its page writable by itself.
pub fn keep_open(runtime: &Runtime) {
    let _looking = Looking::start();
    for thread in proc::threads() {
        let Some((at, head)) = list_of(thread) else { continue };
        let word = |entry: usize| (entry & !1).wrapping_add(head.offset);
        if head.pending != 0 {
            open(runtime, word(head.pending));
        }
        let mut entry = head.first;
        for _ in 0..LIST_MAX {
            // The last entry points back to the head. The lowest bit says that the mutex inherits priority.
            if entry & !1 == at || entry == 0 {
                break;
            }
            open(runtime, word(entry));
            let Some([next]) = words(entry & !1) else { break };
            entry = next;
        }
    }
}

fn open(runtime: &Runtime, word: usize) {
    if let Some(mapping) = runtime.mappings.find(word)
        && !mapping.private
        && mapping.prot & libc::PROT_WRITE != 0
    {
        pins::add(word);
        // A page that can't be opened now was cut off: there is no mutex in it.
        let _ = runtime.engine().open_for_kernel(&mapping, word);
    }
}
