//! UniPC: a predictor and a corrector of one form, which share their evaluations (Zhao et al. 2023, "UniPC: A Unified
//! Predictor-Corrector Framework for Fast Sampling of Diffusion Models", algorithms 5 to 8), predicting x₀, of order 3 at most.
//!
//! In the paper's variables, `x/√(1+σ²)` with `α = 1/√(1+σ²)`, `σ := σ·α` and `λ = ln(α/σ)`, a step from λ_0 to λ_t with `h = λ_t - λ_0`
//! and earlier estimates D_k at λ_k is
//!
//! ```text
//! r_k = (λ_k - λ_0)/h               D1_k = (D_k - D_0)/r_k
//! x_t = σ_t/σ_0·x_0 - α_t·(e⁻ʰ - 1)·D_0 - α_t·B(h)·Σ_k ρ_k·D1_k
//! Σ_k ρ_k·r_k^(i-1) = b_i           b_i = i!·ψ_i/B(h),   ψ_0 = e⁻ʰ - 1,   ψ_i = ψ_{i-1}/(-h) - 1/i!
//! ```
//!
//! The predictor has r_1 … r_{p-1} < 0; the corrector takes the step again with the estimate at its end, r_p = 1. A single ρ is ½.
//! B is `-h` ("bh1") or `e⁻ʰ - 1` ("bh2").

use candle_core::Tensor;

use super::{Callback, Model, SamplerNoise, advance, divide, slope, walk};
use crate::Result;

/// The last σ in place of 0, of which there is no logarithm.
const LAST_SIGMA: f64 = 0.001;

/// UniPC with `B(h) = -h`.
pub fn uni_pc(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    multistep(model, &x, sigmas, callback, |h| -h)
}

/// UniPC with `B(h) = e⁻ʰ - 1`.
pub fn uni_pc_bh2(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    multistep(model, &x, sigmas, callback, |h| (-h).exp_m1())
}

/// The order grows from 1 at the first step and falls to 1 at the last. A run of one step has order 0, as in ComfyUI: what comes out is
/// the noise.
fn multistep(
    model: &mut Model<'_>,
    x: &Tensor,
    sigmas: &[f64],
    callback: &mut Callback<'_>,
    b: fn(f64) -> f64,
) -> Result<Tensor> {
    let steps = sigmas.len().saturating_sub(1);
    if steps == 0 {
        return Ok(x.clone());
    }
    let highest = (steps - 1).min(3);
    let order = |step: usize| highest.min(step).min(steps + 1 - step);
    let mut sigmas = sigmas.to_vec();
    if sigmas[steps] == 0.0 {
        sigmas[steps] = LAST_SIGMA;
    }
    let scale = |i: usize| f64::from(((sigmas[i] as f32).powi(2) + 1.0).sqrt());
    let mut predicted = divide(x, scale(0))?;
    let mut corrected = predicted.clone();
    // The newest estimate comes first.
    let mut past: Vec<(Level, Tensor)> = Vec::with_capacity(4);
    walk(model, (&predicted * scale(0))?, &sigmas, callback, |_, i, x, denoised| {
        let (here, next) = (Level::of(sigmas[i]), Level::of(sigmas[i + 1]));
        // The estimate by way of ε, whose rounding shows where α is small.
        let eps = slope(x, denoised, sigmas[i])?;
        let d = divide(&advance(&predicted, &eps, -here.sigma)?, here.alpha)?;
        corrected = match i {
            0 => predicted.clone(),
            _ => step(&corrected, &past[..order(i)], &here, Some(&d), b)?,
        };
        past.insert(0, (here, d));
        past.truncate(3);
        if highest > 0 {
            predicted = step(&corrected, &past[..order(i + 1)], &next, None, b)?;
        }
        Ok((&predicted * scale(i + 1))?)
    })
}

/// A time, by its noise.
struct Level {
    alpha: f64,
    sigma: f64,
    lambda: f64,
}

impl Level {
    /// In f32 like ComfyUI, where 0.001 comes out as 0.000977.
    fn of(sigma: f64) -> Self {
        let ln = |v: f32| f64::from(v).ln() as f32;
        let exp = |v: f32| f64::from(v).exp() as f32;
        let sigma = sigma as f32;
        let log_alpha = 0.5 * ln(1.0 / (sigma * sigma + 1.0));
        let variance = 1.0 - exp(2.0 * log_alpha);
        let lambda = log_alpha - 0.5 * ln(variance);
        Self { alpha: exp(log_alpha).into(), sigma: variance.sqrt().into(), lambda: lambda.into() }
    }
}

/// The step from the newest estimate of `past` to `to`: predicted, or corrected with the estimate at its end. `past` holds as many as the order.
fn step(
    x: &Tensor,
    past: &[(Level, Tensor)],
    to: &Level,
    end: Option<&Tensor>,
    b: fn(f64) -> f64,
) -> Result<Tensor> {
    let (from, d_0) = &past[0];
    let h = to.lambda - from.lambda;
    let (mut r, mut d1) = (Vec::with_capacity(3), Vec::with_capacity(3));
    for (level, d_k) in &past[1..] {
        let r_k = (level.lambda - from.lambda) / h;
        d1.push(((d_k - d_0)? / r_k)?);
        r.push(r_k);
    }
    if let Some(d_t) = end {
        d1.push((d_t - d_0)?);
        r.push(1.0);
    }
    let mut x_t = advance(&(x * (to.sigma / from.sigma))?, d_0, -to.alpha * (-h).exp_m1())?;
    for (rho_k, d1_k) in rho(&r, h, b(h)).into_iter().zip(&d1) {
        x_t = advance(&x_t, d1_k, -to.alpha * b(h) * rho_k)?;
    }
    Ok(x_t)
}

/// The weights ρ by Gauss-Jordan elimination. (The r_k differ, so no pivot is 0.)
fn rho(r: &[f64], h: f64, b_h: f64) -> Vec<f64> {
    let n = r.len();
    if n == 1 {
        return vec![0.5];
    }
    let (mut psi, mut factorial) = ((-h).exp_m1(), 1.0);
    // Row i: r_1^i … r_n^i | b.
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
    for i in 0..n {
        factorial *= (i + 1) as f64;
        psi = psi / -h - 1.0 / factorial;
        let powers = r.iter().map(|r_k| r_k.powi(i as i32));
        rows.push(powers.chain([factorial * psi / b_h]).collect());
    }
    for i in 0..n {
        let pivot = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(&pivot).for_each(|(v, p)| *v -= factor * p);
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}
