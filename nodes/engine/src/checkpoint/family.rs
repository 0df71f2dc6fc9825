//! The families of models that people have in one file, as data: adding one is adding a row.
//!
//! Widths and depths are read off the tensors' shapes ([`layout`](super::layout)); a row holds what shapes do not tell.

use super::names::{self, Alias, Layout};
use crate::diffusion::{PredictionType, ScheduleConfig};

/// What shapes do not tell of a family.
#[derive(Debug)]
pub struct Family {
    /// A short name: `sd1`.
    pub id: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// A tensor that files of this family have and no other row's.
    pub(super) sign: &'static str,
    pub(super) text: TextRow,
    pub(super) heads: Heads,
    /// s: latents are multiplied by it before they are noised.
    pub(super) scaling_factor: f64,
    pub(super) prediction: PredictionRule,
}

/// The text encoder of a family.
#[derive(Debug)]
pub(super) struct TextRow {
    pub(super) prefix: &'static str,
    pub(super) translate: fn(&str, Layout) -> Option<Alias>,
    /// `quick_gelu` or `gelu`.
    pub(super) hidden_act: &'static str,
    /// Channels of a head.
    pub(super) head_width: usize,
    /// Layers that are left out at the end.
    pub(super) skip: usize,
    /// What fills a text up to 77 tokens; `None` is the end token.
    pub(super) pad: Option<u32>,
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
    /// ComfyUI's rule for SD 2 (`supported_models.py`): v where the bias of a norm on the way up spreads by more than 0.09, ε elsewhere.
    SpreadOfNorm(&'static str),
}

/// All rows.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        id: "sd1",
        name: "Stable Diffusion 1",
        sign: "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        text: TextRow {
            prefix: "cond_stage_model.transformer",
            translate: names::same,
            hidden_act: "quick_gelu",
            head_width: 64,
            skip: 0,
            pad: None,
        },
        heads: Heads::Count(8),
        scaling_factor: 0.18215,
        prediction: PredictionRule::Epsilon,
    },
    Family {
        id: "sd2",
        name: "Stable Diffusion 2",
        sign: "cond_stage_model.model.token_embedding.weight",
        text: TextRow {
            prefix: "cond_stage_model.model",
            translate: names::open_clip,
            hidden_act: "gelu",
            head_width: 64,
            skip: 1,
            pad: Some(0),
        },
        heads: Heads::Width(64),
        scaling_factor: 0.18215,
        prediction: PredictionRule::SpreadOfNorm("output_blocks.11.1.transformer_blocks.0.norm1.bias"),
    },
];

impl Family {
    /// The noise schedule: that of Stable Diffusion 1 for all rows so far.
    pub(super) fn schedule(&self, prediction_type: PredictionType) -> ScheduleConfig {
        ScheduleConfig { prediction_type, ..ScheduleConfig::default() }
    }
}
