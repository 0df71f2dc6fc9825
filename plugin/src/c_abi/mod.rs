//! The functions of `include/vocable.h`, over any [`Plugin`]: nothing here knows what the nodes do.
//!
//! * [`boundary`] is what all functions share: no panic gets out, pointers are looked at before they are used.
//! * [`error`], [`value`], [`tensor`] are the objects that hosts hold; [`host`] is what a host says of itself.
//! * [`queue`] keeps events until they are asked for, [`job`] is the work on its thread, [`calls`] the functions over both.
//!
//! `vocable.h` is the specification, and says for each function what it takes and answers.

// The functions are reached by their names, not by their modules.
#![allow(unreachable_pub)]

mod boundary;
mod calls;
mod error;
mod host;
mod job;
mod queue;
mod tensor;
mod value;

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use serde::Serialize;
use vocable_host_sdk::abi::{NodeError, Plugin};
use vocable_host_sdk::registry::Registry;

use boundary::{Out, c_string, entry, harmless};
use error::VocableError;

/// `VOCABLE_ABI_VERSION` of the header.
const ABI_VERSION: u32 = 1;

/// The plugin and its nodes.
struct Library {
    plugin: &'static dyn Plugin,
    registry: OnceLock<Result<Registry, NodeError>>,
}

static LIBRARY: Library = Library { plugin: crate::PLUGIN, registry: OnceLock::new() };

impl Library {
    fn registry(&self) -> Result<&Registry, NodeError> {
        let registry = self.registry.get_or_init(|| {
            let mut registry = Registry::new();
            let added = registry.register_native(&self.plugin.info().name, self.plugin.nodes());
            added.map_err(|error| NodeError::internal(error.to_string()))?;
            Ok(registry)
        });
        registry.as_ref().map_err(NodeError::clone)
    }
}

fn json<T: Serialize>(value: &T) -> Result<CString, NodeError> {
    let text = serde_json::to_string(value)
        .map_err(|error| NodeError::internal("cannot be written as JSON").caused_by(&error))?;
    Ok(c_string(&text))
}

#[unsafe(no_mangle)]
pub extern "C" fn vocable_abi_version() -> u32 {
    ABI_VERSION
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_info_json(out: *mut *mut c_char) -> *mut VocableError {
    entry("vocable_info_json", || {
        // SAFETY: the caller gives NULL or a place for a pointer.
        let out = unsafe { Out::new(out, "out") }?;
        out.put(json(&LIBRARY.plugin.info())?.into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_nodes_json(out: *mut *mut c_char) -> *mut VocableError {
    entry("vocable_nodes_json", || {
        // SAFETY: the caller gives NULL or a place for a pointer.
        let out = unsafe { Out::new(out, "out") }?;
        out.put(json(&LIBRARY.registry()?.specs())?.into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_string_free(text: *mut c_char) {
    harmless((), || {
        if !text.is_null() {
            // SAFETY: the caller gives text that `CString::into_raw` made here, once.
            drop(unsafe { CString::from_raw(text) });
        }
    });
}
