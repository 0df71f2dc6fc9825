//! Between the UNet's parametrisation and the samplers': what goes in, what comes out, guidance, first noise.
//!
//! `sigma` is the k-diffusion σ; latents are `[B, C, h, w]` scaled for the UNet. Formulas as in ComfyUI's `model_sampling.py`
//! (`EPS`, `V_PREDICTION`, σ_data = 1), which are those of Karras et al. 2022, table 1, column VP.

use candle_core::Tensor;

use super::PredictionType;
use crate::Result;

/// What the UNet sees: `c_in·x = x / √(σ²+1)`, the variance-preserving latent.
pub fn scale_input(x: &Tensor, sigma: f64) -> Result<Tensor> {
    Ok((x / (sigma * sigma + 1.0).sqrt())?)
}

/// The estimate of the clean latent `x₀` from the UNet's `output` for the *unscaled* `x`:
/// ε: `x - σ·output`; v: `x/(σ²+1) - output·σ/√(σ²+1)`.
pub fn denoised(prediction: PredictionType, x: &Tensor, output: &Tensor, sigma: f64) -> Result<Tensor> {
    let variance = sigma * sigma + 1.0;
    Ok(match prediction {
        PredictionType::Epsilon => (x - (output * sigma)?)?,
        PredictionType::VPrediction => ((x / variance)? - (output * (sigma / variance.sqrt()))?)?,
    })
}

/// Classifier-free guidance (Ho & Salimans 2022) on denoised estimates: `uncond + cfg·(cond - uncond)`. At `cfg = 1` the
/// result is `cond`, and a caller may leave the second evaluation out, as ComfyUI does.
pub fn cfg_combine(cond: &Tensor, uncond: &Tensor, cfg: f64) -> Result<Tensor> {
    Ok((uncond + ((cond - uncond)? * cfg)?)?)
}

/// Whether sampling starts from pure noise: the first sigma is the schedule's largest (to a relative 1e-5) or above it.
pub fn is_max_denoise(sigma_max: f64, first_sigma: f64) -> bool {
    (sigma_max - first_sigma).abs() <= 1e-5 * sigma_max.abs().max(first_sigma.abs())
        || first_sigma > sigma_max
}

/// The latent that a sampler starts from: `latent + σ·noise`, or with `max_denoise` `latent + √(1+σ²)·noise`, which makes up for the
/// signal that training still had at the last timestep.
pub fn scale_noise(sigma: f64, noise: &Tensor, latent: &Tensor, max_denoise: bool) -> Result<Tensor> {
    let factor = if max_denoise { (1.0 + sigma * sigma).sqrt() } else { sigma };
    Ok(((noise * factor)? + latent)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn t(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn close(a: &Tensor, b: &[f32]) {
        for (a, b) in a.to_vec1::<f32>().unwrap().iter().zip(b) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn a_perfect_model_gives_x0() {
        let (x0, noise) = (t(&[0.5, -1.0, 2.0]), t(&[1.0, 0.25, -0.5]));
        for sigma in [0.03, 1.0, 14.6] {
            let x = scale_noise(sigma, &noise, &x0, false).unwrap();
            close(&denoised(PredictionType::Epsilon, &x, &noise, sigma).unwrap(), &[0.5, -1.0, 2.0]);
            let abar = 1.0 / (sigma * sigma + 1.0);
            let v = ((&noise * abar.sqrt()).unwrap() - (&x0 * (1.0 - abar).sqrt()).unwrap()).unwrap();
            close(&denoised(PredictionType::VPrediction, &x, &v, sigma).unwrap(), &[0.5, -1.0, 2.0]);
            // The scaled input is DDPM's z_t.
            let z = ((&x0 * abar.sqrt()).unwrap() + (&noise * (1.0 - abar).sqrt()).unwrap()).unwrap();
            close(&scale_input(&x, sigma).unwrap(), &z.to_vec1::<f32>().unwrap());
        }
    }

    #[test]
    fn guidance_and_first_noise() {
        close(&cfg_combine(&t(&[2.0]), &t(&[1.0]), 7.5).unwrap(), &[8.5]);
        close(&cfg_combine(&t(&[2.0]), &t(&[1.0]), 1.0).unwrap(), &[2.0]);
        assert!(is_max_denoise(14.614642, 14.614642 * (1.0 - 5e-6)));
        assert!(is_max_denoise(14.6, 20.0));
        assert!(!is_max_denoise(14.614642, 14.61));
        close(&scale_noise(2.0, &t(&[1.0]), &t(&[3.0]), true).unwrap(), &[3.0 + 5f32.sqrt()]);
    }
}
