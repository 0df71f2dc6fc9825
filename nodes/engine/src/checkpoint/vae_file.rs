//! An autoencoder by itself: a file in the names of latent-diffusion, with or without the prefix that it has in a whole checkpoint, or in those of
//! diffusers; or the `vae` folder of a pipeline.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use sha2::{Digest, Sha256};

use super::names;
use super::weights::NameMap;
use super::{Part, Precision, Weights, layout, looks, pipeline};
use crate::files::{sample_all, short_hex};
use crate::models::AutoencoderKL;
use crate::{CancelToken, Error, Result};

/// The scaling factor that is assumed where nothing tells it: that of Stable Diffusion 1. A model's own counts when it is used with one.
const SCALING_FACTOR: f64 = 0.18215;

const WANTED: &str = "choose the autoencoder (VAE) of a Stable Diffusion";

/// Read the autoencoder in `path`.
///
/// # Errors
/// If there is none that is known; the message names what was looked for.
pub fn open_vae(
    path: &Path,
    device: &Device,
    precision: Precision,
    cancel: &CancelToken,
) -> Result<Arc<AutoencoderKL>> {
    let part = if path.is_dir() {
        let config = pipeline::read_json(&path.join("config.json"))?;
        Part { config, weights: pipeline::weights_in(path, "diffusion_pytorch_model")? }
    } else {
        of_file(path)?
    };
    part.build(device, precision, cancel, AutoencoderKL::new)
}

fn of_file(path: &Path) -> Result<Part> {
    let weights = Weights::open(path, &Device::Cpu, DType::F32)?;
    if weights.shape("encoder.down_blocks.0.resnets.0.conv1.weight").is_some() {
        let config = layout::vae_of_diffusers(&weights, SCALING_FACTOR)?;
        return Ok(Part { config, weights });
    }
    of_ldm(weights)
}

/// The autoencoder of weights in the names of latent-diffusion, with or without their prefix.
///
/// # Errors
/// If there is none that is known; the message says what it looks like.
pub(super) fn of_ldm(weights: Weights) -> Result<Part> {
    for prefix in [layout::VAE, ""] {
        if let Some(what) = looks::autoencoder(&weights, prefix) {
            return Err(Error::incompatible(format!("{}: this is {what}", weights.origin())).help(WANTED));
        }
        if weights.shape(&layout::below(prefix, "encoder.down.0.block.0.conv1.weight")).is_some() {
            let (config, layout) = layout::vae(&weights, prefix, SCALING_FACTOR)?;
            let map = NameMap { prefix: prefix.to_owned(), translate: names::vae, layout };
            return Ok(Part { config, weights: weights.with_names(map) });
        }
    }
    Err(Error::incompatible(format!(
        "{}: no autoencoder that is known: there is neither encoder.down.0.… nor encoder.down_blocks.0.…",
        weights.origin()
    ))
    .help(WANTED))
}

/// A short name for the contents of an autoencoder's file or folder; see [`Checkpoint::fingerprint`](super::Checkpoint::fingerprint).
pub fn vae_fingerprint(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    sample_all(path, &mut hash)?;
    Ok(short_hex(hash))
}
