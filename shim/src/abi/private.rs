//! Private memory that stands in for a buffer of the program's.
//!
//! Owns: [`Private`]. Called by: buffers and messages. Must not: touch the program's memory.

use libc::iovec;

/// Zeroed memory of our own, of which only what is touched takes room.
pub struct Private {
    at: *mut u8,
    length: usize,
}

impl Private {
    fn layout(length: usize) -> Option<core::alloc::Layout> {
        core::alloc::Layout::from_size_align(length.max(1), 16).ok()
    }

    /// `None` if there is no room.
    pub fn new(length: usize) -> Option<Private> {
        // SAFETY: the layout is at least a byte long.
        let at = unsafe { std::alloc::alloc_zeroed(Self::layout(length)?) };
        (!at.is_null()).then_some(Private { at, length })
    }

    /// All of it.
    pub fn slice(&mut self) -> &mut [u8] {
        // SAFETY: our own, that long, and zeroed when it was made.
        unsafe { core::slice::from_raw_parts_mut(self.at, self.length) }
    }

    /// Where it is.
    pub fn address(&self) -> usize {
        self.at as usize
    }

    /// For the kernel.
    pub fn vector(&mut self, length: usize) -> iovec {
        iovec { iov_base: self.at.cast(), iov_len: length.min(self.length) }
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.length) {
            // SAFETY: made in `new` with the same layout.
            unsafe { std::alloc::dealloc(self.at, layout) };
        }
    }
}
