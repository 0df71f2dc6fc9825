//! Samplers: ways to walk a latent down a list of sigmas. Names and results are ComfyUI's (k-diffusion's), for ε and v models.
//!
//! All have one signature. `model(x, σ)` returns the denoised estimate `D(x; σ)`; `d = (x - D)/σ` is the slope of the probability-flow
//! ODE (Karras et al. 2022, equation 1 with s = 1, σ(t) = t). `x` is `[B, C, h, w]`, already noised to `sigmas[0]`.
//! A list of fewer than two sigmas leaves `x` as it is. Left out: the SDE samplers, whose Brownian tree cannot be reproduced simply.

use candle_core::Tensor;

use super::TorchRng;
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
    /// The latent at the step's beginning.
    pub x: &'a Tensor,
    /// The estimate of the clean latent: what a preview shows.
    pub denoised: &'a Tensor,
}

/// The denoiser: `(x, σ)` to the estimate of the clean latent.
pub type Model<'a> = dyn FnMut(&Tensor, f64) -> Result<Tensor> + 'a;
/// Fresh standard normal noise in the latent's shape.
pub type Noise<'a> = dyn FnMut() -> Result<Tensor> + 'a;
/// Told of each step; its error stops the sampler and is returned.
pub type Callback<'a> = dyn FnMut(StepInfo<'_>) -> Result<()> + 'a;

/// A sampler.
pub type SamplerFn = fn(&mut Model<'_>, Tensor, &[f64], &mut Noise<'_>, &mut Callback<'_>) -> Result<Tensor>;

/// All samplers, by ComfyUI's names and in its order.
pub const SAMPLERS: &[(&str, SamplerFn)] = &[
    ("euler", euler),
    ("euler_ancestral", euler_ancestral),
    ("heun", heun),
    ("dpm_2", dpm_2),
    ("dpm_2_ancestral", dpm_2_ancestral),
    ("lms", lms),
    ("dpmpp_2s_ancestral", dpmpp_2s_ancestral),
    ("dpmpp_2m", dpmpp_2m),
    ("ddpm", ddpm),
    ("lcm", lcm),
    // ComfyUI's "ddim" is its Euler; DDIM (Song et al. 2021) with η = 0 is the same step. It differs for inpainting only, where it takes other noise.
    ("ddim", euler),
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

/// The noise that ComfyUI's stochastic samplers draw on the CPU: torch's generator at `seed + 1`, one `shape` after another.
pub fn ancestral_noise(
    seed: u64,
    shape: &[usize],
    device: &candle_core::Device,
) -> impl FnMut() -> Result<Tensor> {
    let mut rng = TorchRng::new(seed.wrapping_add(1));
    let (shape, device) = (shape.to_vec(), device.clone());
    move || Ok(Tensor::from_vec(rng.randn(shape.iter().product()), shape.as_slice(), &device)?)
}

/// `(x - denoised) / σ`.
fn slope(x: &Tensor, denoised: &Tensor, sigma: f64) -> Result<Tensor> {
    Ok(((x - denoised)? / sigma)?)
}

/// `x + d·dt`.
fn advance(x: &Tensor, d: &Tensor, dt: f64) -> Result<Tensor> {
    Ok((x + (d * dt)?)?)
}

/// σ halfway in log σ.
fn geometric_mean(a: f64, b: f64) -> f64 {
    (0.5 * (a.ln() + b.ln())).exp()
}

/// How far an ancestral step goes down, and how much noise it adds, so that it arrives at `to` (η = 1).
fn ancestral_step(from: f64, to: f64) -> (f64, f64) {
    let up = to.min((to * to * (from * from - to * to) / (from * from)).sqrt());
    ((to * to - up * up).sqrt(), up)
}

/// Runs `step(i, x, σ_i, σ_{i+1}, D)` over the sigmas, after evaluating the model and telling the callback.
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

/// Euler's method (Karras et al. 2022, algorithm 2 without churn and correction).
pub fn euler(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        advance(x, &slope(x, denoised, sigmas[i])?, sigmas[i + 1] - sigmas[i])
    })
}

/// Euler's method down to σ_down, then noise up to the next σ.
pub fn euler_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        let (down, up) = ancestral_step(sigmas[i], sigmas[i + 1]);
        if down == 0.0 {
            return Ok(denoised.clone());
        }
        let x = advance(x, &slope(x, denoised, sigmas[i])?, down - sigmas[i])?;
        advance(&x, &noise()?, up)
    })
}

/// Heun's method: the mean of the slopes at both ends (Karras et al. 2022, algorithm 2 without churn).
pub fn heun(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut Noise<'_>,
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
    _noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        midpoint(model, x, denoised, sigmas[i], sigmas[i + 1])
    })
}

/// [`dpm_2`] down to σ_down, then noise.
pub fn dpm_2_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |model, i, x, denoised| {
        let (down, up) = ancestral_step(sigmas[i], sigmas[i + 1]);
        let x = midpoint(model, x, denoised, sigmas[i], down)?;
        if down == 0.0 { Ok(x) } else { advance(&x, &noise()?, up) }
    })
}

fn midpoint(model: &mut Model<'_>, x: &Tensor, denoised: &Tensor, from: f64, to: f64) -> Result<Tensor> {
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
    _noise: &mut Noise<'_>,
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

/// DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1 with r = 1/2) down to σ_down, then noise.
pub fn dpmpp_2s_ancestral(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut Noise<'_>,
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
        if to > 0.0 { advance(&x, &noise()?, up) } else { Ok(x) }
    })
}

/// `x·to/from + D·(1 - to/from)`: the exact solution where D is constant (with λ = -ln σ, `1 - to/from` is `-expm1(-h)`).
fn exponential_step(x: &Tensor, denoised: &Tensor, from: f64, to: f64) -> Result<Tensor> {
    let ratio = to / from;
    Ok(((x * ratio)? + (denoised * (1.0 - ratio))?)?)
}

/// DPM-Solver++(2M): one evaluation per step, the previous estimate gives the second order (Lu et al. 2022b, algorithm 2).
pub fn dpmpp_2m(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    _noise: &mut Noise<'_>,
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

/// Ancestral sampling in DDPM's own variables (Ho et al. 2020, algorithm 2).
pub fn ddpm(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, x, denoised| {
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let (abar, abar_next) = (1.0 / (from * from + 1.0), 1.0 / (to * to + 1.0));
        let alpha = abar / abar_next;
        let eps = slope(x, denoised, from)?;
        let z = (x / (1.0 + from * from).sqrt())?;
        let mean = ((z - (eps * ((1.0 - alpha) / (1.0 - abar).sqrt()))?)? * (1.0 / alpha).sqrt())?;
        if to == 0.0 {
            return Ok(mean);
        }
        let deviation = ((1.0 - alpha) * (1.0 - abar_next) / (1.0 - abar)).sqrt();
        Ok((advance(&mean, &noise()?, deviation)? * (1.0 + to * to).sqrt())?)
    })
}

/// Latent consistency: jump to the estimate, noise it again to the next σ (Luo et al. 2023, algorithm 3).
pub fn lcm(
    model: &mut Model<'_>,
    x: Tensor,
    sigmas: &[f64],
    noise: &mut Noise<'_>,
    callback: &mut Callback<'_>,
) -> Result<Tensor> {
    walk(model, x, sigmas, callback, |_, i, _, denoised| {
        if sigmas[i + 1] > 0.0 { advance(denoised, &noise()?, sigmas[i + 1]) } else { Ok(denoised.clone()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn numbers(v: &serde_json::Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    /// The golden's toy model: 0.7·tanh(x/(1+σ²)) + 0.1.
    fn toy(x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok((x / (1.0 + sigma * sigma))?.tanh()?.affine(0.7, 0.1)?)
    }

    #[test]
    fn results_are_comfyuis() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/diffusion.json")).unwrap();
        for (name, run) in SAMPLERS {
            let row = &golden["samplers"][*name];
            assert!(row.is_object(), "no golden for {name}");
            let sigmas = numbers(&row["sigmas"]);
            let want = numbers(&row["result"]);
            let shape = [1usize, 4, 2, 4];
            let start = TorchRng::new(3).randn(32);
            let x = (Tensor::from_vec(start, &shape[..], &Device::Cpu).unwrap() * sigmas[0]).unwrap();
            let mut calls = 0;
            let mut steps = Vec::new();
            let got = run(
                &mut |x, sigma| {
                    calls += 1;
                    toy(x, sigma)
                },
                x,
                &sigmas,
                &mut ancestral_noise(3, &shape, &Device::Cpu),
                &mut |info| {
                    steps.push((info.step, info.total));
                    Ok(())
                },
            )
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
            assert_eq!(calls, row["calls"].as_u64().unwrap(), "{name}");
            let total = sigmas.len() - 1;
            assert_eq!(steps, (0..total).map(|i| (i, total)).collect::<Vec<_>>(), "{name}");
            for (g, w) in got.iter().zip(&want) {
                // f32 sums in another order, over twelve steps that begin at 14.6.
                assert!((f64::from(*g) - w).abs() < 2e-5, "{name}: {g} {w}");
            }
        }
    }

    #[test]
    fn nothing_to_do_and_an_error_in_between() {
        let x = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        for (name, run) in SAMPLERS {
            for sigmas in [&[][..], &[3.0]] {
                let got = run(&mut toy, x.clone(), sigmas, &mut || panic!("noise"), &mut |_| panic!("step"))
                    .unwrap();
                assert_eq!(got.to_vec1::<f32>().unwrap(), [1.0, 2.0], "{name}");
            }
            let mut noise = ancestral_noise(0, &[2], &Device::Cpu);
            let stop =
                run(&mut toy, x.clone(), &[3.0, 1.0, 0.0], &mut noise, &mut |_| Err(Error::cancelled()));
            assert_eq!(stop.unwrap_err().kind, crate::ErrorKind::Cancelled, "{name}");
        }
        assert!(sampler("eulr").unwrap_err().help.contains("dpmpp_2m"));
    }
}
