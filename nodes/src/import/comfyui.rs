//! Parts in the names of ComfyUI's modules; what they are is seen by names and shapes.

use std::sync::Arc;

use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Weights, comfyui};
use vocable_engine::diffusion::NoiseSchedule;
use vocable_engine::sampling::Denoiser;
use vocable_host_sdk::abi::{NodeError, StateKind, Value};

use super::Import;
use super::settings::stopped;
use crate::convert::node_error;
use crate::handles::{Clip, Model, Vae};

/// The handle.
pub(super) fn build(import: Import, weights: Weights, cancel: &CancelToken) -> Result<Value, NodeError> {
    let Import { kind, settings, device, precision, name, fingerprint } = import;
    match kind {
        StateKind::Model => {
            // What the host says is looked at before gigabytes are.
            let (prediction, sigmas) = (settings.prediction()?, settings.sigmas()?);
            let scale = settings.factor("latent_scale")?;
            let given = sigmas.map(|sigmas| NoiseSchedule::from_sigmas(&sigmas, prediction)).transpose();
            let given = given.map_err(|error| node_error(error.context("setting `sigmas`")))?;
            let (unet, family) = comfyui::unet(weights, &device, precision, cancel).map_err(node_error)?;
            let usual = || NoiseSchedule::from_config(&family.schedule(prediction, false));
            let schedule = Arc::new(given.map_or_else(usual, Ok).map_err(node_error)?);
            let scaling_factor = scale.unwrap_or(family.scaling_factor);
            let denoiser = Denoiser { unet, schedule, scaling_factor };
            Ok(Model { denoiser, family: Some(family), name, fingerprint }.into_value())
        }
        StateKind::Clip => {
            let last_layer = settings.last_layer()?;
            let text = comfyui::text_encoders(weights, &device, precision, cancel).map_err(node_error)?;
            Ok(Clip { text: stopped(text, last_layer), fingerprint }.into_value())
        }
        StateKind::Vae => {
            let autoencoder = comfyui::vae(weights, &device, precision, cancel).map_err(node_error)?;
            Ok(Vae { autoencoder, fingerprint }.into_value())
        }
    }
}
