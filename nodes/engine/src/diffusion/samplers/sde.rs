//! Samplers of the reverse SDE: SDE-DPM-Solver++ (Lu et al. 2022b, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
//! Probabilistic Models") with noise along a Brownian path, in the forms of K. Crowson's k-diffusion.
//!
//! With λ = -ln σ and `h = λ_t - λ_s` the solution from σ_s to σ_t (η = 1), where D is constant, is
//!
//! ```text
//! x_t = e⁻²ʰ·x_s + (1 - e⁻²ʰ)·D + σ_t·√(1 - e⁻²ʰ)·z,      e⁻²ʰ = (σ_t/σ_s)²
//! ```
//!
//! An [`exponential_step`] between squared sigmas, that is, and noise. The multistep forms add what D's slope, and its curvature, add
//! to the integral. A step to σ = 0 returns D.

use candle_core::Tensor;

use super::ancestral::ancestral_step;
use super::{Callback, Model, SamplerNoise, advance, exponential_step, geometric_mean, walk};
use crate::Result;

/// DPM-Solver++ of second order with one stage at r = 1/2, each stage an ancestral step of its own.
pub fn dpmpp_sde(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    let path = noise.brownian(sigmas);
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        if to == 0.0 {
            return Ok(denoised.clone());
        }
        let arrive = |denoised: &Tensor, to: f64| {
            let (down, up) = ancestral_step(from, to);
            advance(&exponential_step(x, denoised, from, down)?, &path.between(from, to)?, up)
        };
        let middle = geometric_mean(from, to);
        let x2 = arrive(denoised, middle)?;
        arrive(&model(&x2, middle)?, to)
    })
}

/// DPM-Solver++(2M) SDE: the slope of D from the estimate before, by the midpoint rule.
pub fn dpmpp_2m_sde(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    multistep(model, x, sigmas, noise, callback, 2, |h| -0.5 * (-h).exp_m1())
}

/// DPM-Solver++(2M) SDE: the slope of D from the estimate before, integrated exactly.
pub fn dpmpp_2m_sde_heun(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    multistep(model, x, sigmas, noise, callback, 2, phi_2)
}

/// DPM-Solver++(3M) SDE: slope and curvature of D from the two estimates before, integrated exactly.
pub fn dpmpp_3m_sde(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    multistep(model, x, sigmas, noise, callback, 3, phi_2)
}

/// `1 - (1 - e⁻ʰ)/h`.
fn phi_2(h: f64) -> f64 {
    (-h).exp_m1() / h + 1.0
}

/// One evaluation per step; the slope counts `weight(2h)`. In units of the step, with `r_k` the lengths of the steps before:
///
/// ```text
/// d₀ = (D_i - D_{i-1})/r₀       d₁ = (D_{i-1} - D_{i-2})/r₁
/// order 2:  weight·d₀           order 3:  φ₂·(d₀ + r₀·c) - φ₃·c,   c = (d₀ - d₁)/(r₀ + r₁),   φ₃ = φ₂/2h - ½
/// ```
fn multistep(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &SamplerNoise,
    callback: &mut Callback<'_>,
    order: usize,
    weight: fn(f64) -> f64,
) -> Result<Tensor> {
    let path = noise.brownian(sigmas);
    // The newest estimate comes first.
    let mut estimates: Vec<Tensor> = Vec::with_capacity(order);
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        estimates.insert(0, denoised.clone());
        estimates.truncate(order);
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        if to == 0.0 {
            return Ok(denoised.clone());
        }
        let h = (from / to).ln();
        let r = |k: usize| (sigmas[i - k - 1] / sigmas[i - k]).ln() / h;
        let d = |k: usize| -> Result<Tensor> { Ok(((&estimates[k] - &estimates[k + 1])? / r(k))?) };
        let mut next = exponential_step(x, denoised, from * from, to * to)?;
        if estimates.len() == 2 {
            next = advance(&next, &d(0)?, weight(2.0 * h))?;
        } else if estimates.len() == 3 {
            let (r0, r1, d0) = (r(0), r(1), d(0)?);
            let c = ((&d0 - d(1)?)? / (r0 + r1))?;
            let (phi_2, phi_3) = (phi_2(2.0 * h), phi_2(2.0 * h) / (2.0 * h) - 0.5);
            next = advance(&advance(&next, &d0, phi_2)?, &c, phi_2 * r0 - phi_3)?;
        }
        advance(&next, &path.between(from, to)?, to * (-(-2.0 * h).exp_m1()).sqrt())
    })
}
