//! From noise and conditioning to latents: the loop that joins the denoiser, the sigmas and a sampler.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::diffusion::samplers::Callback;
use crate::diffusion::{
    NoiseSchedule, TorchRng, ancestral_noise, cfg_combine, denoised, is_max_denoise, ksampler_sigmas,
    sampler, scale_input, scale_noise,
};
use crate::models::UNet2DConditionModel;
use crate::ops::Tape;
use crate::{CancelToken, Error, Result};

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

/// What to sample; the fields are those of ComfyUI's KSampler.
#[derive(Debug, Clone)]
pub struct SampleRequest {
    /// Seed of the first noise (torch's CPU generator, the whole batch in one draw) and, plus one, of an ancestral sampler's noise.
    pub seed: u64,
    /// Steps, 1..=10 000.
    pub steps: usize,
    /// Guidance: 1 leaves the negative conditioning out.
    pub cfg: f64,
    /// A name of [`SAMPLERS`](crate::diffusion::SAMPLERS).
    pub sampler_name: String,
    /// A name of [`SCHEDULERS`](crate::diffusion::SCHEDULERS).
    pub scheduler: String,
    /// How much of the way from noise is walked: 1 all, 0 nothing.
    pub denoise: f64,
    /// `[1 or B, T, D]`: what the picture should show.
    pub positive: Tensor,
    /// `[1 or B, T′, D]`: what it should not.
    pub negative: Tensor,
    /// `[B, 4, h, w]`, unscaled.
    pub latents: Tensor,
}

impl Denoiser {
    /// Sample as ComfyUI's KSampler would, to unscaled latents `[B, 4, h, w]` in f32.
    pub fn sample(
        &self,
        request: &SampleRequest,
        cancel: &CancelToken,
        callback: &mut Callback<'_>,
    ) -> Result<Tensor> {
        let sigmas = ksampler_sigmas(
            &self.schedule,
            &request.sampler_name,
            &request.scheduler,
            request.steps,
            request.denoise,
        )?;
        if sigmas.len() < 2 {
            return Ok(request.latents.clone());
        }
        let count = request.latents.elem_count();
        let noise = Tensor::from_vec(
            TorchRng::new(request.seed).randn(count),
            request.latents.shape(),
            self.unet.device(),
        )?;
        self.sample_with(request, &sigmas, &noise, cancel, callback)
    }

    /// The same from explicit `sigmas` (falling, the last usually 0) and first `noise` (standard normal, in the latents' shape).
    pub fn sample_with(
        &self,
        request: &SampleRequest,
        sigmas: &[f64],
        noise: &Tensor,
        cancel: &CancelToken,
        callback: &mut Callback<'_>,
    ) -> Result<Tensor> {
        let run = sampler(&request.sampler_name)?;
        let Some(first) = sigmas.first() else { return Ok(request.latents.clone()) };
        let device = self.unet.device();
        let latents = (request.latents.to_device(device)?.to_dtype(DType::F32)? * self.scaling_factor)?;
        let batch = latents.dim(0)?;
        let positive = self.context(&request.positive, batch, "positive")?;
        let negative = self.context(&request.negative, batch, "negative")?;
        let x = scale_noise(*first, noise, &latents, is_max_denoise(self.schedule.sigma_max(), *first))?;
        let mut more_noise = ancestral_noise(request.seed, latents.dims(), device);
        let mut model = |x: &Tensor, sigma: f64| {
            if request.cfg == 1.0 {
                return self.denoised(x, sigma, &positive, cancel);
            }
            // One pass over both where the prompts are equally long, else one after the other.
            if positive.dim(1)? == negative.dim(1)? {
                let both = self.denoised(
                    &Tensor::cat(&[x, x], 0)?,
                    sigma,
                    &Tensor::cat(&[&positive, &negative], 0)?,
                    cancel,
                )?;
                return cfg_combine(&both.narrow(0, 0, batch)?, &both.narrow(0, batch, batch)?, request.cfg);
            }
            let cond = self.denoised(x, sigma, &positive, cancel)?;
            cfg_combine(&cond, &self.denoised(x, sigma, &negative, cancel)?, request.cfg)
        };
        let latents = run(&mut model, x, sigmas, &mut more_noise, callback)?;
        Ok((latents / self.scaling_factor)?.contiguous()?)
    }

    /// The estimate of the clean (scaled) latents from `x = x₀ + σ·ε`.
    fn denoised(&self, x: &Tensor, sigma: f64, context: &Tensor, cancel: &CancelToken) -> Result<Tensor> {
        let t = self.schedule.sigma_to_t(sigma) as f64;
        let input = scale_input(x, sigma)?.to_dtype(self.unet.compute_dtype())?;
        let timesteps = vec![t; x.dim(0)?];
        let tape = Tape::new(cancel.clone());
        let output = self.unet.forward(&tape, &input.into(), &timesteps, &context.clone().into())?;
        denoised(self.schedule.prediction(), x, &output.into_value().to_dtype(DType::F32)?, sigma)
    }

    fn context(&self, cond: &Tensor, batch: usize, what: &str) -> Result<Tensor> {
        let (count, tokens, d) = cond.dims3()?;
        if count != 1 && count != batch {
            return Err(Error::invalid(format!(
                "the {what} conditioning is for {count} pictures, but {batch} are sampled"
            )));
        }
        let cond = cond.to_device(self.unet.device())?.to_dtype(self.unet.compute_dtype())?;
        Ok(cond.broadcast_as((batch, tokens, d))?.contiguous()?)
    }
}
