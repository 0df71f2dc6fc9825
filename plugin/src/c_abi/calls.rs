//! The functions over nodes, jobs and events.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::time::Duration;

use vocable_host_sdk::abi::{HostContext, Node, NodeError, Outputs, PreviewImage, StateKind, Value};
use vocable_host_sdk::graph::single;

use super::LIBRARY;
use super::boundary::{Out, borrowed, c_string, entry, free, harmless, text};
use super::error::VocableError;
use super::host::{JobHost, Settings};
use super::job::VocableJob;
use super::queue::Event;
use super::value::{VocableValue, wrong_kind};

/// What every call of a node begins with.
struct Call {
    node: Arc<dyn Node>,
    inputs: BTreeMap<String, Value>,
    settings: Settings,
}

impl Call {
    /// # Safety
    /// Each is NULL or text, or a value.
    unsafe fn new(
        node_id: *const c_char,
        inputs: *const VocableValue,
        host_json: *const c_char,
    ) -> Result<Self, NodeError> {
        // SAFETY: the caller vouches for it.
        let (node_id, inputs, host_json) = unsafe {
            (text(node_id, "node_id")?, borrowed(inputs, "inputs")?, text(host_json, "host_json")?)
        };
        Ok(Self {
            node: single::find(LIBRARY.registry()?, node_id)?.node.clone(),
            inputs: inputs.entries("inputs")?,
            settings: Settings::parse(host_json)?,
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_node_validate(
    node_id: *const c_char,
    inputs: *const VocableValue,
    host_json: *const c_char,
) -> *mut VocableError {
    entry("vocable_node_validate", || {
        // SAFETY: the caller gives NULL or texts, and NULL or a value.
        let Call { node, inputs, settings } = unsafe { Call::new(node_id, inputs, host_json) }?;
        single::validate(node.as_ref(), inputs, &settings.linked, &settings.folders)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_node_fingerprint(
    node_id: *const c_char,
    inputs: *const VocableValue,
    host_json: *const c_char,
    out: *mut *mut c_char,
) -> *mut VocableError {
    entry("vocable_node_fingerprint", || {
        // SAFETY: the caller gives NULL or texts, NULL or a value, and NULL or a place for a pointer.
        let (call, out) = unsafe { (Call::new(node_id, inputs, host_json)?, Out::new(out, "out")?) };
        let Call { node, inputs, settings } = call;
        let host = JobHost { settings: &settings, job: None };
        let fingerprint =
            single::fingerprint(node.as_ref(), inputs, &settings.linked, &settings.folders, &host)?;
        out.put(c_string(&fingerprint).into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_job_start(
    node_id: *const c_char,
    inputs: *const VocableValue,
    host_json: *const c_char,
    out: *mut *mut VocableJob,
) -> *mut VocableError {
    entry("vocable_job_start", || {
        // SAFETY: the caller gives NULL or texts, NULL or a value, and NULL or a place for a pointer.
        let (call, out) = unsafe { (Call::new(node_id, inputs, host_json)?, Out::new(out, "out")?) };
        let Call { node, inputs, settings } = call;
        let job = VocableJob::start(settings, move |settings, host| {
            single::run(node.as_ref(), inputs, &settings.linked, &settings.folders, host)
        })?;
        out.put(Box::into_raw(Box::new(job)));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_import_start(
    state_kind: u32,
    tensors: *const VocableValue,
    settings: *const VocableValue,
    host_json: *const c_char,
    out: *mut *mut VocableJob,
) -> *mut VocableError {
    entry("vocable_import_start", || {
        // SAFETY: the caller gives NULL or values, NULL or text, and NULL or a place for a pointer.
        let (tensors, settings, host_json, out) = unsafe {
            (
                borrowed(tensors, "tensors")?,
                borrowed(settings, "settings")?,
                text(host_json, "host_json")?,
                Out::new(out, "out")?,
            )
        };
        let kind = StateKind::from_code(state_kind).ok_or_else(|| {
            NodeError::invalid_input(format!("argument `state_kind` should be 1, 2 or 3, found {state_kind}"))
        })?;
        let tensors = tensors.entries("tensors")?.into_iter().map(|(name, value)| match value {
            Value::Tensor(tensor) => Ok((name, tensor)),
            other => Err(wrong_kind(&format!("tensors[{name:?}]"), "a tensor", &other)),
        });
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let state_settings = settings.entries("settings")?;
        let job = VocableJob::start(Settings::parse(host_json)?, move |_, host| {
            let handle =
                LIBRARY.plugin.import_state_dict(kind, tensors, state_settings, &HostContext::new(host));
            handle.map(Outputs::one)
        })?;
        out.put(Box::into_raw(Box::new(job)));
        Ok(())
    })
}

/// An event as its host holds it.
pub struct VocableEvent {
    event: Event,
    text: CString,
}

impl VocableEvent {
    fn into_raw(event: Event) -> *mut Self {
        let text = match &event {
            Event::Status(text) | Event::Log(_, text) => c_string(text),
            Event::Progress { .. } | Event::Done => CString::default(),
        };
        Box::into_raw(Box::new(Self { event, text }))
    }

    fn picture(&self) -> Option<&PreviewImage> {
        match &self.event {
            Event::Progress { picture, .. } => picture.as_ref(),
            _ => None,
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_job_poll(
    job: *mut VocableJob,
    timeout_ms: u32,
    out: *mut *mut VocableEvent,
) -> *mut VocableError {
    entry("vocable_job_poll", || {
        // SAFETY: the caller gives NULL or a job, and NULL or a place for a pointer.
        let (job, out) = unsafe { (borrowed(job, "job")?, Out::new(out, "out")?) };
        let event = job.poll(Duration::from_millis(timeout_ms.into()));
        out.put(event.map_or(null_mut(), VocableEvent::into_raw));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_get_kind(event: *const VocableEvent) -> u32 {
    // SAFETY: the caller gives NULL or an event.
    match unsafe { event.as_ref() }.map(|event| &event.event) {
        None => 0,
        Some(Event::Progress { .. }) => 1,
        Some(Event::Status(_)) => 2,
        Some(Event::Log(..)) => 3,
        Some(Event::Done) => 4,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_step(event: *const VocableEvent) -> u64 {
    // SAFETY: the caller gives NULL or an event.
    match unsafe { event.as_ref() }.map(|event| &event.event) {
        Some(Event::Progress { step, .. }) => *step,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_total(event: *const VocableEvent) -> u64 {
    // SAFETY: the caller gives NULL or an event.
    match unsafe { event.as_ref() }.map(|event| &event.event) {
        Some(Event::Progress { total, .. }) => *total,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_text(event: *const VocableEvent) -> *const c_char {
    // SAFETY: the caller gives NULL or an event.
    unsafe { event.as_ref() }.map_or(c"".as_ptr(), |event| event.text.as_ptr())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_level(event: *const VocableEvent) -> u32 {
    // SAFETY: the caller gives NULL or an event.
    match unsafe { event.as_ref() }.map(|event| &event.event) {
        Some(Event::Log(level, _)) => *level as u32,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_picture(
    event: *const VocableEvent,
    width: *mut u32,
    height: *mut u32,
) -> *const u8 {
    // SAFETY: the caller gives NULL or an event, and NULL or places for numbers.
    let (event, width, height) = unsafe { (event.as_ref(), Out::optional(width), Out::optional(height)) };
    let picture = event.and_then(VocableEvent::picture);
    if let Some(width) = width {
        width.put(picture.map_or(0, PreviewImage::width));
    }
    if let Some(height) = height {
        height.put(picture.map_or(0, PreviewImage::height));
    }
    picture.map_or(null(), |picture| picture.rgb().as_ptr())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_event_free(event: *mut VocableEvent) {
    // SAFETY: the caller gives an event that came out of this library, once.
    unsafe { free(event) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_job_cancel(job: *mut VocableJob) {
    harmless((), || {
        // SAFETY: the caller gives NULL or a job.
        if let Some(job) = unsafe { job.as_ref() } {
            job.cancel();
        }
    });
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_job_take_outputs(
    job: *mut VocableJob,
    outputs: *mut *mut VocableValue,
    ui_json: *mut *mut c_char,
) -> *mut VocableError {
    entry("vocable_job_take_outputs", || {
        // SAFETY: the caller gives NULL or a job, and NULL or places for pointers.
        let (job, outputs, ui_json) =
            unsafe { (borrowed(job, "job")?, Out::new(outputs, "outputs")?, Out::optional(ui_json)) };
        let Outputs { results, ui } = job.take()?;
        outputs.put(VocableValue::into_raw(Value::List(results)));
        if let Some(ui_json) = ui_json {
            ui_json.put(ui.map_or(null_mut(), |ui| c_string(&ui).into_raw()));
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_job_free(job: *mut VocableJob) {
    // SAFETY: the caller gives a job that came out of this library, once.
    unsafe { free(job) };
}
