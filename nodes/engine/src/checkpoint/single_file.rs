//! A whole model in one file, in the names of CompVis' latent-diffusion: `.safetensors`, or `.ckpt` from `torch.save`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::family::{FAMILIES, Family, PredictionRule};
use super::names::{self, Layout};
use super::pipeline::sample;
use super::weights::NameMap;
use super::{Precision, Weights, layout};
use crate::diffusion::{NoiseSchedule, PredictionType};
use crate::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Error, Result};

/// A file that has been recognised; its parts are read when they are asked for.
#[derive(Clone)]
pub struct SingleFile {
    path: PathBuf,
    /// On the CPU in f32 until a part is taken.
    weights: Weights,
    family: &'static Family,
}

impl SingleFile {
    /// Recognise `path` by the names of its tensors.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for a file of no known family, with what it looks like.
    pub fn open(path: &Path) -> Result<Self> {
        let weights = Weights::open(path, &Device::Cpu, DType::F32)?;
        let names = weights.names();
        let has = |name: &str| names.binary_search(&name).is_ok();
        let family = FAMILIES.iter().find(|family| has(family.sign));
        let unet = has(&format!("{}.input_blocks.0.0.weight", layout::UNET));
        let family = match family {
            Some(family) if unet => family,
            _ => return Err(not_known(path, &names)),
        };
        Ok(Self { path: path.to_owned(), weights, family })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors, under their own names.
    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What kind of model it holds.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// The denoiser.
    pub fn unet(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<UNet2DConditionModel>> {
        let (config, layout) = layout::unet(&self.weights, self.family)?;
        let weights = self.part(layout::UNET, names::unet, layout, device, precision, cancel);
        Ok(Arc::new(UNet2DConditionModel::new(&read(config)?, &weights)?))
    }

    /// The text encoder.
    pub fn text_encoder(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<ClipTextModel>> {
        let row = &self.family.text;
        let config = layout::text(&self.weights, row)?;
        let weights = self.part(row.prefix, row.translate, Layout::default(), device, precision, cancel);
        Ok(Arc::new(ClipTextModel::new(&read(config)?, &weights)?))
    }

    /// The autoencoder.
    pub fn vae(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<AutoencoderKL>> {
        let (config, layout) = layout::vae(&self.weights, layout::VAE, self.family.scaling_factor)?;
        let weights = self.part(layout::VAE, names::vae, layout, device, precision, cancel);
        Ok(Arc::new(AutoencoderKL::new(&read(config)?, &weights)?))
    }

    /// CLIP's own tokenizer, with the family's padding: single files have none.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        let tokenizer = Tokenizer::clip()?;
        let config = layout::text(&self.weights, &self.family.text)?;
        let size = |name: &str| config[name].as_u64().unwrap_or(0) as usize;
        tokenizer
            .check_fits(size("vocab_size"), size("max_position_embeddings"))
            .map_err(|error| error.context(self.path.display()))?;
        Ok(Arc::new(match self.family.text.pad {
            Some(pad) => tokenizer.with_pad(pad),
            None => tokenizer,
        }))
    }

    /// The noise schedule that the model was trained with.
    pub fn schedule(&self) -> Result<NoiseSchedule> {
        let prediction = match self.family.prediction {
            PredictionRule::Epsilon => PredictionType::Epsilon,
            PredictionRule::SpreadOfNorm(name) => {
                let name = format!("{}.{name}", layout::UNET);
                let spread = match self.weights.contains(&name) {
                    true => deviation(&self.weights.get_any(&name)?.to_vec1::<f32>()?),
                    false => 0.0,
                };
                if spread > 0.09 { PredictionType::VPrediction } else { PredictionType::Epsilon }
            }
        };
        NoiseSchedule::from_config(&self.family.schedule(prediction))
    }

    /// A short name for the contents; see [`PipelineFolder::fingerprint`](super::PipelineFolder::fingerprint).
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        sample(&self.path, &mut hash).map_err(|error| Error::io(&self.path, &error))?;
        Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// How many of the text encoder's last layers are left out.
    pub fn skipped_layers(&self) -> usize {
        self.family.text.skip
    }

    fn part(
        &self,
        prefix: &str,
        translate: fn(&str, Layout) -> Option<names::Alias>,
        layout: Layout,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Weights {
        self.weights.clone().on(device, precision.dtype()).with_cancel(cancel).with_names(NameMap {
            prefix: prefix.to_owned(),
            translate,
            layout,
        })
    }
}

fn read<T: DeserializeOwned>(config: Value) -> Result<T> {
    serde_json::from_value(config)
        .map_err(|error| Error::incompatible(format!("the configuration that the shapes show: {error}")))
}

/// The standard deviation, over all and not over all but one.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    (values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

fn not_known(path: &Path, names: &[&str]) -> Error {
    let below = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let looks = [
        ("conditioner.embedders.1.", "SDXL", "it is not read yet"),
        (
            "cond_stage_model.transformer.token_emb.",
            "latent diffusion's text2img-large",
            "it is not read yet",
        ),
        (
            "model.diffusion_model.double_blocks.",
            "Flux or a relative of it",
            "models without a UNet cannot be read",
        ),
        ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3", "models without a UNet cannot be read"),
        (
            "model.diffusion_model.",
            "a UNet without a text encoder that is known",
            "choose a checkpoint that holds UNet, text encoder and VAE",
        ),
        ("down_blocks.", "one part of a diffusers pipeline", "choose the pipeline's folder"),
        ("lora_", "a LoRA", "choose the checkpoint that it was made for"),
        (
            "encoder.down.",
            "an autoencoder alone",
            "choose a checkpoint that holds UNet, text encoder and VAE",
        ),
    ];
    let found = looks.iter().find(|(prefix, ..)| below(prefix));
    let families: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let (what, help) = match found {
        Some((_, what, help)) => (format!("this is {what}"), (*help).to_owned()),
        None => {
            let some: Vec<&str> = names.iter().take(3).copied().collect();
            (
                format!("no model that is known: {} tensors such as {}", names.len(), some.join(", ")),
                "wanted is a checkpoint in one file".to_owned(),
            )
        }
    };
    Error::incompatible(format!("{}: {what}", path.display()))
        .help(format!("{help}; known are {}", families.join(", ")))
}
