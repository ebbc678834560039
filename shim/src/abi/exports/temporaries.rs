//! Temporary files and directories.
//!
//! Owns: the names below. Called by: the program. Must not: do more than convert and call an operation.

use super::*;

hook! {
    unsafe fn mkstemp(template: *mut c_char) -> c_int => nm_mkstemp {
        finish(temporary::file(template, 0, 0), || links::foreign(template, real!(mkstemp)(template)))
    }
}

hook! {
    unsafe fn mkstemp64(template: *mut c_char) -> c_int => nm_mkstemp64 {
        finish(temporary::file(template, 0, 0), || links::foreign(template, real!(mkstemp64)(template)))
    }
}

hook! {
    unsafe fn mkostemp(template: *mut c_char, flags: c_int) -> c_int => nm_mkostemp {
        finish(temporary::file(template, 0, flags), || links::foreign(template, real!(mkostemp)(template, flags)))
    }
}

hook! {
    unsafe fn mkostemp64(template: *mut c_char, flags: c_int) -> c_int => nm_mkostemp64 {
        finish(temporary::file(template, 0, flags), || links::foreign(template, real!(mkostemp64)(template, flags)))
    }
}

hook! {
    unsafe fn mkstemps(template: *mut c_char, suffix: c_int) -> c_int => nm_mkstemps {
        finish(temporary::file(template, suffix, 0), || links::foreign(template, real!(mkstemps)(template, suffix)))
    }
}

hook! {
    unsafe fn mkstemps64(template: *mut c_char, suffix: c_int) -> c_int => nm_mkstemps64 {
        finish(temporary::file(template, suffix, 0), || links::foreign(template, real!(mkstemps64)(template, suffix)))
    }
}

hook! {
    unsafe fn mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int => nm_mkostemps {
        finish(temporary::file(template, suffix, flags), || links::foreign(template, real!(mkostemps)(template, suffix, flags)))
    }
}

hook! {
    unsafe fn mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int => nm_mkostemps64 {
        finish(temporary::file(template, suffix, flags), || links::foreign(template, real!(mkostemps64)(template, suffix, flags)))
    }
}

hook! {
    unsafe fn mkdtemp(template: *mut c_char) -> *mut c_char => nm_mkdtemp {
        pointer_of(temporary::directory(template), || real!(mkdtemp)(template))
    }
}

hook! {
    unsafe fn mktemp(template: *mut c_char) -> *mut c_char => nm_mktemp {
        pointer_of(temporary::name(template), || real!(mktemp)(template))
    }
}

hook! {
    unsafe fn tmpfile() -> *mut c_void => nm_tmpfile {
        pointer(temporary::unnamed().and_then(stdio::temporary), || real!(tmpfile)())
    }
}

hook! {
    unsafe fn tmpfile64() -> *mut c_void => nm_tmpfile64 {
        pointer(temporary::unnamed().and_then(stdio::temporary), || real!(tmpfile64)())
    }
}
