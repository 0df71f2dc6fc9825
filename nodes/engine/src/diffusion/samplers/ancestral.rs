//! Samplers that go further down than they must and add fresh noise.

use candle_core::Tensor;

use super::ode::midpoint;
use super::{Callback, Model, SamplerNoise, advance, divide, exponential_step, geometric_mean, slope, walk};
use crate::Result;

/// How far an ancestral step goes down, and how much noise it adds, so that it arrives at `to` (η = 1). In f32, as ComfyUI: where `to` is
/// small the difference of squares is mostly rounding.
pub(super) fn ancestral_step(from: f64, to: f64) -> (f64, f64) {
    let (from, to) = (from as f32, to as f32);
    let up = to.min((to * to * (from * from - to * to) / (from * from)).sqrt());
    ((to * to - up * up).sqrt().into(), up.into())
}

/// Euler's method down to σ_down, then noise up to the next σ.
pub fn euler_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        let (down, up) = ancestral_step(sigmas[i], sigmas[i + 1]);
        if down == 0.0 {
            return Ok(denoised.clone());
        }
        let x = advance(x, &slope(x, denoised, sigmas[i])?, down - sigmas[i])?;
        advance(&x, &noise.fresh()?, up)
    })
}

/// [`dpm_2`](super::dpm_2) down to σ_down, then noise.
pub fn dpm_2_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        let (down, up) = ancestral_step(sigmas[i], sigmas[i + 1]);
        let x = midpoint(model, x, denoised, sigmas[i], down)?;
        if down == 0.0 { Ok(x) } else { advance(&x, &noise.fresh()?, up) }
    })
}

/// DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1 with r = 1/2) down to σ_down, then noise.
pub fn dpmpp_2s_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let (down, up) = ancestral_step(from, to);
        let x = if down == 0.0 {
            advance(x, &slope(x, denoised, from)?, -from)?
        } else {
            let middle = geometric_mean(from, down);
            let x2 = exponential_step(x, denoised, from, middle)?;
            exponential_step(x, &model(&x2, middle)?, from, down)?
        };
        if to > 0.0 { advance(&x, &noise.fresh()?, up) } else { Ok(x) }
    })
}

/// Ancestral sampling in DDPM's own variables (Ho et al. 2020, algorithm 2); their differences from 1 are taken in f32, as in ComfyUI.
pub fn ddpm(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        let (from, to) = (sigmas[i] as f32, sigmas[i + 1] as f32);
        let (abar, abar_next) = (1.0 / (from * from + 1.0), 1.0 / (to * to + 1.0));
        let alpha = abar / abar_next;
        let eps = slope(x, denoised, sigmas[i])?;
        let z = divide(x, (1.0 + from * from).sqrt().into())?;
        let eps = divide(&(eps * f64::from(1.0 - alpha))?, (1.0 - abar).sqrt().into())?;
        let mean = ((z - eps)? * f64::from((1.0 / alpha).sqrt()))?;
        if to == 0.0 {
            return Ok(mean);
        }
        let deviation = ((1.0 - alpha) * (1.0 - abar_next) / (1.0 - abar)).sqrt();
        let z = advance(&mean, &noise.fresh()?, deviation.into())?;
        Ok((z * f64::from((1.0 + to * to).sqrt()))?)
    })
}

/// Latent consistency: jump to the estimate, noise it again to the next σ (Luo et al. 2023, algorithm 3).
pub fn lcm(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, _, denoised| {
        if sigmas[i + 1] > 0.0 {
            advance(denoised, &noise.fresh()?, sigmas[i + 1])
        } else {
            Ok(denoised.clone())
        }
    })
}
