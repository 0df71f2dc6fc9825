//! The library through its C functions, as a program in another language sees it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use serde_json::Value as Json;

use crate::host::library;

macro_rules! opaque {
    ($($name:ident)*) => {
        $(#[repr(C)]
        pub(crate) struct $name([u8; 0]);)*
    };
}
opaque!(CError CValue CJob CEvent);

/// `vocable_dtype`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CDType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

/// `vocable_tensor`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CTensor {
    pub(crate) data: *mut c_void,
    pub(crate) device_type: i32,
    pub(crate) device_id: i32,
    pub(crate) ndim: i32,
    pub(crate) dtype: CDType,
    pub(crate) shape: *const i64,
    pub(crate) strides: *const i64,
    pub(crate) byte_offset: u64,
}

pub(crate) const F32: CDType = CDType { code: 2, bits: 32, lanes: 1 };

pub(crate) type Release = Option<extern "C" fn(*mut c_void)>;

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of vocable.h without `vocable_`. Their types are safe ones: the tests keep to the header, and give NULL and other nonsense
        /// only where it says what then comes of it.
        pub(crate) struct Functions {
            $(pub(crate) $name: extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn load(library: &libloading::Library) -> Self {
                Self {
                    // SAFETY: the types are those of vocable.h.
                    $($name: unsafe { *library.get(concat!("vocable_", stringify!($name))).unwrap() },)*
                }
            }
        }
    };
}

functions! {
    abi_version() -> u32;
    info_json(*mut *mut c_char) -> *mut CError;
    nodes_json(*mut *mut c_char) -> *mut CError;
    string_free(*mut c_char);
    error_code(*const CError) -> u32;
    error_message(*const CError) -> *const c_char;
    error_help(*const CError) -> *const c_char;
    error_causes(*const CError) -> *const c_char;
    error_free(*mut CError);
    value_from_json(*const c_char, *mut *mut CValue) -> *mut CError;
    value_to_json(*const CValue, *mut *mut c_char) -> *mut CError;
    value_from_tensor(*const CTensor, u64, Release, *mut c_void, *mut *mut CValue) -> *mut CError;
    value_from_tensor_copy(*const CTensor, u64, *mut *mut CValue) -> *mut CError;
    value_tensor(*const CValue, *mut CTensor) -> *mut CError;
    list_new(*mut *mut CValue) -> *mut CError;
    list_push(*mut CValue, *const CValue) -> *mut CError;
    map_new(*mut *mut CValue) -> *mut CError;
    map_set(*mut CValue, *const c_char, *const CValue) -> *mut CError;
    value_get_kind(*const CValue) -> u32;
    value_count(*const CValue) -> usize;
    value_at(*const CValue, usize, *mut *mut CValue) -> *mut CError;
    map_name_at(*const CValue, usize, *mut *mut c_char) -> *mut CError;
    handle_type(*const CValue, *mut *mut c_char) -> *mut CError;
    value_free(*mut CValue);
    node_validate(*const c_char, *const CValue, *const c_char) -> *mut CError;
    node_fingerprint(*const c_char, *const CValue, *const c_char, *mut *mut c_char) -> *mut CError;
    job_start(*const c_char, *const CValue, *const c_char, *mut *mut CJob) -> *mut CError;
    import_start(u32, *const CValue, *const CValue, *const c_char, *mut *mut CJob) -> *mut CError;
    job_poll(*mut CJob, u32, *mut *mut CEvent) -> *mut CError;
    event_get_kind(*const CEvent) -> u32;
    event_step(*const CEvent) -> u64;
    event_total(*const CEvent) -> u64;
    event_text(*const CEvent) -> *const c_char;
    event_level(*const CEvent) -> u32;
    event_picture(*const CEvent, *mut u32, *mut u32) -> *const u8;
    event_free(*mut CEvent);
    job_cancel(*mut CJob);
    job_take_outputs(*mut CJob, *mut *mut CValue, *mut *mut c_char) -> *mut CError;
    job_free(*mut CJob);
}

/// The functions of the built library.
pub(crate) fn c() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        // SAFETY: our own library, whose initialisers do nothing but register it.
        let library = unsafe { libloading::Library::new(library("vocable_plugin")) }.unwrap();
        // Never unloaded.
        let library: &'static _ = Box::leak(Box::new(library));
        Functions::load(library)
    })
}

/// An error, read and freed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) help: String,
}

fn read(text: *const c_char) -> String {
    // SAFETY: the library's texts end with a zero byte and live as long as what they were asked of.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
}

pub(crate) fn checked(error: *mut CError) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    let message = [read((c().error_message)(error)), read((c().error_causes)(error))].join("\n");
    let help = read((c().error_help)(error));
    let failure = Failure { code: (c().error_code)(error), message: message.trim_end().to_owned(), help };
    (c().error_free)(error);
    Err(failure)
}

/// Calls a function whose last argument is where the answer goes.
pub(crate) fn answer<T>(call: impl FnOnce(*mut *mut T) -> *mut CError) -> Result<*mut T, Failure> {
    let mut out = null_mut();
    checked(call(&mut out)).map(|()| out)
}

/// A text of the library, read and freed; none for NULL.
pub(crate) fn taken(text: *mut c_char) -> Option<String> {
    let read = (!text.is_null()).then(|| read(text));
    (c().string_free)(text);
    read
}

pub(crate) fn text(call: impl FnOnce(*mut *mut c_char) -> *mut CError) -> Result<String, Failure> {
    answer(call).map(|text| taken(text).unwrap())
}

/// A value that is freed at its end.
#[derive(Debug)]
pub(crate) struct Value(pub(crate) *mut CValue);

// SAFETY: vocable.h lets any thread use a value.
unsafe impl Send for Value {}

impl Value {
    pub(crate) fn new(json: &Json) -> Self {
        let json = CString::new(json.to_string()).unwrap();
        Self(answer(|out| (c().value_from_json)(json.as_ptr(), out)).unwrap())
    }

    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&text(|out| (c().value_to_json)(self.0, out)).unwrap()).unwrap()
    }

    pub(crate) fn at(&self, index: usize) -> Value {
        Self(answer(|out| (c().value_at)(self.0, index, out)).unwrap())
    }

    pub(crate) fn with(self, name: &str, item: &Value) -> Value {
        let name = CString::new(name).unwrap();
        checked((c().map_set)(self.0, name.as_ptr(), item.0)).unwrap();
        self
    }

    pub(crate) fn tensor(&self) -> CTensor {
        let mut tensor = empty_tensor();
        checked((c().value_tensor)(self.0, &mut tensor)).unwrap();
        tensor
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        (c().value_free)(self.0);
    }
}

pub(crate) fn empty_tensor() -> CTensor {
    CTensor {
        data: null_mut(),
        device_type: 1,
        device_id: 0,
        ndim: 0,
        dtype: F32,
        shape: null(),
        strides: null(),
        byte_offset: 0,
    }
}

/// What was told.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Progress { step: u64, total: u64, picture: Option<(u32, u32)> },
    Status(String),
    Log(u32, String),
    Done,
}

/// A job that is freed at its end.
pub(crate) struct Job(pub(crate) *mut CJob);

impl Job {
    pub(crate) fn start(node: &str, inputs: &Value, host: &Json) -> Result<Self, Failure> {
        let (node, host) = (CString::new(node).unwrap(), CString::new(host.to_string()).unwrap());
        answer(|out| (c().job_start)(node.as_ptr(), inputs.0, host.as_ptr(), out)).map(Self)
    }

    pub(crate) fn poll(&self, timeout_ms: u32) -> Option<Event> {
        let event = answer(|out| (c().job_poll)(self.0, timeout_ms, out)).unwrap();
        if event.is_null() {
            return None;
        }
        let text = read((c().event_text)(event));
        let told = match (c().event_get_kind)(event) {
            1 => {
                let (mut width, mut height) = (9, 9);
                let rgb = (c().event_picture)(event, &mut width, &mut height);
                let picture = (!rgb.is_null()).then_some((width, height));
                assert!(picture.is_some() || (width, height) == (0, 0));
                if picture.is_some() {
                    // SAFETY: three bytes for each pixel, borrowed from the event.
                    let bytes = unsafe { std::slice::from_raw_parts(rgb, (3 * width * height) as usize) };
                    assert!(bytes.iter().any(|byte| *byte > 0));
                }
                let (step, total) = ((c().event_step)(event), (c().event_total)(event));
                Event::Progress { step, total, picture }
            }
            2 => Event::Status(text),
            3 => Event::Log((c().event_level)(event), text),
            4 => Event::Done,
            other => panic!("event {other}"),
        };
        (c().event_free)(event);
        Some(told)
    }

    /// All events up to the last.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last() != Some(&Event::Done) {
            events.extend(self.poll(60_000));
        }
        events
    }

    /// The outputs, and what the node shows.
    pub(crate) fn take(&self) -> Result<(Value, Option<String>), Failure> {
        let mut ui = null_mut();
        let outputs = answer(|out| (c().job_take_outputs)(self.0, out, &mut ui))?;
        Ok((Value(outputs), taken(ui)))
    }

    /// Waits for the end and takes the outputs.
    pub(crate) fn finish(&self) -> Result<(Value, Option<String>), Failure> {
        self.events();
        self.take()
    }

    pub(crate) fn cancel(&self) {
        (c().job_cancel)(self.0);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        (c().job_free)(self.0);
    }
}
