//! Errors as hosts hold them.

use std::ffi::{CString, c_char};

use vocable_host_sdk::abi::NodeError;

use super::boundary::{c_string, free};

/// A [`NodeError`] whose texts C can read.
pub struct VocableError {
    code: u32,
    message: CString,
    help: CString,
    causes: CString,
}

impl VocableError {
    pub(super) fn new(error: &NodeError) -> Self {
        Self {
            code: error.kind.code(),
            message: c_string(&error.message),
            help: c_string(&error.help),
            causes: c_string(&error.causes.join("\n")),
        }
    }
}

/// The text of an error; empty for NULL.
///
/// # Safety
/// NULL or an error that was not freed.
unsafe fn text_of(error: *const VocableError, read: fn(&VocableError) -> &CString) -> *const c_char {
    // SAFETY: the caller vouches for it.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| read(error).as_ptr())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_error_code(error: *const VocableError) -> u32 {
    // SAFETY: the caller gives NULL or an error that was not freed.
    unsafe { error.as_ref() }.map_or(0, |error| error.code)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_error_message(error: *const VocableError) -> *const c_char {
    // SAFETY: the caller gives NULL or an error that was not freed.
    unsafe { text_of(error, |error| &error.message) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_error_help(error: *const VocableError) -> *const c_char {
    // SAFETY: the caller gives NULL or an error that was not freed.
    unsafe { text_of(error, |error| &error.help) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_error_causes(error: *const VocableError) -> *const c_char {
    // SAFETY: the caller gives NULL or an error that was not freed.
    unsafe { text_of(error, |error| &error.causes) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_error_free(error: *mut VocableError) {
    // SAFETY: the caller gives an error that came out of this library, once.
    unsafe { free(error) };
}
