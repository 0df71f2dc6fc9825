//! From noise and conditioning to latents: the loop that joins the denoiser, guidance, the sigmas and a sampler.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::diffusion::samplers::Callback;
use crate::diffusion::{
    NoiseSchedule, SamplerNoise, TorchRng, cfg_combine, denoised, is_max_denoise, ksampler_sigmas, sampler,
    scale_input, scale_noise,
};
use crate::models::{AddedConditioning, TimeIds, UNet2DConditionModel};
use crate::ops::{Tape, all_finite};
use crate::{CancelToken, Error, ErrorKind, Result};

/// Latent places that are denoised at once: prompt and negative prompt of a picture of 512 × 512, twice.
const PLACES_AT_ONCE: usize = 4 * 64 * 64;

/// A denoiser with what it must be used with.
#[derive(Debug, Clone)]
pub struct Denoiser {
    /// The network.
    pub unet: Arc<UNet2DConditionModel>,
    /// The noise schedule that it was trained with.
    pub schedule: Arc<NoiseSchedule>,
    /// s: latents outside the denoiser are unscaled; the network sees them times s.
    pub scaling_factor: f64,
}

/// How to sample; the fields are those of ComfyUI's KSampler.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Seed of the first noise (torch's CPU generator, the whole batch in one draw) and, plus one, of an ancestral sampler's noise; itself, of an SDE
    /// sampler's Brownian path.
    pub seed: u64,
    /// Steps, 1..=10 000.
    pub steps: usize,
    /// Guidance: 1 leaves the negative conditioning out.
    pub cfg: f64,
    /// A name of [`SAMPLERS`](crate::diffusion::SAMPLERS).
    pub sampler: String,
    /// A name of [`SCHEDULERS`](crate::diffusion::SCHEDULERS).
    pub scheduler: String,
    /// How much of the way from noise is walked: 1 all, 0 nothing.
    pub denoise: f64,
}

/// An encoded prompt.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// `[1 or B, T, D]`: the text encoders' states.
    pub hidden: Tensor,
    /// `[1 or B, P]`: the pooled and projected state, for SDXL.
    pub pooled: Option<Tensor>,
    /// The sizes that SDXL is told; `None` is a whole picture of the size that is painted, as in ComfyUI.
    pub time_ids: Option<TimeIds>,
}

impl From<Tensor> for Prompt {
    /// States alone, `[1 or B, T, D]`.
    fn from(hidden: Tensor) -> Self {
        Self { hidden, pooled: None, time_ids: None }
    }
}

/// What the pictures should and should not show: encoded prompts, of whose estimates the mean is taken.
#[derive(Debug, Clone)]
pub struct Guidance {
    /// At least one.
    pub positive: Vec<Prompt>,
    /// At least one; not used at `cfg` 1.
    pub negative: Vec<Prompt>,
}

/// The first noise that ComfyUI draws for latents of that shape.
pub fn first_noise(seed: u64, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(TorchRng::new(seed).randn(shape.iter().product()), shape, &Device::Cpu)?)
}

/// The first noise of pictures that were taken out of a batch: `rows[i]` is the place in that batch of picture i of `shape [B, …]`. Noise is drawn
/// place by place up to the last one that is wanted, as ComfyUI's `prepare_noise` does for a latent's `batch_index`.
pub fn noise_of_rows(seed: u64, shape: &[usize], rows: &[usize], cancel: &CancelToken) -> Result<Tensor> {
    let mut rng = TorchRng::new(seed);
    let count: usize = shape.iter().skip(1).product();
    let mut drawn = BTreeMap::new();
    for row in 0..=rows.iter().copied().max().unwrap_or(0) {
        cancel.check()?;
        let noise = rng.randn(count);
        if rows.contains(&row) {
            drawn.insert(row, noise);
        }
    }
    let values: Vec<f32> = rows.iter().flat_map(|row| &drawn[row]).copied().collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

impl Denoiser {
    /// Noise `latents [B, C, h, w]` (unscaled; zeros for a new picture) and denoise them again, as ComfyUI's KSampler would. The result is
    /// unscaled and in f32.
    pub fn sample(
        &self,
        how: &Sampling,
        guidance: &Guidance,
        latents: &Tensor,
        cancel: &CancelToken,
        callback: &mut Callback<'_>,
    ) -> Result<Tensor> {
        let sigmas = ksampler_sigmas(&self.schedule, &how.sampler, &how.scheduler, how.steps, how.denoise)?;
        if sigmas.len() < 2 {
            return Ok(latents.clone());
        }
        let noise = first_noise(how.seed, latents.dims())?;
        self.sample_with(how, guidance, latents, &sigmas, &noise, cancel, callback)
    }

    /// The same with explicit `sigmas` (falling, the last usually 0) and first `noise` (standard normal, in the latents' shape).
    #[allow(clippy::too_many_arguments)]
    pub fn sample_with(
        &self,
        how: &Sampling,
        guidance: &Guidance,
        latents: &Tensor,
        sigmas: &[f64],
        noise: &Tensor,
        cancel: &CancelToken,
        callback: &mut Callback<'_>,
    ) -> Result<Tensor> {
        let walk = sampler(&how.sampler)?;
        let Some(&first) = sigmas.first() else { return Ok(latents.clone()) };
        let device = self.unet.device();
        let latents = (latents.to_device(device)?.to_dtype(DType::F32)? * self.scaling_factor)?;
        let x = scale_noise(
            first,
            &noise.to_device(device)?,
            &latents,
            is_max_denoise(self.schedule.sigma_max(), first),
        )?;
        let guided = Guided::new(self, guidance, how.cfg, latents.dim(0)?, cancel)?;
        let mut more_noise = SamplerNoise::new(how.seed, latents.dims(), device);
        let x = walk(&mut |x, sigma| guided.denoise(x, sigma), x, sigmas, &mut more_noise, &mut |info| {
            callback(info)?;
            cancel.check()
        })?;
        if !all_finite(&x)? {
            return Err(Error::new(ErrorKind::Internal, "sampling left the finite numbers")
                .help("lower cfg, use more steps, or load the checkpoint with precision f32"));
        }
        Ok((x / self.scaling_factor)?.contiguous()?)
    }
}

/// The guided network as a function of a noisy latent and σ.
struct Guided<'a> {
    denoiser: &'a Denoiser,
    cfg: f64,
    prompts: Vec<Prompt>,
    positives: usize,
    tape: Tape,
}

impl<'a> Guided<'a> {
    fn new(
        denoiser: &'a Denoiser,
        guidance: &Guidance,
        cfg: f64,
        batch: usize,
        cancel: &CancelToken,
    ) -> Result<Self> {
        if guidance.positive.is_empty() || guidance.negative.is_empty() {
            return Err(Error::invalid("the conditioning is empty: at least one prompt is needed"));
        }
        let unguided = (cfg - 1.0).abs() < 1e-9;
        let negative = if unguided { &[][..] } else { &guidance.negative };
        // Once for all steps.
        let ready = |x: &Tensor| {
            let x = x.to_device(denoiser.unet.device())?.to_dtype(denoiser.unet.compute_dtype())?;
            repeat_to(&x, batch)
        };
        let prompts = guidance.positive.iter().chain(negative).map(|prompt| {
            Ok(Prompt {
                hidden: ready(&prompt.hidden)?,
                pooled: prompt.pooled.as_ref().map(ready).transpose()?,
                time_ids: prompt.time_ids,
            })
        });
        let prompts = prompts.collect::<Result<_>>()?;
        let tape = Tape::new(cancel.clone());
        Ok(Self { denoiser, cfg, prompts, positives: guidance.positive.len(), tape })
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let schedule = &self.denoiser.schedule;
        let timestep = schedule.sigma_to_t(sigma) as f64;
        let outputs = self.outputs(&scale_input(x, sigma)?, timestep)?;
        let estimate = |outputs: &[Tensor]| denoised(schedule.prediction(), x, &mean(outputs)?, sigma);
        let (positive, negative) = outputs.split_at(self.positives);
        let positive = estimate(positive)?;
        if negative.is_empty() {
            Ok(positive)
        } else {
            cfg_combine(&positive, &estimate(negative)?, self.cfg)
        }
    }

    /// The network's output for each prompt; prompts of one length go through it together as far as [`PLACES_AT_ONCE`] allows.
    fn outputs(&self, input: &Tensor, timestep: f64) -> Result<Vec<Tensor>> {
        let (batch, _, height, width) = input.dims4()?;
        let at_once = (PLACES_AT_ONCE / (batch * height * width).max(1)).max(1);
        let whole = [8 * height, 8 * width, 0, 0, 8 * height, 8 * width].map(|size| size as f64);
        let mut outputs = Vec::with_capacity(self.prompts.len());
        while outputs.len() < self.prompts.len() {
            let rest = &self.prompts[outputs.len()..];
            let shapes = |prompt: &Prompt| {
                (prompt.hidden.dims().to_vec(), prompt.pooled.as_ref().map(|pooled| pooled.dims().to_vec()))
            };
            let alike = rest.iter().take_while(|prompt| shapes(prompt) == shapes(&rest[0])).count();
            let group = &rest[..alike.min(at_once)];
            let joined =
                |parts: Vec<&Tensor>| -> Result<Tensor> { Ok(Tensor::cat(&parts, 0)?.contiguous()?) };
            let context = joined(group.iter().map(|prompt| &prompt.hidden).collect())?;
            let pooled: Vec<&Tensor> = group.iter().filter_map(|prompt| prompt.pooled.as_ref()).collect();
            let added = if pooled.is_empty() {
                None
            } else {
                let sizes = group.iter().flat_map(|prompt| vec![prompt.time_ids.unwrap_or(whole); batch]);
                Some(AddedConditioning { text_embeds: joined(pooled)?.into(), time_ids: sizes.collect() })
            };
            let inputs = joined(vec![input; group.len()])?.into();
            let timesteps = vec![timestep; batch * group.len()];
            let unet = &self.denoiser.unet;
            let output = unet.forward(&self.tape, &inputs, &timesteps, &context.into(), added.as_ref())?;
            let output = output.into_value().to_dtype(DType::F32)?;
            for index in 0..group.len() {
                outputs.push(output.narrow(0, index * batch, batch)?);
            }
        }
        Ok(outputs)
    }
}

fn mean(outputs: &[Tensor]) -> Result<Tensor> {
    let mut sum = outputs[0].clone();
    for output in &outputs[1..] {
        sum = (sum + output)?;
    }
    Ok(if outputs.len() == 1 { sum } else { (sum / outputs.len() as f64)? })
}

/// As many rows as there are pictures: rows too many are left out, rows that are missing are taken from the beginning again.
fn repeat_to(context: &Tensor, batch: usize) -> Result<Tensor> {
    let rows = context.dim(0)?;
    if rows == 0 {
        return Err(Error::invalid("the conditioning holds a prompt without rows"));
    }
    let times = batch.div_ceil(rows);
    let many = if times > 1 { Tensor::cat(&vec![context; times], 0)? } else { context.clone() };
    Ok(many.narrow(0, 0, batch)?.contiguous()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_repeated_to_the_batch() {
        let context = Tensor::arange(0f32, 6.0, &Device::Cpu).unwrap().reshape((3, 1, 2)).unwrap();
        let first = |batch| {
            let rows = repeat_to(&context, batch).unwrap().narrow(2, 0, 1).unwrap();
            rows.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(first(2), [0.0, 2.0]);
        assert_eq!(first(5), [0.0, 2.0, 4.0, 0.0, 2.0]);
    }

    #[test]
    fn noise_of_chosen_rows_is_that_of_the_batch() {
        let cancel = CancelToken::new();
        let rows = |tensor: &Tensor| tensor.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
        let noise =
            |shape: &[usize], chosen: &[usize]| rows(&noise_of_rows(7, shape, chosen, &cancel).unwrap());
        // Rows of whole blocks of 16 numbers are the same drawn one by one or all at once.
        let batch = rows(&first_noise(7, &[3, 4, 2, 2]).unwrap());
        let chosen = noise(&[3, 4, 2, 2], &[2, 0, 2]);
        assert_eq!(chosen, [batch[2].clone(), batch[0].clone(), batch[2].clone()]);
        // Other rows are drawn one by one.
        let mut rng = TorchRng::new(7);
        let drawn: Vec<Vec<f32>> = (0..4).map(|_| rng.randn(4 * 3 * 3)).collect();
        assert_eq!(noise(&[2, 4, 3, 3], &[3, 1]), [drawn[3].clone(), drawn[1].clone()]);
        cancel.cancel();
        assert!(noise_of_rows(7, &[1, 4, 2, 2], &[usize::MAX], &cancel).is_err());
    }
}
