//! The settings of a run: what the user chose, and what it comes to.

use serde::{Deserialize, Serialize};

use super::norm::NormControl;
use super::optimiser::{LearningRateSchedule, Optimiser, OptimiserConfig};
use crate::{Error, Result};

/// Everything that decides a run's result, beside the models and the pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingSettings {
    /// The new word.
    pub placeholder: String,
    /// Words whose token rows the vectors start from.
    pub init_text: String,
    /// n
    pub num_vectors: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Pictures per pass.
    pub batch_size: usize,
    /// Passes per optimiser step; their gradients are averaged.
    pub gradient_accumulation: usize,
    /// The rate that the optimiser really uses, before the schedule.
    pub learning_rate: f64,
    /// How it changes.
    pub learning_rate_schedule: LearningRateSchedule,
    /// Steps of rising from 0.
    pub warmup: usize,
    /// The optimiser's constants.
    pub optimiser: OptimiserConfig,
    /// What happens to the norms after each step.
    pub norm_control: NormControl,
    /// Prompts with `{}` for the placeholder, for pictures without a caption.
    pub templates: Vec<String>,
    /// Whether mirrored twins of the pictures are learned from, too.
    pub flip: bool,
    /// Draw the timesteps of a batch from equal parts of 0..1000, one from each: the same mean as uniform draws, with less variance.
    pub stratified_timesteps: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl TrainingSettings {
    /// Refuse what cannot be trained.
    pub fn check(&self) -> Result<()> {
        for (name, value) in [
            ("steps", self.steps),
            ("batch size", self.batch_size),
            ("gradient accumulation", self.gradient_accumulation),
            ("number of templates", self.templates.len()),
        ] {
            if value == 0 {
                return Err(Error::invalid(format!("the {name} must be at least 1")));
            }
        }
        if !self.learning_rate.is_finite() || self.learning_rate <= 0.0 {
            return Err(Error::invalid(format!("a learning rate of {} cannot learn", self.learning_rate)));
        }
        self.norm_control.check()
    }

    /// A name for the run, from these settings and the `parts` (fingerprints of models and pictures). With a constant learning rate the
    /// number of steps is left out: a longer run then continues a shorter one, in the folder that
    /// [`RunFolder::for_steps`](super::RunFolder::for_steps) chooses.
    pub fn run_key(&self, parts: &[&str]) -> String {
        use sha2::{Digest, Sha256};
        let mut settings = self.clone();
        if settings.learning_rate_schedule == LearningRateSchedule::Constant {
            settings.steps = 0;
        }
        let json = serde_json::to_string(&settings).unwrap_or_default();
        let mut hash = Sha256::new();
        for part in parts.iter().copied().chain([json.as_str()]) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What the user chose; the preset decides everything that is `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choices {
    /// See [`TrainingSettings::steps`].
    pub steps: Option<usize>,
    /// See [`TrainingSettings::batch_size`].
    pub batch_size: Option<usize>,
    /// See [`TrainingSettings::gradient_accumulation`].
    pub gradient_accumulation: Option<usize>,
    /// The rate that the optimiser really uses; it is not scaled by the batch.
    pub learning_rate: Option<f64>,
    /// See [`TrainingSettings::learning_rate_schedule`].
    pub learning_rate_schedule: Option<LearningRateSchedule>,
    /// See [`TrainingSettings::warmup`].
    pub warmup: Option<usize>,
    /// `None`: AdamW.
    pub optimiser: Option<Optimiser>,
    /// Weight decay of AdamW or SGD; [`Optimiser::Adam`] has none.
    pub weight_decay: Option<f64>,
    /// See [`TrainingSettings::norm_control`].
    pub norm_control: Option<NormControl>,
    /// Scale or strength of the norm control, the preset's too: see [`NormControl::with_strength`].
    pub norm_strength: Option<f64>,
    /// See [`TrainingSettings::flip`].
    pub flip: Option<bool>,
}
