//! Families of models as data: adding one is adding a row.
//!
//! Widths and depths are read off the tensors' shapes ([`layout`](super::layout)); a row holds what shapes do not tell.

use super::names::{self, Alias, Layout};
use crate::Result;
use crate::diffusion::{PredictionType, ScheduleConfig};
use crate::models::{HiddenLayer, TextEncoders};
use crate::tokenizer::Tokenizer;

/// What shapes do not tell of a family.
#[derive(Debug)]
pub struct Family {
    /// A short name: `sd1`.
    pub id: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// A tensor that files of this family have and no other row's.
    pub(super) sign: &'static str,
    /// The text encoders, in the order in which their states are joined.
    pub(super) text: &'static [TextRow],
    /// How its denoiser is known where it comes without the text encoders; `None` where it never does.
    pub(super) alone: Option<DenoiserSign>,
    pub(super) heads: Heads,
    pub(super) pipeline: PipelineRow,
    /// s: latents are multiplied by it before they are noised.
    pub scaling_factor: f64,
    pub(super) prediction: PredictionRule,
    /// The side in pixels of the pictures that it was trained on.
    pub resolution: usize,
}

/// A text encoder of a family.
#[derive(Debug)]
pub(super) struct TextRow {
    /// What its vectors are called in embedding files.
    pub(super) key: &'static str,
    pub(super) prefix: &'static str,
    pub(super) translate: fn(&str, Layout) -> Option<Alias>,
    /// `quick_gelu` or `gelu`.
    pub(super) hidden_act: &'static str,
    /// Whether a token sees only those before it.
    pub(super) causal: bool,
    /// Channels of a head.
    pub(super) head_width: usize,
    /// The layer whose states are taken.
    pub(super) layer: HiddenLayer,
    pub(super) tokenizer: Vocabulary,
    /// What fills a text up to 77 tokens; `None` is the tokenizer's own.
    pub(super) pad: Option<u32>,
    pub(super) folder: FolderRow,
}

/// A text encoder in a diffusers pipeline.
#[derive(Debug)]
pub(super) struct FolderRow {
    pub(super) name: &'static str,
    /// Its class, and the library or pipeline that has it.
    pub(super) class: (&'static str, &'static str),
    /// The tokenizer's folder.
    pub(super) tokenizer: &'static str,
    /// Its names, where they are not those of `CLIPTextModel`.
    pub(super) translate: Option<fn(&str, Layout) -> Option<Alias>>,
    /// Layers that are left out at the end; a folder may hold only those that are used.
    pub(super) skip: usize,
}

/// What diffusers calls a family.
#[derive(Debug)]
pub(super) struct PipelineRow {
    /// The pipeline's class.
    pub(super) class: &'static str,
    /// That of models that paint into a picture.
    pub(super) inpainting: &'static str,
    /// The scheduler that its pipelines come with.
    pub(super) scheduler: &'static str,
    /// The autoencoder's folder.
    pub(super) vae: &'static str,
}

/// The vocabularies that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    Clip,
    BertUncased,
}

/// What tells a family's UNet from those of the others, whatever its widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DenoiserSign {
    /// Linear layers instead of convolutions around the transformer blocks.
    pub(super) linear: bool,
    /// Whether it is told sizes and the pooled text.
    pub(super) added: bool,
}

/// How a UNet's attention is cut into heads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heads {
    /// So many on each level.
    Count(usize),
    /// As many as there are of this width.
    Width(usize),
}

/// How it is known what the UNet predicts.
#[derive(Debug, Clone, Copy)]
pub(super) enum PredictionRule {
    Epsilon,
    /// ComfyUI's rule for SD 2 (`supported_models.py`): v where the UNet takes plain latents
    /// and the bias of a norm on the way up spreads by more than 0.09, ε elsewhere.
    SpreadOfNorm(&'static str),
    /// ComfyUI's rule for SDXL: v where there is a tensor `v_pred`, with zero terminal SNR where there is one called `ztsnr`.
    Marked,
}

const CLIP_L: TextRow = TextRow {
    key: "clip_l",
    prefix: "cond_stage_model.transformer",
    translate: names::same,
    hidden_act: "quick_gelu",
    causal: true,
    head_width: 64,
    layer: HiddenLayer::LAST,
    tokenizer: Vocabulary::Clip,
    pad: None,
    folder: FolderRow {
        name: "text_encoder",
        class: ("transformers", "CLIPTextModel"),
        tokenizer: "tokenizer",
        translate: None,
        skip: 0,
    },
};

const OPEN_CLIP: TextRow = TextRow {
    key: "clip_h",
    prefix: "cond_stage_model.model",
    translate: names::open_clip,
    hidden_act: "gelu",
    layer: HiddenLayer { skip: 1, norm: true },
    pad: Some(0),
    ..CLIP_L
};

const STABLE_DIFFUSION: PipelineRow = PipelineRow {
    class: "StableDiffusionPipeline",
    inpainting: "StableDiffusionInpaintPipeline",
    scheduler: "DDIMScheduler",
    vae: "vae",
};

/// SDXL takes the states before the last layer as they are, of both encoders.
const PENULTIMATE: HiddenLayer = HiddenLayer { skip: 1, norm: false };

/// All rows.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        id: "sd1",
        name: "Stable Diffusion 1",
        sign: "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        text: &[CLIP_L],
        alone: Some(DenoiserSign { linear: false, added: false }),
        heads: Heads::Count(8),
        pipeline: STABLE_DIFFUSION,
        scaling_factor: 0.18215,
        prediction: PredictionRule::Epsilon,
        resolution: 512,
    },
    Family {
        id: "sd2",
        name: "Stable Diffusion 2",
        sign: "cond_stage_model.model.token_embedding.weight",
        text: &[OPEN_CLIP],
        alone: Some(DenoiserSign { linear: true, added: false }),
        heads: Heads::Width(64),
        pipeline: STABLE_DIFFUSION,
        scaling_factor: 0.18215,
        prediction: PredictionRule::SpreadOfNorm("output_blocks.11.1.transformer_blocks.0.norm1.bias"),
        resolution: 768,
    },
    Family {
        id: "sdxl",
        name: "Stable Diffusion XL",
        sign: "conditioner.embedders.1.model.token_embedding.weight",
        text: &[
            TextRow {
                prefix: "conditioner.embedders.0.transformer",
                layer: PENULTIMATE,
                folder: FolderRow { skip: 1, ..CLIP_L.folder },
                ..CLIP_L
            },
            TextRow {
                key: "clip_g",
                prefix: "conditioner.embedders.1.model",
                layer: PENULTIMATE,
                folder: FolderRow {
                    name: "text_encoder_2",
                    class: ("transformers", "CLIPTextModelWithProjection"),
                    tokenizer: "tokenizer_2",
                    translate: None,
                    skip: 1,
                },
                ..OPEN_CLIP
            },
        ],
        alone: Some(DenoiserSign { linear: true, added: true }),
        heads: Heads::Width(64),
        pipeline: PipelineRow {
            class: "StableDiffusionXLPipeline",
            inpainting: "StableDiffusionXLInpaintPipeline",
            scheduler: "EulerDiscreteScheduler",
            vae: "vae",
        },
        scaling_factor: 0.13025,
        prediction: PredictionRule::Marked,
        resolution: 1024,
    },
    Family {
        id: "ldm",
        name: "latent diffusion's text2img-large",
        sign: "cond_stage_model.transformer.token_emb.weight",
        text: &[TextRow {
            key: "bert",
            prefix: "cond_stage_model.transformer",
            translate: names::ldm_bert,
            hidden_act: "gelu",
            causal: false,
            tokenizer: Vocabulary::BertUncased,
            folder: FolderRow {
                name: "bert",
                class: ("latent_diffusion", "LDMBertModel"),
                translate: Some(names::ldm_bert_in_folder),
                ..CLIP_L.folder
            },
            ..CLIP_L
        }],
        alone: None,
        heads: Heads::Count(8),
        pipeline: PipelineRow {
            class: "LDMTextToImagePipeline",
            inpainting: "LDMTextToImagePipeline",
            vae: "vqvae",
            ..STABLE_DIFFUSION
        },
        scaling_factor: 0.18215,
        prediction: PredictionRule::Epsilon,
        resolution: 256,
    },
];

/// What people call all of them.
pub(super) fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

impl TextRow {
    /// The tokenizer of checkpoints that have none of their own.
    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = match self.tokenizer {
            Vocabulary::Clip => Tokenizer::clip()?,
            Vocabulary::BertUncased => Tokenizer::bert()?,
        };
        Ok(match self.pad {
            Some(pad) => tokenizer.with_pad(pad),
            None => tokenizer,
        })
    }
}

impl Family {
    /// The family of a model with these text encoders; `None` if they are those of none. A model that came without its file is known by them.
    pub fn of_text_encoders(text: &TextEncoders) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.has_text_encoders(text))
    }

    /// Whether these are its text encoders.
    pub(super) fn has_text_encoders(&self, text: &TextEncoders) -> bool {
        let keys = text.towers().iter().map(|tower| tower.key.as_str());
        keys.eq(self.text.iter().map(|row| row.key))
    }

    /// The side in pixels of the pictures that a model of this family with this prediction was trained on: the base models of Stable Diffusion 2, which
    /// predict ε, are smaller than the others.
    pub(super) fn resolution_for(&self, prediction: PredictionType) -> usize {
        match (self.prediction, prediction) {
            (PredictionRule::SpreadOfNorm(_), PredictionType::Epsilon) => 512,
            _ => self.resolution,
        }
    }

    /// The noise schedule: that of Stable Diffusion 1 for all rows so far.
    pub fn schedule(&self, prediction_type: PredictionType, zero_snr: bool) -> ScheduleConfig {
        ScheduleConfig { prediction_type, rescale_betas_zero_snr: zero_snr, ..ScheduleConfig::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use candle_core::{Device, Tensor};

    use super::super::single_file::SingleFile;
    use super::super::{Checkpoint, Precision};
    use super::*;
    use crate::CancelToken;
    use crate::diffusion::TorchRng;
    use crate::training::{CachedLatents, Choices, LatentCache, Preset, Trainer, TrainingModels};

    /// A family that nobody has: an encoder with another activation, prefix and layer, other heads, another scale, and v where it is marked.
    const INVENTED: &[Family] = &[Family {
        id: "invented",
        name: "Invented",
        sign: "somebody.text.text_model.embeddings.token_embedding.weight",
        text: &[TextRow {
            key: "clip_s",
            prefix: "somebody.text",
            hidden_act: "gelu",
            layer: HiddenLayer { skip: 1, norm: true },
            pad: Some(0),
            ..CLIP_L
        }],
        alone: None,
        heads: Heads::Count(4),
        pipeline: STABLE_DIFFUSION,
        scaling_factor: 0.5,
        prediction: PredictionRule::Marked,
        resolution: 64,
    }];

    /// A file of it, of the shapes of the tiny Stable Diffusion 1 of the goldens, but with CLIP's own vocabulary.
    fn file(folder: &std::path::Path) -> std::path::PathBuf {
        let text =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/families.json"));
        let json: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
        let mut rng = TorchRng::new(3);
        let mut tensors = HashMap::new();
        for (name, shape) in json["sd1"]["shapes"].as_object().unwrap() {
            let mut shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            if name.ends_with("token_embedding.weight") {
                shape[0] = 49408;
            }
            let count: usize = shape.iter().product();
            let scale = 1.0 / (count / shape[0]).max(1) as f64;
            let numbers = Tensor::from_vec(rng.randn(count), shape.as_slice(), &Device::Cpu).unwrap();
            let name = name.replace("cond_stage_model.transformer", "somebody.text");
            tensors.insert(name, (numbers * scale.sqrt()).unwrap());
        }
        tensors.insert("v_pred".to_owned(), Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap());
        let path = folder.join("invented.safetensors");
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    #[test]
    fn a_family_is_added_by_a_row_and_learns() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        assert!(Checkpoint::open(&path).is_err(), "no row of ours fits it");
        let checkpoint = Checkpoint { source: Arc::new(SingleFile::open_as(&path, INVENTED).unwrap()) };
        assert_eq!(checkpoint.family().id, "invented");
        let cancel = CancelToken::new();
        let models = TrainingModels::read(&checkpoint, &Device::Cpu, Precision::F32, &cancel).unwrap();
        let tower = &models.text.towers()[0];
        assert_eq!((tower.key.as_str(), tower.tokenizer.pad(), tower.layer.skip), ("clip_s", 0, 1));
        assert_eq!(models.schedule.prediction(), PredictionType::VPrediction);
        let vae = checkpoint.vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
        assert_eq!(vae.config().scaling_factor, 0.5);

        let mut rng = TorchRng::new(4);
        let mut latent = || Tensor::from_vec(rng.randn(4 * 8 * 8), (4, 8, 8), &Device::Cpu).unwrap();
        let picture = CachedLatents {
            mean: latent(),
            std: latent().abs().unwrap(),
            weight: None,
            caption: None,
            time_ids: [0.0; 6],
        };
        let latents = LatentCache { groups: vec![vec![picture]], scaling_factor: 0.5 };
        let choices = Choices { steps: Some(3), batch_size: Some(2), ..Choices::default() };
        let templates = vec!["a photo of {}".to_owned()];
        let settings = Preset::Recommended.settings(&choices, "<x>", "cat", 1, templates, 0, 0.1);
        let mut trainer = Trainer::new(models, latents, settings).unwrap();
        while !trainer.is_finished() {
            let report = trainer.step(&cancel).unwrap();
            assert!(report.loss.is_finite() && report.remark.is_none(), "{report:?}");
        }
        let moved = (trainer.vectors().unwrap() - trainer.initial_vectors().unwrap()).unwrap();
        assert!(moved.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.1);
    }
}
