//! Checkpoints: what a file or folder is, and the weights in it.

pub mod comfyui;
mod export;
mod family;
mod held;
mod inspect;
mod layout;
mod looks;
mod names;
mod pickle;
mod pipeline;
mod precision;
mod settings;
mod single_file;
mod vae_file;
mod weights;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::diffusion::{NoiseSchedule, ScheduleConfig};
use crate::models::{
    AutoencoderKL, ClipTextModel, HiddenLayer, TextEncoders, TextTower, UNet2DConditionModel,
};
use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Error, Result};

pub use export::{Export, ExportLayout};
pub use family::Family;
pub use held::HeldTensors;
pub use inspect::{CheckpointReport, PartReport, inspect};
pub use pickle::{Item, TensorInfo, TorchFile};
pub use precision::Precision;
pub use vae_file::{open_vae, vae_fingerprint};
pub use weights::Weights;

use family::TextRow;
use pipeline::PipelineFolder;
use single_file::SingleFile;

/// One network of a checkpoint: its configuration in diffusers' terms, and its weights under diffusers' names.
pub(crate) struct Part {
    config: Value,
    weights: Weights,
}

/// What a folder and a file tell alike.
trait Source: Send + Sync {
    /// Where it lies.
    fn path(&self) -> &Path;
    /// `diffusers pipeline`, `safetensors`, `torch pickle`.
    fn container(&self) -> &'static str;
    fn family(&self) -> &'static Family;
    fn unet(&self) -> Result<Part>;
    fn vae(&self) -> Result<Part>;
    fn text(&self, row: &'static TextRow) -> Result<Part>;
    fn tokenizer(&self, row: &'static TextRow) -> Result<Tokenizer>;
    /// How many of the text encoder's last layers the model was trained without.
    fn skipped_layers(&self, row: &'static TextRow) -> usize;
    fn schedule(&self) -> Result<ScheduleConfig>;
    /// All that is in it, into `hash`.
    fn sample(&self, hash: &mut Sha256) -> Result<()>;
    /// Each tensor by its own name, with the weights that hold it and the part that it belongs to.
    fn for_each_tensor(&self, tell: &mut dyn FnMut(&'static str, &Weights, &str)) -> Result<()>;
}

/// A whole model as people have it: a diffusers pipeline's folder, or everything in one file. Its parts are read when they are asked for.
#[derive(Clone)]
pub struct Checkpoint {
    source: Arc<dyn Source>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path()).field("family", &self.family().id).finish()
    }
}

impl Checkpoint {
    /// Find out what `path` is.
    ///
    /// # Errors
    /// If there is nothing, or nothing that can be read; the message says what it looks like.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            source: if path.is_file() {
                Arc::new(SingleFile::open(path)?)
            } else {
                Arc::new(PipelineFolder::open(path)?)
            },
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// What kind of model it is.
    pub fn family(&self) -> &'static Family {
        self.source.family()
    }

    /// The denoiser.
    pub fn unet(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<UNet2DConditionModel>> {
        self.source.unet()?.build(device, precision, cancel, UNet2DConditionModel::new)
    }

    /// The autoencoder.
    pub fn vae(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<AutoencoderKL>> {
        self.source.vae()?.build(device, precision, cancel, AutoencoderKL::new)
    }

    /// The text encoders with their tokenizers.
    pub fn text_encoders(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<TextEncoders> {
        // The tokenizers first: they take a moment, and reading the weights may take a minute.
        let rows = self.family().text;
        let tokenizers = rows.iter().map(|row| self.tokenizer(row).map(Arc::new));
        let tokenizers = tokenizers.collect::<Result<Vec<_>>>()?;
        let towers = tokenizers
            .into_iter()
            .enumerate()
            .map(|(index, tokenizer)| self.text_tower(index, tokenizer, device, precision, cancel));
        TextEncoders::new(towers.collect::<Result<_>>()?)
    }

    /// One of the text encoders, with the layer that the family takes, and a tokenizer that may be another than its own.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn text_tower(
        &self,
        index: usize,
        tokenizer: Arc<Tokenizer>,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<TextTower> {
        let row = self.family().text.get(index).ok_or_else(|| {
            let count = self.family().text.len();
            Error::invalid(format!("{}: there are {count} text encoders", self.path().display()))
        })?;
        let layer = HiddenLayer { skip: self.source.skipped_layers(row), ..row.layer };
        self.source.text(row)?.tower(row, tokenizer, layer, device, precision, cancel)
    }

    fn tokenizer(&self, row: &'static TextRow) -> Result<Tokenizer> {
        let tokenizer = self.source.tokenizer(row)?;
        let fits = self.source.text(row)?.check_tokenizer(&tokenizer);
        fits.map_err(|error| error.context(self.path().display()))?;
        Ok(tokenizer)
    }

    /// The noise schedule that the model was trained with.
    pub fn schedule(&self) -> Result<NoiseSchedule> {
        let config = self.source.schedule()?;
        NoiseSchedule::from_config(&config).map_err(|error| error.context(self.path().display()))
    }

    /// The side in pixels of the pictures that it was trained on: what a folder's configuration says, or what is usual for the family.
    pub fn resolution(&self) -> Result<usize> {
        let unet = self.source.unet()?.config;
        let Some(latent) = unet["sample_size"].as_u64().or_else(|| unet["sample_size"][0].as_u64()) else {
            return Ok(self.family().resolution);
        };
        let levels = self.source.vae()?.config["block_out_channels"].as_array().map_or(4, Vec::len);
        Ok((latent as usize) << levels.saturating_sub(1).min(8))
    }

    /// A short name for the contents: it changes when any part does. Large files are sampled (their head, tail, size and 64 blocks
    /// between), so that a checkpoint of several gigabytes is named in a moment.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        self.source.sample(&mut hash)?;
        Ok(crate::files::short_hex(hash))
    }
}

impl Part {
    /// The network, read on `device` in `precision`.
    ///
    /// # Errors
    /// If a tensor is missing or does not fit, or the file has one that the network does not: then it is another network.
    fn build<C: DeserializeOwned, M>(
        self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
        new: fn(&C, &Weights) -> Result<M>,
    ) -> Result<Arc<M>> {
        let config = serde_json::from_value(self.config).map_err(|error| {
            Error::incompatible(format!("{}: the configuration: {error}", self.weights.origin()))
        })?;
        let weights = self.weights.on(device, precision.dtype()).with_cancel(cancel);
        let network = new(&config, &weights)?;
        weights.refuse_unknown()?;
        Ok(Arc::new(network))
    }

    /// Refuse a tokenizer that this text encoder has no vectors or no places for.
    fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let size = |name: &str| self.config[name].as_u64().unwrap_or(77) as usize;
        tokenizer.check_fits(size("vocab_size"), size("max_position_embeddings"))
    }

    /// The text encoder of that row with its tokenizer, which was looked at before.
    fn tower(
        self,
        row: &TextRow,
        tokenizer: Arc<Tokenizer>,
        layer: HiddenLayer,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<TextTower> {
        let encoder = self.build(device, precision, cancel, ClipTextModel::new)?;
        Ok(TextTower { encoder, tokenizer, key: row.key.to_owned(), layer })
    }
}
