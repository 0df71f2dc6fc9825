//! Families of models as data: adding one is adding a row.
//!
//! Widths and depths are read off the tensors' shapes ([`layout`](super::layout)); a row holds what shapes do not tell.

use super::names::{self, Alias, Layout};
use crate::diffusion::{PredictionType, ScheduleConfig};
use crate::models::HiddenLayer;

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
    pub(super) heads: Heads,
    /// The autoencoder's folder in a diffusers pipeline.
    pub(super) folder_vae: &'static str,
    /// s: latents are multiplied by it before they are noised.
    pub(super) scaling_factor: f64,
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
    /// Its names, where they are not those of `CLIPTextModel`.
    pub(super) translate: Option<fn(&str, Layout) -> Option<Alias>>,
    /// Layers that are left out at the end; a folder may hold only those that are used.
    pub(super) skip: usize,
}

/// The vocabularies that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    Clip,
    BertUncased,
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
    folder: FolderRow { name: "text_encoder", translate: None, skip: 0 },
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

/// SDXL takes the states before the last layer as they are, of both encoders.
const PENULTIMATE: HiddenLayer = HiddenLayer { skip: 1, norm: false };

/// All rows.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        id: "sd1",
        name: "Stable Diffusion 1",
        sign: "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        text: &[CLIP_L],
        heads: Heads::Count(8),
        folder_vae: "vae",
        scaling_factor: 0.18215,
        prediction: PredictionRule::Epsilon,
        resolution: 512,
    },
    Family {
        id: "sd2",
        name: "Stable Diffusion 2",
        sign: "cond_stage_model.model.token_embedding.weight",
        text: &[OPEN_CLIP],
        heads: Heads::Width(64),
        folder_vae: "vae",
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
                folder: FolderRow { name: "text_encoder_2", translate: None, skip: 1 },
                ..OPEN_CLIP
            },
        ],
        heads: Heads::Width(64),
        folder_vae: "vae",
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
            folder: FolderRow { name: "bert", translate: Some(names::ldm_bert_in_folder), skip: 0 },
            ..CLIP_L
        }],
        heads: Heads::Count(8),
        folder_vae: "vqvae",
        scaling_factor: 0.18215,
        prediction: PredictionRule::Epsilon,
        resolution: 256,
    },
];

impl Family {
    /// The noise schedule: that of Stable Diffusion 1 for all rows so far.
    pub(super) fn schedule(&self, prediction_type: PredictionType, zero_snr: bool) -> ScheduleConfig {
        ScheduleConfig { prediction_type, rescale_betas_zero_snr: zero_snr, ..ScheduleConfig::default() }
    }
}
