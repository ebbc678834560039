//! Blocks of memory in and out of streams that libc made: its inner reads and writes may go straight to the program's buffer.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;
use crate::abi::private::Private;

type File = *mut c_void;

unsafe extern "C" {
    fn flockfile(file: File);
    fn funlockfile(file: File);
    static stdout: File;
}

/// Bytes that go over private memory at a time.
const BLOCK: usize = 64 << 10;
const EOF: c_int = -1;

/// fread(3) of `size * count` bytes over private memory. `make` reads bytes into it.
unsafe fn read_block(
    into: *mut c_void,
    size: size_t,
    count: size_t,
    make: impl Fn(*mut c_void, size_t) -> size_t,
) -> size_t {
    let total = size.saturating_mul(count);
    let Some(mut block) = Private::new(BLOCK) else { return 0 };
    let block = block.slice();
    let mut done = 0;
    while done < total {
        let asked = (total - done).min(BLOCK);
        let came = make(block.as_mut_ptr().cast(), asked);
        let stored = buffers::store(into as usize + done, &block[..came]);
        if stored < came {
            // As libc's own copy would: the fault is the program's.
            core::ptr::copy(block[stored..].as_ptr(), into.cast::<u8>().add(done + stored), came - stored);
        }
        done += came;
        if came < asked {
            break;
        }
    }
    done / size
}

/// fwrite(3) of `size * count` bytes over private memory.
unsafe fn write_block(
    from: *const c_void,
    size: size_t,
    count: size_t,
    make: impl Fn(*const c_void, size_t) -> size_t,
) -> size_t {
    let total = size.saturating_mul(count);
    let Some(mut block) = Private::new(BLOCK) else { return 0 };
    let block = block.slice();
    let mut done = 0;
    while done < total {
        let asked = (total - done).min(BLOCK);
        let loaded = buffers::load(from as usize + done, &mut block[..asked]);
        if loaded < asked {
            return (done + make(from.cast::<u8>().add(done).cast(), total - done)) / size;
        }
        let went = make(block.as_ptr().cast(), asked);
        done += went;
        if went < asked {
            break;
        }
    }
    done / size
}

fn concerned(at: usize, size: size_t, count: size_t) -> bool {
    !buffers::idle() && buffers::touches(Span { at, length: size.saturating_mul(count) })
}

hook! {
    unsafe fn fread(into: *mut c_void, size: size_t, count: size_t, file: File) -> size_t => nm_fread {
        if !concerned(into as usize, size, count) { return real!(fread)(into, size, count, file) }
        flockfile(file);
        let result = read_block(into, size, count, |into, length| real!(fread_unlocked)(into, 1, length, file));
        funlockfile(file);
        result
    }
}

hook! {
    unsafe fn fread_unlocked(into: *mut c_void, size: size_t, count: size_t, file: File) -> size_t => nm_fread_unlocked {
        if !concerned(into as usize, size, count) { return real!(fread_unlocked)(into, size, count, file) }
        read_block(into, size, count, |into, length| real!(fread_unlocked)(into, 1, length, file))
    }
}

hook! {
    unsafe fn __fread_chk(into: *mut c_void, room: size_t, size: size_t, count: size_t, file: File) -> size_t => nm___fread_chk {
        if size.saturating_mul(count) > room || !concerned(into as usize, size, count) { return real!(__fread_chk)(into, room, size, count, file) }
        nm_fread(into, size, count, file)
    }
}

hook! {
    unsafe fn __fread_unlocked_chk(into: *mut c_void, room: size_t, size: size_t, count: size_t, file: File) -> size_t => nm___fread_unlocked_chk {
        if size.saturating_mul(count) > room || !concerned(into as usize, size, count) { return real!(__fread_unlocked_chk)(into, room, size, count, file) }
        nm_fread_unlocked(into, size, count, file)
    }
}

hook! {
    unsafe fn fwrite(from: *const c_void, size: size_t, count: size_t, file: File) -> size_t => nm_fwrite {
        if !concerned(from as usize, size, count) { return real!(fwrite)(from, size, count, file) }
        flockfile(file);
        let result = write_block(from, size, count, |from, length| real!(fwrite_unlocked)(from, 1, length, file));
        funlockfile(file);
        result
    }
}

hook! {
    unsafe fn fwrite_unlocked(from: *const c_void, size: size_t, count: size_t, file: File) -> size_t => nm_fwrite_unlocked {
        if !concerned(from as usize, size, count) { return real!(fwrite_unlocked)(from, size, count, file) }
        write_block(from, size, count, |from, length| real!(fwrite_unlocked)(from, 1, length, file))
    }
}

hook! {
    unsafe fn fputs(text: *const c_char, file: File) -> c_int => nm_fputs {
        if buffers::idle() || !concerned(text as usize, 1, libc::strlen(text)) { return real!(fputs)(text, file) }
        let length = libc::strlen(text);
        if nm_fwrite(text.cast(), 1, length, file) == length { 1 } else { EOF }
    }
}

hook! {
    unsafe fn fputs_unlocked(text: *const c_char, file: File) -> c_int => nm_fputs_unlocked {
        if buffers::idle() || !concerned(text as usize, 1, libc::strlen(text)) { return real!(fputs_unlocked)(text, file) }
        let length = libc::strlen(text);
        if nm_fwrite_unlocked(text.cast(), 1, length, file) == length { 1 } else { EOF }
    }
}

hook! {
    unsafe fn puts(text: *const c_char) -> c_int => nm_puts {
        if buffers::idle() || !concerned(text as usize, 1, libc::strlen(text)) { return real!(puts)(text) }
        flockfile(stdout);
        let wrote = nm_fputs_unlocked(text, stdout) != EOF && nm_fwrite_unlocked(c"\n".as_ptr().cast(), 1, 1, stdout) == 1;
        funlockfile(stdout);
        if wrote { 1 } else { EOF }
    }
}

// What a stream's buffer holds is nobody's business but libc's: one in our memory is as good as one of libc's own.

hook! {
    unsafe fn setvbuf(file: File, buffer: *mut c_char, mode: c_int, size: size_t) -> c_int => nm_setvbuf {
        let buffer = if concerned(buffer as usize, 1, size) { core::ptr::null_mut() } else { buffer };
        real!(setvbuf)(file, buffer, mode, size)
    }
}

hook! {
    unsafe fn setbuf(file: File, buffer: *mut c_char) -> () => nm_setbuf {
        if concerned(buffer as usize, 1, libc::BUFSIZ as usize) { return }
        real!(setbuf)(file, buffer)
    }
}

hook! {
    unsafe fn setbuffer(file: File, buffer: *mut c_char, size: size_t) -> () => nm_setbuffer {
        if concerned(buffer as usize, 1, size) { return }
        real!(setbuffer)(file, buffer, size)
    }
}
