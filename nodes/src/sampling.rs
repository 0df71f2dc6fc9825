//! A whole sampling run: the UNet with guidance, in the samplers' terms. Knows nothing of hosts.

use candle_core::{DType, Tensor};
use vocable_engine::diffusion::{
    TorchRng, ancestral_noise, cfg_combine, denoised, is_max_denoise, ksampler_sigmas, sampler, scale_input,
    scale_noise,
};
use vocable_engine::ops::Tape;
use vocable_engine::{CancelToken, Error, Result};

use crate::handles::Model;

/// Latent places that are denoised at once: prompt and negative prompt of a picture of 512 × 512, twice.
const PLACES_AT_ONCE: usize = 4 * 64 * 64;

/// What ComfyUI's KSampler asks for.
#[derive(Clone, Debug)]
pub(crate) struct Sampling {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) cfg: f64,
    pub(crate) sampler: String,
    pub(crate) scheduler: String,
    pub(crate) denoise: f64,
}

/// What the picture should and should not show: encoded prompts `[1 or B, T, D]`, of which the mean is taken.
#[derive(Clone, Debug)]
pub(crate) struct Guidance {
    pub(crate) positive: Vec<Tensor>,
    pub(crate) negative: Vec<Tensor>,
}

/// The noise that ComfyUI draws for a batch of latents of that shape.
pub(crate) fn first_noise(seed: u64, shape: &[usize]) -> Result<Tensor> {
    let noise = TorchRng::new(seed).randn(shape.iter().product());
    Ok(Tensor::from_vec(noise, shape, &candle_core::Device::Cpu)?)
}

/// Noise `latent [B, C, h, w]` (unscaled) and denoise it again; the result is unscaled too. `on_step(done, total)` is told of each step.
pub(crate) fn sample(
    model: &Model,
    request: &Sampling,
    guidance: &Guidance,
    latent: &Tensor,
    cancel: &CancelToken,
    on_step: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Tensor> {
    let walk = sampler(&request.sampler)?;
    let schedule = &model.schedule;
    let sigmas =
        ksampler_sigmas(schedule, &request.sampler, &request.scheduler, request.steps, request.denoise)?;
    let Some(&first) = sigmas.first() else { return Ok(latent.clone()) };

    let device = model.unet.device();
    let noise = first_noise(request.seed, latent.dims())?.to_device(device)?;
    let latent = (latent.to_device(device)?.to_dtype(DType::F32)? * model.latent_scale)?;
    let x = scale_noise(first, &noise, &latent, is_max_denoise(schedule.sigma_max(), first))?;
    let mut denoiser = Denoiser::new(model, guidance, request.cfg, latent.dim(0)?, cancel)?;
    let mut more_noise = ancestral_noise(request.seed, latent.dims(), device);
    let x = walk(&mut |x, sigma| denoiser.denoise(x, sigma), x, &sigmas, &mut more_noise, &mut |info| {
        on_step(info.step + 1, info.total);
        cancel.check()
    })?;
    if !all_finite(&x)? {
        return Err(Error::new(vocable_engine::ErrorKind::Internal, "sampling left the finite numbers")
            .help("lower cfg, use more steps, or load the checkpoint with precision f32"));
    }
    Ok((x / model.latent_scale)?)
}

fn all_finite(x: &Tensor) -> Result<bool> {
    // NaN and infinity survive a sum of absolute values.
    Ok(x.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

/// The guided UNet as a function of a noisy latent and σ.
struct Denoiser<'a> {
    model: &'a Model,
    cfg: f64,
    contexts: Vec<Tensor>,
    positives: usize,
    tape: Tape,
}

impl<'a> Denoiser<'a> {
    fn new(
        model: &'a Model,
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
            let context = context.to_device(model.unet.device())?.to_dtype(model.unet.compute_dtype())?;
            repeat_to(&context, batch)
        });
        let contexts = contexts.collect::<Result<_>>()?;
        let tape = Tape::new(cancel.clone());
        Ok(Self { model, cfg, contexts, positives: guidance.positive.len(), tape })
    }

    fn denoise(&mut self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let timestep = self.model.schedule.sigma_to_t(sigma) as f64;
        let input = scale_input(x, sigma)?.to_dtype(self.model.unet.compute_dtype())?;
        let outputs = self.outputs(&input, timestep)?;
        let prediction = self.model.schedule.prediction();
        let estimate = |outputs: &[Tensor]| denoised(prediction, x, &mean(outputs)?, sigma);
        let (positive, negative) = outputs.split_at(self.positives);
        let positive = estimate(positive)?;
        if negative.is_empty() {
            Ok(positive)
        } else {
            cfg_combine(&positive, &estimate(negative)?, self.cfg)
        }
    }

    /// The UNet's output under each context; contexts of one length go through it together as far as [`PLACES_AT_ONCE`] allows.
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
            let output = self.model.unet.forward(&self.tape, &inputs.into(), &timesteps, &context.into())?;
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
    use candle_core::Device;

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
    fn noise_is_torchs() {
        let noise = first_noise(0, &[1, 1, 1, 3]).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = [1.540_996, -0.293_428_9, -2.178_789_4];
        assert!(
            noise.iter().zip(wanted).all(|(noise, wanted): (&f32, f32)| (noise - wanted).abs() < 1e-6),
            "{noise:?}"
        );
    }
}
