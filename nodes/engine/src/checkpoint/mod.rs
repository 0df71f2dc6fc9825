//! Checkpoints: what a file or folder is, and the weights in it.

mod family;
mod inspect;
mod layout;
mod names;
mod pickle;
mod pipeline;
mod single_file;
mod weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;

use crate::diffusion::NoiseSchedule;
use crate::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Result};

pub use family::Family;
pub use inspect::{CheckpointReport, PartReport, inspect};
pub use pickle::{Item, TensorInfo, TorchFile};
pub use pipeline::{PipelineFolder, Precision};
pub use single_file::SingleFile;
pub use weights::Weights;

/// A whole model as people have it: a folder or a file.
#[derive(Clone)]
pub enum Checkpoint {
    /// A diffusers pipeline.
    Folder(PipelineFolder),
    /// Everything in one file.
    File(SingleFile),
}

/// Calls a method that both kinds have.
macro_rules! of_either {
    ($checkpoint:expr, $inner:ident => $call:expr) => {
        match $checkpoint {
            Checkpoint::Folder($inner) => $call,
            Checkpoint::File($inner) => $call,
        }
    };
}

impl Checkpoint {
    /// Find out what `path` is.
    ///
    /// # Errors
    /// If there is nothing, or nothing that can be read; the message says what it looks like.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(if path.is_file() {
            Self::File(SingleFile::open(path)?)
        } else {
            Self::Folder(PipelineFolder::open(path)?)
        })
    }

    /// The denoiser.
    pub fn unet(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<UNet2DConditionModel>> {
        of_either!(self, inner => inner.unet(device, precision, cancel))
    }

    /// The text encoder.
    pub fn text_encoder(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<ClipTextModel>> {
        of_either!(self, inner => inner.text_encoder(device, precision, cancel))
    }

    /// The autoencoder.
    pub fn vae(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<AutoencoderKL>> {
        of_either!(self, inner => inner.vae(device, precision, cancel))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        of_either!(self, inner => inner.tokenizer())
    }

    /// The noise schedule that the model was trained with.
    pub fn schedule(&self) -> Result<NoiseSchedule> {
        of_either!(self, inner => inner.schedule())
    }

    /// How many of the text encoder's last layers the model was trained without.
    pub fn skipped_layers(&self) -> usize {
        match self {
            // A folder's text encoder holds only the layers that are used.
            Self::Folder(_) => 0,
            Self::File(file) => file.skipped_layers(),
        }
    }

    /// A short name for the contents; see [`PipelineFolder::fingerprint`].
    pub fn fingerprint(&self) -> Result<String> {
        of_either!(self, inner => inner.fingerprint())
    }
}
