//! An autoencoder by itself: a file in the names of latent-diffusion, with or without the prefix that it has in a whole checkpoint, or in those of
//! diffusers; or the `vae` folder of a pipeline.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::names::{self, Layout};
use super::weights::NameMap;
use super::{Part, Precision, Weights, layout, pipeline};
use crate::files::{sample_all, short_hex};
use crate::models::AutoencoderKL;
use crate::{CancelToken, Error, Result};

/// The scaling factor that is assumed where nothing tells it: that of Stable Diffusion 1. A model's own counts when it is used with one.
const SCALING_FACTOR: f64 = 0.18215;

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
    let has = |name: &str| weights.shape(name).is_some();
    for prefix in [layout::VAE, ""] {
        let below = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        if has(&below("encoder.down.0.block.0.conv1.weight")) {
            let (config, layout) = layout::vae(&weights, prefix, SCALING_FACTOR)?;
            return Ok(named(weights, config, prefix, names::vae, layout));
        }
    }
    if has("encoder.down_blocks.0.resnets.0.conv1.weight") {
        let config = layout::vae_of_diffusers(&weights, SCALING_FACTOR)?;
        return Ok(Part { config, weights });
    }
    Err(Error::incompatible(format!(
        "{}: no autoencoder that is known: there is neither encoder.down.0.… nor encoder.down_blocks.0.…",
        path.display()
    ))
    .help("choose a file with the autoencoder (VAE) of a Stable Diffusion"))
}

fn named(
    weights: Weights,
    config: Value,
    prefix: &str,
    translate: fn(&str, Layout) -> Option<names::Alias>,
    layout: Layout,
) -> Part {
    let map = NameMap { prefix: prefix.to_owned(), translate, layout };
    Part { config, weights: weights.with_names(map) }
}

/// A short name for the contents of an autoencoder's file or folder; see [`Checkpoint::fingerprint`](super::Checkpoint::fingerprint).
pub fn vae_fingerprint(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    sample_all(path, &mut hash)?;
    Ok(short_hex(hash))
}
