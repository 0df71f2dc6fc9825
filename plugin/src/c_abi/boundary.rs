//! What every entry has in common: no panic gets out, and pointers are looked at before they are used.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut};

use vocable_host_sdk::abi::{NodeError, catch_panic};

use super::error::VocableError;

/// Runs the body of a function that can fail: NULL, or what went wrong; a panic, too, is an error.
pub(super) fn entry(place: &str, body: impl FnOnce() -> Result<(), NodeError>) -> *mut VocableError {
    match catch_panic(place, body) {
        Ok(()) => null_mut(),
        Err(error) => Box::into_raw(Box::new(VocableError::new(&error))),
    }
}

/// Runs the body of a function that cannot fail. Where it panics all the same, its caller gets `otherwise`.
pub(super) fn harmless<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_panic("", || Ok(body())).unwrap_or(otherwise)
}

/// Frees what [`Box::into_raw`] gave to the host.
///
/// # Safety
/// NULL, or an object that came out of this library and that nobody uses any more.
pub(super) unsafe fn free<T>(object: *mut T) {
    harmless((), || {
        if !object.is_null() {
            // SAFETY: the caller vouches for it.
            drop(unsafe { Box::from_raw(object) });
        }
    });
}

/// Where an answer is written to.
pub(super) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// NULL, or writable until the call ends.
    pub(super) unsafe fn new(place: *mut T, name: &str) -> Result<Self, NodeError> {
        NonNull::new(place).map(Self).ok_or_else(|| is_null(name))
    }

    /// # Safety
    /// As for [`new`](Self::new).
    pub(super) unsafe fn optional(place: *mut T) -> Option<Self> {
        NonNull::new(place).map(Self)
    }

    /// Writes the answer; what stands there is not read.
    pub(super) fn put(self, value: T) {
        // SAFETY: whoever made this vouched for the place.
        unsafe { self.0.write(value) };
    }
}

/// # Safety
/// NULL, or an object that is not changed or freed as long as the result is used.
pub(super) unsafe fn borrowed<'a, T>(object: *const T, name: &str) -> Result<&'a T, NodeError> {
    // SAFETY: the caller vouches for it.
    unsafe { object.as_ref() }.ok_or_else(|| is_null(name))
}

/// # Safety
/// NULL, or an object that nobody else uses or frees as long as the result is used.
pub(super) unsafe fn borrowed_mut<'a, T>(object: *mut T, name: &str) -> Result<&'a mut T, NodeError> {
    // SAFETY: the caller vouches for it.
    unsafe { object.as_mut() }.ok_or_else(|| is_null(name))
}

/// # Safety
/// NULL, or text that ends with a zero byte and is not changed as long as the result is used.
pub(super) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, NodeError> {
    if text.is_null() {
        return Err(is_null(name));
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|error| {
        NodeError::invalid_input(format!("argument `{name}` is not UTF-8")).caused_by(&error)
    })
}

pub(super) fn is_null(name: &str) -> NodeError {
    NodeError::invalid_input(format!("argument `{name}` is NULL"))
}

/// Text for C, which cannot hold zero bytes: they become U+FFFD.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c_abi::error::{vocable_error_code, vocable_error_free, vocable_error_message};

    #[test]
    fn a_panic_becomes_an_error_and_an_accessor_its_default() {
        let error = entry("vocable_x", || panic!("oh\0no"));
        // SAFETY: the error was just made, and is freed once.
        unsafe {
            assert_eq!(vocable_error_code(error), 7);
            let message = CStr::from_ptr(vocable_error_message(error));
            assert_eq!(message.to_str().unwrap(), "vocable_x panicked: oh\u{fffd}no");
            vocable_error_free(error);
        }
        assert!(entry("vocable_x", || Ok(())).is_null());
        assert_eq!(harmless(3, || panic!("oh")), 3);
        assert_eq!(harmless(3, || 4), 4);
    }
}
