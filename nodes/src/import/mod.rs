//! Models that a host owns and hands in as weights. Settings and names of tensors are in `docs/host_models.md`, which is also the documentation
//! of [`Vocable`](crate::Vocable).
//!
//! | file | what it does |
//! |---|---|
//! | `settings.rs` | what the weights cannot say; anything that is not known is refused |
//! | `comfyui.rs`, `diffusers.rs` | the parts, in either's names |
//! | `fingerprint.rs` | what a part is called in caches and runs |

mod comfyui;
mod diffusers;
mod fingerprint;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use candle_core::Device;
use vocable_engine::checkpoint::{Precision, Weights};
use vocable_host_sdk::abi::{HostContext, NodeError, StateKind, TensorBuf, Value};

use crate::convert::HostTensors;
use crate::run::{fingerprint_of, open_device, precision, with_cancel_and_count};
use settings::{Names, Settings};

/// What is imported.
struct Import {
    kind: StateKind,
    settings: Settings,
    device: Device,
    precision: Precision,
    /// What the user calls it.
    name: String,
    /// A short name for the weights and what they are computed with.
    fingerprint: String,
}

/// Makes a handle of a part whose weights the host holds.
pub(crate) fn import(
    kind: StateKind,
    tensors: Vec<(String, TensorBuf)>,
    settings: BTreeMap<String, Value>,
    host: &HostContext<'_>,
) -> Result<Value, NodeError> {
    let settings = Settings::new(kind, settings)?;
    let precision = precision(settings.text("precision")?.unwrap_or("f32"))?;
    let device = open_device(settings.text("device")?.unwrap_or("cpu"))?;
    let name = settings.text("name")?.unwrap_or("a model of the host").to_string();
    host.status(&format!("taking the {kind} of {name}"));
    let counts = match settings.names() {
        Names::Diffusers => |_: &str| true,
        Names::ComfyUi => vocable_engine::checkpoint::comfyui::is_weight,
    };
    let tensors = HostTensors::new(tensors, counts)?;
    let fingerprint = fingerprint::of(&tensors, &settings, host)?;
    let fingerprint = fingerprint_of(&fingerprint, precision, &device);
    let (taken, total) = (tensors.taken(), tensors.len());
    let weights = Weights::held(&name, tensors, &device, precision.dtype());
    let import = Import { kind, settings, device, precision, name, fingerprint };
    with_cancel_and_count(host, &taken, total, |cancel| {
        let weights = weights.with_cancel(cancel);
        match import.settings.names() {
            Names::Diffusers => diffusers::build(import, &weights),
            Names::ComfyUi => comfyui::build(import, weights, cancel),
        }
    })
}
