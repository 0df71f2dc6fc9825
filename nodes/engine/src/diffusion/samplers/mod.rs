//! Samplers: ways to walk a latent down a list of sigmas. Names and results are ComfyUI's (k-diffusion's), for ε and v models.
//!
//! All have one signature. `model(x, σ)` returns the denoised estimate `D(x; σ)`; `d = (x - D)/σ` is the slope of the probability-flow
//! ODE (Karras et al. 2022, equation 1 with s = 1, σ(t) = t). `x` is `[B, C, h, w]`, already noised to `sigmas[0]`.
//! A list of fewer than two sigmas leaves `x` as it is. Parameters that ComfyUI's KSampler does not offer have its defaults: η = 1,
//! s_noise = 1, no churn. Its `*_gpu` samplers differ in noise that only a GPU draws; they are left out.
//!
//! Results agree with ComfyUI's on a CPU to about 1e-6 (`tests/golden/samplers.py`). They cannot agree to the last bit: torch's exp, log and
//! square root do not round alike on all machines.

mod ancestral;
mod noise;
mod ode;
mod sde;
#[cfg(test)]
mod tests;
mod uni_pc;

use candle_core::Tensor;

pub use ancestral::{ddpm, dpm_2_ancestral, dpmpp_2s_ancestral, euler_ancestral, lcm};
pub use noise::{BrownianNoise, SamplerNoise};
pub use ode::{dpm_2, dpmpp_2m, euler, heun, lms};
pub use sde::{dpmpp_2m_sde, dpmpp_2m_sde_heun, dpmpp_3m_sde, dpmpp_sde};
pub use uni_pc::{uni_pc, uni_pc_bh2};

use crate::{Error, Result};

/// What a sampler tells after each evaluation that begins a step.
#[derive(Debug)]
pub struct StepInfo<'a> {
    /// The step, from 0.
    pub step: usize,
    /// How many there are.
    pub total: usize,
    /// σ of this step.
    pub sigma: f64,
    /// The latent at the step's beginning, of which the model was asked.
    pub x: &'a Tensor,
    /// The estimate of the clean latent: what a preview shows.
    pub denoised: &'a Tensor,
}

/// The denoiser: `(x, σ)` to the estimate of the clean latent.
pub type Model<'a> = dyn FnMut(&Tensor, f64) -> Result<Tensor> + 'a;
/// Told of each step; its error stops the sampler and is returned.
pub type Callback<'a> = dyn FnMut(StepInfo<'_>) -> Result<()> + 'a;

/// A sampler.
pub type SamplerFn =
    fn(&mut Model<'_>, Tensor, &[f64], &mut SamplerNoise, &mut Callback<'_>) -> Result<Tensor>;

/// All samplers, by ComfyUI's names and in its order.
pub const SAMPLERS: &[(&str, SamplerFn)] = &[
    ("euler", euler),
    ("euler_ancestral", euler_ancestral),
    ("heun", heun),
    ("dpm_2", dpm_2),
    ("dpm_2_ancestral", dpm_2_ancestral),
    ("lms", lms),
    ("dpmpp_2s_ancestral", dpmpp_2s_ancestral),
    ("dpmpp_sde", dpmpp_sde),
    ("dpmpp_2m", dpmpp_2m),
    ("dpmpp_2m_sde", dpmpp_2m_sde),
    ("dpmpp_2m_sde_heun", dpmpp_2m_sde_heun),
    ("dpmpp_3m_sde", dpmpp_3m_sde),
    ("ddpm", ddpm),
    ("lcm", lcm),
    // ComfyUI's "ddim" is its Euler; DDIM (Song et al. 2021) with η = 0 is the same step. It differs for inpainting only, where it takes other noise.
    ("ddim", euler),
    ("uni_pc", uni_pc),
    ("uni_pc_bh2", uni_pc_bh2),
];

/// The sampler of that name.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the list of names when there is none.
pub fn sampler(name: &str) -> Result<SamplerFn> {
    SAMPLERS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
        let names: Vec<&str> = SAMPLERS.iter().map(|(n, _)| *n).collect();
        Error::invalid(format!("no sampler is called '{name}'"))
            .help(format!("use one of {}", names.join(", ")))
    })
}

/// ComfyUI makes one step more for these and drops the last sigma above zero, where their midpoint would be useless.
pub(super) fn discards_penultimate(name: &str) -> bool {
    matches!(name, "dpm_2" | "dpm_2_ancestral" | "uni_pc" | "uni_pc_bh2")
}

/// Runs `step(model, i, x, D)` over the sigmas, after evaluating `D = model(x, σ_i)` and telling the callback. The step returns the next x.
fn walk(
    model: &mut Model<'_>,
    mut x: Tensor,
    sigmas: &[f64],
    callback: &mut Callback<'_>,
    mut step: impl FnMut(&mut Model<'_>, usize, &Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let total = sigmas.len().saturating_sub(1);
    for (i, &sigma) in sigmas.iter().enumerate().take(total) {
        let denoised = model(&x, sigma)?;
        callback(StepInfo { step: i, total, sigma, x: &x, denoised: &denoised })?;
        x = step(model, i, &x, &denoised)?;
    }
    Ok(x)
}

/// `(x - denoised) / σ`.
fn slope(x: &Tensor, denoised: &Tensor, sigma: f64) -> Result<Tensor> {
    divide(&(x - denoised)?, sigma)
}

/// `x / by` by a true division as in torch (candle's own multiplies by the reciprocal). With zero SNR a step from σ = 4518 to single
/// digits takes away nearly all of x, and what is left shows the last bit.
fn divide(x: &Tensor, by: f64) -> Result<Tensor> {
    Ok(x.broadcast_div(&Tensor::new(by as f32, x.device())?.to_dtype(x.dtype())?)?)
}

/// `x + d·dt`.
fn advance(x: &Tensor, d: &Tensor, dt: f64) -> Result<Tensor> {
    Ok((x + (d * dt)?)?)
}

/// `x·to/from + D·(1 - to/from)`: the exact solution where D is constant (with λ = -ln σ, `1 - to/from` is `-expm1(-h)`).
fn exponential_step(x: &Tensor, denoised: &Tensor, from: f64, to: f64) -> Result<Tensor> {
    let ratio = to / from;
    Ok(((x * ratio)? + (denoised * (1.0 - ratio))?)?)
}

/// σ halfway in log σ, in f32 as torch has it: noise between two sigmas is rough, so the last bit of σ is seen in it.
fn geometric_mean(a: f64, b: f64) -> f64 {
    let (a, b) = (a.ln() as f32, b.ln() as f32);
    f64::from(f64::from(a + 0.5 * (b - a)).exp() as f32)
}
