//! Presets: whole sets of values that belong together. A preset decides what the user left alone.

use super::norm::NormControl;
use super::optimiser::{LearningRateSchedule, Optimiser};
use super::settings::{Choices, TrainingSettings};

/// A set of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Ours: few steps of small batches, a rate in units of the vocabulary, controlled norm.
    Recommended,
    /// The original (Gal et al. 2022, `txt2img-1p4B-finetune.yaml`): rate 5e-3 × batch × accumulation.
    Paper,
    /// The README of diffusers' `textual_inversion.py`: rate 5e-4 × batch × accumulation.
    Diffusers,
    /// mmagic's `textual_inversion.py` configuration: rate 5e-4, batch 1.
    Mmagic,
}

/// The values of a preset.
struct Values {
    steps: usize,
    batch_size: usize,
    gradient_accumulation: usize,
    /// From batch × accumulation and the root mean square of the vocabulary's numbers.
    learning_rate: fn(samples: f64, vocabulary_rms: f64) -> f64,
    learning_rate_schedule: LearningRateSchedule,
    /// Of AdamW.
    weight_decay: f64,
    norm_control: NormControl,
    flip: bool,
    stratified_timesteps: bool,
}

impl Preset {
    /// All of them, by name; the first is the default.
    pub const ALL: [(&'static str, Self); 4] = [
        ("recommended", Self::Recommended),
        ("paper", Self::Paper),
        ("diffusers", Self::Diffusers),
        ("mmagic", Self::Mmagic),
    ];

    /// The preset of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, preset)| *preset)
    }

    fn values(self) -> Values {
        let plain = Values {
            steps: 3000,
            batch_size: 1,
            gradient_accumulation: 1,
            learning_rate: |_, _| 5e-4,
            learning_rate_schedule: LearningRateSchedule::Constant,
            weight_decay: 1e-2,
            norm_control: NormControl::None,
            flip: false,
            stratified_timesteps: false,
        };
        match self {
            Self::Recommended => Values {
                steps: 580,
                batch_size: 4,
                learning_rate: |_, vocabulary_rms| 0.2 * vocabulary_rms,
                learning_rate_schedule: LearningRateSchedule::Cosine,
                weight_decay: 0.0,
                norm_control: NormControl::None,
                stratified_timesteps: true,
                ..plain
            },
            Self::Paper => Values {
                steps: 5000,
                batch_size: 4,
                learning_rate: |samples, _| 5e-3 * samples,
                flip: true,
                ..plain
            },
            Self::Diffusers => Values {
                gradient_accumulation: 4,
                learning_rate: |samples, _| 5e-4 * samples,
                flip: true,
                ..plain
            },
            Self::Mmagic => plain,
        }
    }

    /// The settings of a run: `choices` where they were made, this preset's values elsewhere. `vocabulary_rms` is the root mean square of
    /// the token table's numbers (mean norm / √d): 0.014 for SD1.
    #[allow(clippy::too_many_arguments)]
    pub fn settings(
        self,
        choices: &Choices,
        placeholder: &str,
        init_text: &str,
        num_vectors: usize,
        templates: Vec<String>,
        seed: u64,
        vocabulary_rms: f64,
    ) -> TrainingSettings {
        let values = self.values();
        let batch_size = choices.batch_size.unwrap_or(values.batch_size);
        let gradient_accumulation = choices.gradient_accumulation.unwrap_or(values.gradient_accumulation);
        let samples = (batch_size * gradient_accumulation) as f64;
        let norm_control = choices.norm_control.unwrap_or(values.norm_control);
        TrainingSettings {
            placeholder: placeholder.to_owned(),
            init_text: init_text.to_owned(),
            num_vectors,
            steps: choices.steps.unwrap_or(values.steps),
            batch_size,
            gradient_accumulation,
            learning_rate: choices
                .learning_rate
                .unwrap_or_else(|| (values.learning_rate)(samples, vocabulary_rms)),
            learning_rate_schedule: choices.learning_rate_schedule.unwrap_or(values.learning_rate_schedule),
            warmup: choices.warmup.unwrap_or(0),
            optimiser: choices
                .optimiser
                .unwrap_or(Optimiser::AdamW)
                .config(choices.weight_decay, values.weight_decay),
            norm_control: choices
                .norm_strength
                .map_or(norm_control, |strength| norm_control.with_strength(strength)),
            templates,
            flip: choices.flip.unwrap_or(values.flip),
            stratified_timesteps: values.stratified_timesteps,
            seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::OptimiserConfig;

    fn settings(preset: Preset, choices: &Choices) -> TrainingSettings {
        preset.settings(choices, "<x>", "cat", 1, vec!["{}".into()], 0, 0.014)
    }

    fn weight_decay(settings: &TrainingSettings) -> f64 {
        match settings.optimiser {
            OptimiserConfig::AdamW(config) => config.weight_decay,
            OptimiserConfig::Sgd(config) => config.weight_decay,
        }
    }

    #[test]
    fn presets_have_their_sources_values() {
        let paper = settings(Preset::Paper, &Choices::default());
        assert_eq!((paper.learning_rate, weight_decay(&paper), paper.flip), (0.02, 0.01, true));
        let paper = settings(
            Preset::Paper,
            &Choices { batch_size: Some(2), gradient_accumulation: Some(3), ..Choices::default() },
        );
        assert!(
            (paper.learning_rate - 0.03).abs() < 1e-12,
            "the paper's rate is scaled by batch × accumulation"
        );
        let diffusers = settings(Preset::Diffusers, &Choices::default());
        assert_eq!(
            (diffusers.learning_rate, diffusers.steps, diffusers.gradient_accumulation),
            (2e-3, 3000, 4)
        );
        let mmagic = settings(Preset::Mmagic, &Choices::default());
        assert_eq!((mmagic.learning_rate, mmagic.batch_size, mmagic.flip), (5e-4, 1, false));
    }

    #[test]
    fn a_choice_beats_the_preset() {
        let choices =
            Choices { learning_rate: Some(1e-3), steps: Some(7), flip: Some(false), ..Choices::default() };
        let chosen = settings(Preset::Paper, &choices);
        assert_eq!((chosen.learning_rate, chosen.steps, chosen.flip, chosen.batch_size), (1e-3, 7, false, 4));
    }

    #[test]
    fn a_run_is_named_by_what_decides_its_result() {
        let constant = settings(Preset::Mmagic, &Choices::default());
        let longer = settings(Preset::Mmagic, &Choices { steps: Some(9000), ..Choices::default() });
        assert_eq!(constant.run_key(&["m"]), longer.run_key(&["m"]), "a longer run continues a shorter one");
        assert_ne!(constant.run_key(&["m"]), constant.run_key(&["n"]));
        let cosine = settings(Preset::Recommended, &Choices::default());
        let longer = settings(Preset::Recommended, &Choices { steps: Some(9000), ..Choices::default() });
        assert_ne!(cosine.run_key(&[]), longer.run_key(&[]), "a falling rate depends on where the run ends");
    }

    #[test]
    fn a_strength_belongs_to_the_control_in_force() {
        let pull = Choices {
            norm_control: Some(NormControl::Pull { strength: 0.1 }),
            norm_strength: Some(0.4),
            ..Choices::default()
        };
        assert_eq!(settings(Preset::Mmagic, &pull).norm_control, NormControl::Pull { strength: 0.4 });
        let alone = Choices { norm_strength: Some(0.4), ..Choices::default() };
        let preset = Preset::Mmagic.values().norm_control;
        assert_eq!(settings(Preset::Mmagic, &alone).norm_control, preset.with_strength(0.4));
    }

    #[test]
    fn the_optimiser_is_part_of_the_runs_name() {
        let with = |optimiser| Choices { optimiser: Some(optimiser), ..Choices::default() };
        let key = |choices: &Choices| settings(Preset::Mmagic, choices).run_key(&[]);
        let plain = key(&Choices::default());
        assert_eq!(key(&with(Optimiser::AdamW)), plain);
        assert_ne!(key(&with(Optimiser::Adam)), plain, "this preset's AdamW has a decay");
        assert_ne!(key(&with(Optimiser::Sgd)), plain);
    }
}
