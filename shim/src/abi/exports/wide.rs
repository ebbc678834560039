//! Wide characters on streams of ours, which have no wide side in libc: they go as bytes of the locale's encoding.
//!
//! Owns: the names below. Called by: the program. Must not: give a stream of ours to libc's wide functions, some of which would end
//! the program.

use super::*;
use libc::wchar_t;

type File = *mut c_void;
type Wint = u32;
type Line = *mut wchar_t;
const WEOF: Wint = Wint::MAX;
/// MB_LEN_MAX
const BYTES_MAX: usize = 16;

unsafe extern "C" {
    fn mbrtowc(to: *mut wchar_t, from: *const c_char, length: size_t, state: *mut u64) -> size_t;
    fn wcrtomb(to: *mut c_char, wide: wchar_t, state: *mut u64) -> size_t;
    fn getc_unlocked(file: File) -> c_int;
    fn putc_unlocked(byte: c_int, file: File) -> c_int;
    fn ungetc(byte: c_int, file: File) -> c_int;
    fn flockfile(file: File);
    fn funlockfile(file: File);
}

fn ours(file: File) -> bool {
    stdio::any() && stdio::number_of(file).is_ok()
}

unsafe fn locked<T>(file: File, make: impl FnOnce() -> T) -> T {
    flockfile(file);
    let result = make();
    funlockfile(file);
    result
}

unsafe fn get(file: File) -> Wint {
    let (mut state, mut wide) = (0, 0);
    loop {
        let byte = getc_unlocked(file);
        if byte < 0 {
            return WEOF;
        }
        match mbrtowc(&raw mut wide, &(byte as c_char), 1, &raw mut state) {
            // More bytes are needed.
            count if count == size_t::MAX - 1 => {}
            size_t::MAX => return WEOF,
            _ => return wide as Wint,
        }
    }
}

/// The bytes of a character, and how many; `None` for one that the encoding does not have.
unsafe fn encoded(wide: wchar_t) -> Option<([c_char; BYTES_MAX], usize)> {
    let (mut bytes, mut state) = ([0; BYTES_MAX], 0);
    let count = wcrtomb(bytes.as_mut_ptr(), wide, &raw mut state);
    (count <= BYTES_MAX).then_some((bytes, count))
}

unsafe fn put(wide: wchar_t, file: File) -> Wint {
    let Some((bytes, count)) = encoded(wide) else { return WEOF };
    let went = bytes[..count].iter().all(|byte| putc_unlocked(c_int::from(*byte as u8), file) >= 0);
    if went { wide as Wint } else { WEOF }
}

unsafe fn put_back(wide: Wint, file: File) -> Wint {
    let Some((bytes, count)) = encoded(wide as wchar_t).filter(|_| wide != WEOF) else { return WEOF };
    let went = bytes[..count].iter().rev().all(|byte| ungetc(c_int::from(*byte as u8), file) >= 0);
    if went { wide } else { WEOF }
}

unsafe fn get_line(to: Line, room: c_int, file: File) -> Line {
    let last = usize::try_from(room).unwrap_or(0).saturating_sub(1);
    let mut count = 0;
    while count < last {
        let wide = get(file);
        if wide == WEOF {
            break;
        }
        to.add(count).write(wide as wchar_t);
        count += 1;
        if wide == Wint::from(b'\n') {
            break;
        }
    }
    if room <= 0 || count == 0 && last != 0 {
        return core::ptr::null_mut();
    }
    to.add(count).write(0);
    to
}

unsafe fn put_text(text: *const wchar_t, file: File) -> c_int {
    let mut at = text;
    while *at != 0 {
        if put(*at, file) == WEOF {
            return -1;
        }
        at = at.add(1);
    }
    1
}

macro_rules! wide {
    ($($name:ident ($($arg:ident: $type:ty),*; $file:ident) -> $result:ty => $hook:ident: $served:expr;)*) => {$(
        hook! {
            unsafe fn $name($($arg: $type),*) -> $result => $hook {
                if ours($file) { locked($file, || $served) } else { real!($name)($($arg),*) }
            }
        }
    )*};
}

wide! {
    fgetwc(file: File; file) -> Wint => nm_fgetwc: get(file);
    getwc(file: File; file) -> Wint => nm_getwc: get(file);
    fgetwc_unlocked(file: File; file) -> Wint => nm_fgetwc_unlocked: get(file);
    getwc_unlocked(file: File; file) -> Wint => nm_getwc_unlocked: get(file);
    ungetwc(wide: Wint, file: File; file) -> Wint => nm_ungetwc: put_back(wide, file);
    fputwc(wide: wchar_t, file: File; file) -> Wint => nm_fputwc: put(wide, file);
    putwc(wide: wchar_t, file: File; file) -> Wint => nm_putwc: put(wide, file);
    fputwc_unlocked(wide: wchar_t, file: File; file) -> Wint => nm_fputwc_unlocked: put(wide, file);
    putwc_unlocked(wide: wchar_t, file: File; file) -> Wint => nm_putwc_unlocked: put(wide, file);
    fgetws(to: Line, room: c_int, file: File; file) -> Line => nm_fgetws: get_line(to, room, file);
    fgetws_unlocked(to: Line, room: c_int, file: File; file) -> Line => nm_fgetws_unlocked: get_line(to, room, file);
    fputws(text: *const wchar_t, file: File; file) -> c_int => nm_fputws: put_text(text, file);
    fputws_unlocked(text: *const wchar_t, file: File; file) -> c_int => nm_fputws_unlocked: put_text(text, file);
}

// With the room that the compiler knows of: what does not fit is libc's to end.

hook! {
    unsafe fn __fgetws_chk(to: Line, whole: size_t, room: c_int, file: File) -> Line => nm___fgetws_chk {
        if ours(file) && room as size_t <= whole { nm_fgetws(to, room, file) } else { real!(__fgetws_chk)(to, whole, room, file) }
    }
}

hook! {
    unsafe fn __fgetws_unlocked_chk(to: Line, whole: size_t, room: c_int, file: File) -> Line => nm___fgetws_unlocked_chk {
        if ours(file) && room as size_t <= whole { nm_fgetws(to, room, file) } else { real!(__fgetws_unlocked_chk)(to, whole, room, file) }
    }
}
