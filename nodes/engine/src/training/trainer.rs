//! The trainer: one optimiser step at a time over cached latents.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::captions::PromptIds;
use super::initial::{VocabularyScale, check_placeholder, initial_vectors, vocabulary_scales};
use super::latents::{CachedLatents, LatentCache};
use super::loss::{MicroBatch, loss_and_gradient};
use super::norm::{angle, norm};
use super::optimiser::OptimiserState;
use super::settings::TrainingSettings;
use super::state::Snapshot;
use crate::checkpoint::{Checkpoint, Precision};
use crate::concept::{caption_with_word, fill_template};
use crate::diffusion::{NoiseSchedule, TorchRng};
use crate::models::{TextEncoders, UNet2DConditionModel};
use crate::{CancelToken, Error, ErrorKind, Result};

/// After this many steps in a row without a finite result the run ends.
const MAX_FAILURES: usize = 8;

/// The frozen parts that a step runs through.
#[derive(Debug, Clone)]
pub struct TrainingModels {
    /// The denoiser.
    pub unet: Arc<UNet2DConditionModel>,
    /// The text encoders.
    pub text: TextEncoders,
    /// The noise schedule that the denoiser was trained with.
    pub schedule: Arc<NoiseSchedule>,
}

impl TrainingModels {
    /// Read them from a checkpoint.
    pub fn read(
        checkpoint: &Checkpoint,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Self> {
        Ok(Self {
            text: checkpoint.text_encoders(device, precision, cancel)?,
            unet: checkpoint.unet(device, precision, cancel)?,
            schedule: Arc::new(checkpoint.schedule()?),
        })
    }
}

/// What one step did.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps done, this one included.
    pub step: usize,
    /// Mean loss over the step's pictures.
    pub loss: f64,
    /// The rate of this step.
    pub learning_rate: f64,
    /// Mean norm of the vectors.
    pub norm: f64,
    /// Mean angle between the vectors and where they started, in degrees.
    pub angle: f64,
    /// Something that the user should know, such as a step that had to be taken back.
    pub remark: Option<String>,
}

/// All that changes while training: what a run folder holds.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// `[n, D]`, row-major.
    pub(super) vectors: Vec<f32>,
    /// Where they started.
    pub(super) initial: Vec<f32>,
    pub(super) optimiser: OptimiserState,
    pub(super) draws: Draws,
    /// Loss of every step.
    pub(super) losses: Vec<f32>,
    /// Factor on the learning rate: halved each time a step had to be taken back.
    pub(super) rate_scale: f64,
}

/// The random state, and the pictures that are still to come in each group before it is shuffled again.
#[derive(Debug, Clone)]
pub(super) struct Draws {
    pub(super) rng: TorchRng,
    pub(super) queues: Vec<Vec<usize>>,
}

/// A run of textual inversion.
#[derive(Debug)]
pub struct Trainer {
    models: TrainingModels,
    latents: LatentCache,
    settings: TrainingSettings,
    /// Token ids of every caption that can be drawn, for each text encoder.
    prompts: HashMap<String, Vec<Vec<u32>>>,
    scales: Vec<VocabularyScale>,
    pub(super) state: State,
    failures: usize,
    remarks: Vec<String>,
}

impl Trainer {
    /// Prepare a run from its start.
    ///
    /// # Errors
    /// If a setting, the placeholder, the init text or a prompt cannot work, or there is no picture.
    pub fn new(models: TrainingModels, latents: LatentCache, settings: TrainingSettings) -> Result<Self> {
        settings.check()?;
        if latents.is_empty() {
            return Err(Error::invalid("there is no picture to learn from"));
        }
        let text = &models.text;
        check_placeholder(text, &settings.placeholder)?;
        let (initial, remark) = initial_vectors(text, &settings.init_text, settings.num_vectors)?;
        let mut remarks: Vec<String> = remark.into_iter().collect();
        let scales = vocabulary_scales(text)?;

        let prompt_ids = PromptIds::new(text, &settings.placeholder, settings.num_vectors);
        let mut prompts = HashMap::new();
        let mut lacking = 0;
        for item in latents.groups.iter().flatten() {
            for template in &settings.templates {
                let (caption, prepended) = caption(template, item.caption.as_deref(), &settings.placeholder);
                if !prompts.contains_key(&caption) {
                    prompts.insert(caption.clone(), prompt_ids.encode(&caption)?);
                    lacking += usize::from(prepended);
                }
            }
        }
        if lacking > 0 {
            remarks.push(format!(
                "{lacking} caption{} did not hold the placeholder {}: it was put in front",
                if lacking == 1 { "" } else { "s" },
                settings.placeholder
            ));
        }

        let mut initial: Vec<f32> = initial.flatten_all()?.to_vec1()?;
        settings.norm_control.apply(&mut initial, &scales);
        let state = State {
            optimiser: settings.optimiser.start(initial.len()),
            vectors: initial.clone(),
            initial,
            draws: Draws {
                rng: TorchRng::new(settings.seed),
                queues: vec![Vec::new(); latents.groups.len()],
            },
            losses: Vec::new(),
            rate_scale: 1.0,
        };
        Ok(Self { models, latents, settings, prompts, scales, state, failures: 0, remarks })
    }

    /// The settings of this run.
    pub fn settings(&self) -> &TrainingSettings {
        &self.settings
    }

    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.state.losses.len()
    }

    /// Whether all steps are done.
    pub fn is_finished(&self) -> bool {
        self.step_count() >= self.settings.steps
    }

    /// The loss of every step so far.
    pub fn losses(&self) -> &[f32] {
        &self.state.losses
    }

    /// What the user should know about the settings.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The scale of each text encoder's vocabulary.
    pub fn vocabulary_scales(&self) -> &[VocabularyScale] {
        &self.scales
    }

    /// The vectors `[n, D]` as they are now, in f32.
    pub fn vectors(&self) -> Result<Tensor> {
        self.matrix(&self.state.vectors)
    }

    /// What was learned so far.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Ok(Snapshot { vectors: self.vectors()?, losses: self.state.losses.clone() })
    }

    /// The vectors `[n, D]` that the run started from.
    pub fn initial_vectors(&self) -> Result<Tensor> {
        self.matrix(&self.state.initial)
    }

    /// One optimiser step. On an error, a cancelled step too, everything is as it was before the step.
    pub fn step(&mut self, cancel: &CancelToken) -> Result<StepReport> {
        let draws = self.state.draws.clone();
        let result = self.try_step(cancel);
        if result.is_err() {
            self.state.draws = draws;
        }
        result
    }

    fn try_step(&mut self, cancel: &CancelToken) -> Result<StepReport> {
        let accumulation = self.settings.gradient_accumulation;
        let vectors = self.vectors()?;
        let mut sum = vec![0f32; self.state.vectors.len()];
        let mut loss = 0.0;
        for _ in 0..accumulation {
            let batch = self.draw()?;
            let (micro_loss, gradient) = loss_and_gradient(&self.models, &vectors, &batch, cancel)?;
            loss += micro_loss / accumulation as f64;
            let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g / accumulation as f32);
        }
        self.apply(loss, &sum)
    }

    /// Take one optimiser step with a given `loss` and `gradient` `[n·D]`. A step whose loss, gradient or result is not finite is taken
    /// back and the rate halved.
    ///
    /// # Errors
    /// [`ErrorKind::Diverged`] after several such steps in a row.
    pub fn apply(&mut self, loss: f64, gradient: &[f32]) -> Result<StepReport> {
        let step = self.step_count();
        let factor =
            self.settings.learning_rate_schedule.factor(step, self.settings.steps, self.settings.warmup);
        let learning_rate = self.settings.learning_rate * factor * self.state.rate_scale;
        let mut next = (self.state.vectors.clone(), self.state.optimiser.clone());
        next.1.step(&mut next.0, gradient, learning_rate);
        self.settings.norm_control.apply(&mut next.0, &self.scales);
        let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
        let mut remark = None;
        if loss.is_finite() && finite(gradient) && finite(&next.0) && next.1.is_finite() {
            (self.state.vectors, self.state.optimiser) = next;
            self.state.losses.push(loss as f32);
            self.failures = 0;
        } else {
            self.failures += 1;
            self.state.rate_scale *= 0.5;
            if self.failures >= MAX_FAILURES {
                // Halving did not help, so it shall not slow down who goes on from here.
                self.state.rate_scale *= 2f64.powi(self.failures as i32);
                return Err(Error::new(
                    ErrorKind::Diverged,
                    format!(
                        "step {}: the loss or the vectors were not finite {MAX_FAILURES} times in a row",
                        step + 1
                    ),
                )
                .help("lower the learning rate, or compute in f32; the vectors from before are kept"));
            }
            remark = Some(format!(
                "step {} was not finite and was taken back; the learning rate is halved to {:.2e}",
                step + 1,
                learning_rate * 0.5
            ));
        }
        let (norm, angle) = self.norm_and_angle();
        Ok(StepReport { step: self.step_count(), loss, learning_rate, norm, angle, remark })
    }

    /// Mean norm of the vectors and mean angle to where they started, over rows and text encoders.
    fn norm_and_angle(&self) -> (f64, f64) {
        let width = self.models.text.width();
        let rows = self.state.vectors.chunks_exact(width).zip(self.state.initial.chunks_exact(width));
        let share = 1.0 / (self.settings.num_vectors * self.scales.len()) as f64;
        rows.fold((0.0, 0.0), |means, (row, start)| {
            self.scales.iter().fold(means, |(norms, angles), scale| {
                let (part, start) = (&row[scale.columns.clone()], &start[scale.columns.clone()]);
                (norms + norm(part) * share, angles + angle(part, start) * share)
            })
        })
    }

    /// Draw the next micro-batch: pictures of one group without replacement until all were seen, a caption, a timestep and two noises for
    /// each.
    pub fn draw(&mut self) -> Result<MicroBatch> {
        let Self { latents, settings, models, prompts, state, .. } = self;
        let Draws { rng, queues } = &mut state.draws;
        let group = draw_group(rng, &latents.groups)?;
        let items = &latents.groups[group];
        let queue = &mut queues[group];
        let b = settings.batch_size;
        let mut drawn: Vec<&CachedLatents> = Vec::with_capacity(b);
        for _ in 0..b {
            if queue.is_empty() {
                *queue = rng.permutation(items.len());
            }
            let index = queue.pop().unwrap_or(0);
            drawn.push(items.get(index).ok_or_else(|| {
                Error::incompatible(format!("the run's folder names picture {index} of {}", items.len()))
                    .help("it is damaged: remove it to start the run again")
            })?);
        }
        let mut ids = vec![Vec::new(); models.text.towers().len()];
        for item in &drawn {
            let template = rng.randint(0, settings.templates.len() as i64, 1)?[0] as usize;
            let (caption, _) =
                caption(&settings.templates[template], item.caption.as_deref(), &settings.placeholder);
            let row = prompts.get(&caption).ok_or_else(|| {
                Error::new(ErrorKind::Internal, format!("the prompt '{caption}' was not prepared"))
            })?;
            ids.iter_mut().zip(row).for_each(|(ids, row)| ids.extend_from_slice(row));
        }
        let time_ids = drawn.iter().map(|item| item.time_ids).collect();
        let total = models.schedule.len();
        let timesteps = if settings.stratified_timesteps {
            let part = total as f64 / b as f64;
            let places = rng.uniform(b);
            places
                .iter()
                .enumerate()
                .map(|(i, u)| (((i as f64 + f64::from(*u)) * part) as usize).min(total - 1))
                .collect()
        } else {
            rng.randint(0, total as i64, b)?.into_iter().map(|t| t as usize).collect()
        };
        let stack = |part: fn(&CachedLatents) -> &Tensor| -> Result<Tensor> {
            Ok(Tensor::stack(&drawn.iter().map(|item| part(item)).collect::<Vec<_>>(), 0)?)
        };
        let mean = stack(|item| &item.mean)?;
        let mut noise = || -> Result<Tensor> {
            Ok(Tensor::from_vec(rng.randn(mean.elem_count()), mean.shape(), mean.device())?)
        };
        let sampled = (&mean + (stack(|item| &item.std)? * noise()?)?)?;
        let weight = if drawn.iter().any(|item| item.weight.is_some()) {
            let (h, w) = (mean.dim(2)?, mean.dim(3)?);
            let weights = drawn.iter().map(|item| match &item.weight {
                Some(weight) => Ok(weight.clone()),
                None => Ok(Tensor::ones((h, w), DType::F32, mean.device())?),
            });
            Some(Tensor::stack(&weights.collect::<Result<Vec<_>>>()?, 0)?.unsqueeze(1)?)
        } else {
            None
        };
        let noise = noise()?;
        let latents = (sampled * latents.scaling_factor)?;
        Ok(MicroBatch { latents, noise, timesteps, ids, time_ids, weight })
    }

    fn matrix(&self, values: &[f32]) -> Result<Tensor> {
        let text = &self.models.text;
        Ok(Tensor::from_slice(values, (values.len() / text.width(), text.width()), text.device())?)
    }
}

/// A group, each as likely as it has pictures.
fn draw_group(rng: &mut TorchRng, groups: &[Vec<CachedLatents>]) -> Result<usize> {
    if groups.len() == 1 {
        return Ok(0);
    }
    let total: usize = groups.iter().map(Vec::len).sum();
    let mut place = rng.randint(0, total as i64, 1)?[0] as usize;
    for (index, group) in groups.iter().enumerate() {
        if place < group.len() {
            return Ok(index);
        }
        place -= group.len();
    }
    Ok(groups.len() - 1)
}

/// The prompt for a picture: the template, or the picture's own caption, with the placeholder in it. The flag says that it had to be put in
/// front. A template with `[filewords]` takes the caption in.
fn caption(template: &str, own: Option<&str>, placeholder: &str) -> (String, bool) {
    match own {
        Some(own) if !template.contains("[filewords]") => caption_with_word(own, placeholder),
        _ => (fill_template(template, placeholder, own), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_hold_the_placeholder() {
        for (template, own, wanted) in [
            ("a photo of a {}", None, ("a photo of a <x>", false)),
            ("a photo of a {}", Some("a [name] on grass"), ("a <x> on grass", false)),
            ("a photo of a {}", Some("a cat"), ("<x>, a cat", true)),
            ("a photo of [name], [filewords]", Some("in snow"), ("a photo of <x>, in snow", false)),
        ] {
            assert_eq!(caption(template, own, "<x>"), (wanted.0.to_owned(), wanted.1));
        }
    }
}
