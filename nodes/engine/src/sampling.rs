//! From noise and conditioning to latents: the loop that joins the denoiser, guidance, the sigmas and a sampler.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::diffusion::samplers::Callback;
use crate::diffusion::{
    NoiseSchedule, TorchRng, ancestral_noise, cfg_combine, denoised, is_max_denoise, ksampler_sigmas,
    sampler, scale_input, scale_noise,
};
use crate::models::UNet2DConditionModel;
use crate::ops::Tape;
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
    /// Seed of the first noise (torch's CPU generator, the whole batch in one draw) and, plus one, of an ancestral sampler's noise.
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

/// What the pictures should and should not show: encoded prompts `[1 or B, T, D]`, of whose estimates the mean is taken.
#[derive(Debug, Clone)]
pub struct Guidance {
    /// At least one.
    pub positive: Vec<Tensor>,
    /// At least one; not used at `cfg` 1.
    pub negative: Vec<Tensor>,
}

/// The first noise that ComfyUI draws for latents of that shape.
pub fn first_noise(seed: u64, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(TorchRng::new(seed).randn(shape.iter().product()), shape, &Device::Cpu)?)
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
        let mut more_noise = ancestral_noise(how.seed, latents.dims(), device);
        let x = walk(&mut |x, sigma| guided.denoise(x, sigma), x, sigmas, &mut more_noise, &mut |info| {
            callback(info)?;
            cancel.check()
        })?;
        // NaN and infinity survive a sum of absolute values.
        if !x.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
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
    contexts: Vec<Tensor>,
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
        let contexts = guidance.positive.iter().chain(negative).map(|context| {
            let context =
                context.to_device(denoiser.unet.device())?.to_dtype(denoiser.unet.compute_dtype())?;
            repeat_to(&context, batch)
        });
        let contexts = contexts.collect::<Result<_>>()?;
        let tape = Tape::new(cancel.clone());
        Ok(Self { denoiser, cfg, contexts, positives: guidance.positive.len(), tape })
    }

    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let schedule = &self.denoiser.schedule;
        let timestep = schedule.sigma_to_t(sigma) as f64;
        let input = scale_input(x, sigma)?.to_dtype(self.denoiser.unet.compute_dtype())?;
        let outputs = self.outputs(&input, timestep)?;
        let estimate = |outputs: &[Tensor]| denoised(schedule.prediction(), x, &mean(outputs)?, sigma);
        let (positive, negative) = outputs.split_at(self.positives);
        let positive = estimate(positive)?;
        if negative.is_empty() {
            Ok(positive)
        } else {
            cfg_combine(&positive, &estimate(negative)?, self.cfg)
        }
    }

    /// The network's output under each context; contexts of one length go through it together as far as [`PLACES_AT_ONCE`] allows.
    fn outputs(&self, input: &Tensor, timestep: f64) -> Result<Vec<Tensor>> {
        let (batch, _, height, width) = input.dims4()?;
        let at_once = (PLACES_AT_ONCE / (batch * height * width).max(1)).max(1);
        let mut outputs = Vec::with_capacity(self.contexts.len());
        while outputs.len() < self.contexts.len() {
            let rest = &self.contexts[outputs.len()..];
            let alike = rest.iter().take_while(|context| context.dims() == rest[0].dims()).count();
            let group = &rest[..alike.min(at_once)];
            let context = Tensor::cat(group, 0)?.contiguous()?;
            let inputs = Tensor::cat(&vec![input; group.len()], 0)?.contiguous()?;
            let timesteps = vec![timestep; batch * group.len()];
            let output =
                self.denoiser.unet.forward(&self.tape, &inputs.into(), &timesteps, &context.into())?;
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
}
