//! Samplers of the probability-flow ODE: no noise but the first.

use candle_core::Tensor;

use super::{Callback, Model, SamplerNoise, advance, exponential_step, geometric_mean, slope, walk};
use crate::Result;

/// Euler's method (Karras et al. 2022, algorithm 2 without churn and correction).
pub fn euler(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        advance(x, &slope(x, denoised, sigmas[i])?, sigmas[i + 1] - sigmas[i])
    })
}

/// Heun's method: the mean of the slopes at both ends (Karras et al. 2022, algorithm 2 without churn).
pub fn heun(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let d = slope(x, denoised, from)?;
        let x2 = advance(x, &d, to - from)?;
        if to == 0.0 {
            return Ok(x2);
        }
        let d2 = slope(&x2, &model(&x2, to)?, to)?;
        advance(x, &((d + d2)? / 2.0)?, to - from)
    })
}

/// The midpoint method with the midpoint in log σ (after Lu et al. 2022, DPM-Solver-2).
pub fn dpm_2(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        midpoint(model, x, denoised, sigmas[i], sigmas[i + 1])
    })
}

pub(super) fn midpoint(
    model: &mut Model<'_>,
    x: &Tensor,
    denoised: &Tensor,
    from: f64,
    to: f64,
) -> Result<Tensor> {
    let d = slope(x, denoised, from)?;
    if to == 0.0 {
        return advance(x, &d, -from);
    }
    let middle = geometric_mean(from, to);
    let x2 = advance(x, &d, middle - from)?;
    let d2 = slope(&x2, &model(&x2, middle)?, middle)?;
    advance(x, &d2, to - from)
}

/// Linear multistep (Adams-Bashforth on uneven sigmas) of order 4.
pub fn lms(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    const ORDER: usize = 4;
    // The newest slope comes first.
    let mut slopes: Vec<Tensor> = Vec::with_capacity(ORDER);
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        slopes.truncate(ORDER - 1);
        slopes.insert(0, slope(x, denoised, sigmas[i])?);
        if sigmas[i + 1] == 0.0 {
            return Ok(denoised.clone());
        }
        let mut sum = (&slopes[0] * lms_weight(slopes.len(), sigmas, i, 0))?;
        for (j, d) in slopes.iter().enumerate().skip(1) {
            sum = (sum + (d * lms_weight(slopes.len(), sigmas, i, j))?)?;
        }
        Ok((x + sum)?)
    })
}

/// The integral over the step of the Lagrange polynomial that is 1 at `sigmas[i-j]` and 0 at the others. Its degree is at most 3, for which
/// Gauss-Legendre with two points is exact.
fn lms_weight(order: usize, sigmas: &[f64], i: usize, j: usize) -> f64 {
    let lagrange = |s: f64| -> f64 {
        (0..order)
            .filter(|k| *k != j)
            .map(|k| (s - sigmas[i - k]) / (sigmas[i - j] - sigmas[i - k]))
            .product()
    };
    let (centre, half) = (0.5 * (sigmas[i] + sigmas[i + 1]), 0.5 * (sigmas[i + 1] - sigmas[i]));
    let offset = half / 3f64.sqrt();
    half * (lagrange(centre - offset) + lagrange(centre + offset))
}

/// DPM-Solver++(2M): one evaluation per step, the previous estimate gives the second order (Lu et al. 2022b, algorithm 2).
pub fn dpmpp_2m(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut SamplerNoise,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    let mut previous: Option<Tensor> = None;
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let last = previous.replace(denoised.clone());
        match last {
            Some(last) if to != 0.0 => {
                let h = (from / to).ln();
                let half = h / (2.0 * (sigmas[i - 1] / from).ln());
                let extrapolated = ((denoised * (1.0 + half))? - (last * half)?)?;
                exponential_step(x, &extrapolated, from, to)
            }
            _ => exponential_step(x, denoised, from, to),
        }
    })
}
