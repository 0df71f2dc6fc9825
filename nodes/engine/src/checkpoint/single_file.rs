//! A whole model in one file, in the names of CompVis' latent-diffusion: `.safetensors`, or `.ckpt` from `torch.save`.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde_json::Value;
use sha2::Sha256;

use super::family::{FAMILIES, Family, PredictionRule, TextRow};
use super::inspect::OTHER;
use super::names::{self, Alias, Layout};
use super::settings::Settings;
use super::weights::NameMap;
use super::{Part, Source, Weights, family, layout, looks};
use crate::diffusion::{PredictionType, ScheduleConfig};
use crate::files::sample_all;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A file that has been recognised.
pub(super) struct SingleFile {
    path: PathBuf,
    /// On the CPU in f32 until a part is taken.
    weights: Weights,
    family: &'static Family,
    settings: Settings,
}

impl SingleFile {
    /// Recognise `path` by the names of its tensors.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for a file of no known family, with what it looks like.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, FAMILIES)
    }

    /// Recognise `path` as one of these.
    pub(super) fn open_as(path: &Path, families: &'static [Family]) -> Result<Self> {
        Self::of(path, Weights::open(path, &Device::Cpu, DType::F32)?, families)
    }

    /// The same for tensors that are at hand, under the names of such a file.
    pub(super) fn of(path: &Path, weights: Weights, families: &'static [Family]) -> Result<Self> {
        let family = families.iter().find(|family| weights.shape(family.sign).is_some());
        let unet = weights.shape(&format!("{}.input_blocks.0.0.weight", layout::UNET)).is_some();
        let family = match family {
            Some(family) if unet => family,
            _ => return Err(not_known(path, &weights)),
        };
        let settings = Settings::of(&weights)?;
        Ok(Self { path: path.to_owned(), weights, family, settings })
    }

    /// A part under diffusers' names; `config` is what its shapes tell.
    fn part(
        &self,
        name: &str,
        config: Value,
        prefix: &str,
        translate: fn(&str, Layout) -> Option<Alias>,
        layout: Layout,
    ) -> Part {
        let map = NameMap { prefix: prefix.to_owned(), translate, layout };
        Part { config: self.settings.config(name, config), weights: self.weights.clone().with_names(map) }
    }
}

impl Source for SingleFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn container(&self) -> &'static str {
        self.weights.container()
    }

    fn family(&self) -> &'static Family {
        self.family
    }

    fn unet(&self) -> Result<Part> {
        let text = self.family.text.last().map(|row| self.weights.clone().with_names(NameMap::of_text(row)));
        let pooled = text.as_ref().map(layout::pooled_width);
        let (config, layout) = layout::unet(&self.weights, layout::UNET, self.family, pooled)?;
        Ok(self.part("unet", config, layout::UNET, names::unet, layout))
    }

    fn vae(&self) -> Result<Part> {
        let (config, layout) = layout::vae(&self.weights, layout::VAE, self.family.scaling_factor)?;
        Ok(self.part("vae", config, layout::VAE, names::vae, layout))
    }

    fn text(&self, row: &'static TextRow) -> Result<Part> {
        let weights = self.weights.clone().with_names(NameMap::of_text(row));
        let config = self.settings.config(row.folder.name, layout::text(&weights, row)?);
        Ok(Part { config, weights })
    }

    /// One of those that come with the program: single files have none, but those of models with their own that were written here.
    fn tokenizer(&self, row: &'static TextRow) -> Result<Tokenizer> {
        match self.settings.tokenizers.get(row.folder.tokenizer) {
            Some(texts) => Tokenizer::from_texts(&self.path.display().to_string(), texts),
            None => row.tokenizer(),
        }
    }

    fn skipped_layers(&self, row: &'static TextRow) -> usize {
        row.layer.skip
    }

    fn schedule(&self) -> Result<ScheduleConfig> {
        if let Some(schedule) = &self.settings.scheduler {
            return Ok(schedule.clone());
        }
        let has = |name: &str| self.weights.shape(name).is_some();
        let (is_v, zero_snr) = match self.family.prediction {
            PredictionRule::Epsilon => (false, false),
            PredictionRule::SpreadOfNorm(name) => {
                let name = format!("{}.{name}", layout::UNET);
                // Inpainting and depth models predict ε whatever the norm says.
                let first = self.weights.shape(&format!("{}.input_blocks.0.0.weight", layout::UNET));
                let plain = first.is_some_and(|shape| shape.get(1) == Some(&4));
                let spread = match plain && has(&name) {
                    true => deviation(&self.weights.get_any(&name)?.to_vec1::<f32>()?),
                    false => 0.0,
                };
                (spread > 0.09, false)
            }
            PredictionRule::Marked => {
                if let Some(name) = ["edm_mean", "edm_vpred.sigma_max"].into_iter().find(|name| has(name)) {
                    return Err(Error::incompatible(format!(
                        "{}: tensor {name} says that the model was trained in the EDM formulation, which is not known here",
                        self.path.display()
                    )));
                }
                (has("v_pred"), has("v_pred") && has("ztsnr"))
            }
        };
        let prediction = if is_v { PredictionType::VPrediction } else { PredictionType::Epsilon };
        Ok(self.family.schedule(prediction, zero_snr))
    }

    fn sample(&self, hash: &mut Sha256) -> Result<()> {
        sample_all(&self.path, hash)
    }

    fn for_each_tensor(&self, tell: &mut dyn FnMut(&'static str, &Weights, &str)) -> Result<()> {
        for tensor in self.weights.names() {
            let below = |prefix: &str| tensor.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
            let part = match () {
                () if below(layout::UNET) => "UNet",
                () if below(layout::VAE) => "VAE",
                () if self.family.text.iter().any(|row| below(row.prefix)) => "text encoder",
                () => OTHER,
            };
            tell(part, &self.weights, tensor);
        }
        Ok(())
    }
}

/// The standard deviation, over all and not over all but one.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    (values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt()
}

fn not_known(path: &Path, weights: &Weights) -> Error {
    const WHOLE: &str = "choose a checkpoint that holds UNet, text encoder and VAE";
    let names = weights.names();
    let below = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let looks = [
        ("conditioner.embedders.0.model.", "the refiner of SDXL", "choose the base model"),
        ("model.diffusion_model.", "a UNet without a text encoder that is known", WHOLE),
        ("down_blocks.", "one part of a diffusers pipeline", "choose the pipeline's folder"),
        ("lora_", "a LoRA", "choose the checkpoint that it was made for"),
        ("encoder.down.", "an autoencoder alone", WHOLE),
    ];
    let denoiser = looks::denoiser(weights, layout::UNET);
    let found = denoiser.map(|what| (what, "choose a checkpoint of another kind"));
    let found = found
        .or_else(|| looks.iter().find(|(prefix, ..)| below(prefix)).map(|(_, what, help)| (*what, *help)));
    let (what, help) = match found {
        Some((what, help)) => (format!("this is {what}"), help),
        None => {
            let some: Vec<&str> = names.iter().take(3).copied().collect();
            (
                format!("no model that is known: {} tensors such as {}", names.len(), some.join(", ")),
                "wanted is a checkpoint in one file",
            )
        }
    };
    Error::incompatible(format!("{}: {what}", path.display()))
        .help(format!("{help}; known are {}", family::names()))
}
