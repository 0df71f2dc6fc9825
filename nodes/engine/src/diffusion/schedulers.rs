//! Sigma schedules: which noise levels a sampler visits. Names, order and numbers are ComfyUI's (`comfy/samplers.py`), f32 arithmetic included.
//!
//! Every schedule falls from σ_max and ends with 0; most have `steps + 1` values (`ddim_uniform` and `beta` may differ by a few).

use super::NoiseSchedule;
use super::samplers::discards_penultimate;
use crate::{Error, Result};

/// A scheduler: `steps >= 1` in, sigmas out.
pub type SchedulerFn = fn(&NoiseSchedule, usize) -> Vec<f64>;

/// All schedulers, in ComfyUI's order.
pub const SCHEDULERS: &[(&str, SchedulerFn)] = &[
    ("simple", simple),
    ("sgm_uniform", sgm_uniform),
    ("karras", karras),
    ("exponential", exponential),
    ("ddim_uniform", ddim_uniform),
    ("beta", beta),
    ("normal", normal),
    ("linear_quadratic", linear_quadratic),
    ("kl_optimal", kl_optimal),
];

/// The scheduler of that name.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the list of names when there is none.
pub fn scheduler(name: &str) -> Result<SchedulerFn> {
    SCHEDULERS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f).ok_or_else(|| {
        let names: Vec<&str> = SCHEDULERS.iter().map(|(n, _)| *n).collect();
        Error::invalid(format!("no scheduler is called '{name}'"))
            .help(format!("use one of {}", names.join(", ")))
    })
}

/// The sigmas of ComfyUI's KSampler. With `denoise < 1` a longer schedule of `steps / denoise` is made and its last `steps + 1` values
/// are kept; with `denoise <= 0` there is nothing to do and the result is empty.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an unknown scheduler, `steps` outside 1..=10 000, a `denoise` that is
/// not finite or above 1.
pub fn ksampler_sigmas(
    schedule: &NoiseSchedule,
    sampler_name: &str,
    scheduler_name: &str,
    steps: usize,
    denoise: f64,
) -> Result<Vec<f64>> {
    let make = scheduler(scheduler_name)?;
    if !(1..=10_000).contains(&steps) {
        return Err(Error::invalid(format!("{steps} sampling steps, wanted 1 to 10000")));
    }
    if !denoise.is_finite() || denoise > 1.0 {
        return Err(Error::invalid(format!("denoise {denoise}, wanted 0 to 1")));
    }
    if denoise <= 0.0 {
        return Ok(Vec::new());
    }
    let calculate = |steps: usize| {
        if !discards_penultimate(sampler_name) {
            return make(schedule, steps);
        }
        let mut sigmas = make(schedule, steps + 1);
        if sigmas.len() >= 2 {
            sigmas.remove(sigmas.len() - 2);
        }
        sigmas
    };
    if denoise > 0.9999 {
        return Ok(calculate(steps));
    }
    // A tiny denoise would ask for millions of sigmas of which only the last ones are kept.
    let long = ((steps as f64 / denoise) as usize).min(10_000_000);
    let mut sigmas = calculate(long);
    Ok(sigmas.split_off(sigmas.len().saturating_sub(steps + 1)))
}

/// Whole timesteps, evenly spaced by index from the top.
pub fn simple(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let stride = s.len() as f64 / steps as f64;
    let mut out: Vec<f64> =
        (0..steps).map(|i| f64::from(s.sigmas()[s.len() - 1 - (i as f64 * stride) as usize])).collect();
    out.push(0.0);
    out
}

/// Timesteps spaced evenly from last to first, first included.
pub fn normal(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let (start, end) = (s.sigma_to_t(s.sigma_max()) as f32, s.sigma_to_t(s.sigma_min()) as f32);
    let reaches_zero = s.t_to_sigma(f64::from(end)).abs() <= 1e-5;
    let steps = if reaches_zero { steps + 1 } else { steps };
    let mut out: Vec<f64> =
        linspace_f32(start, end, steps).into_iter().map(|t| s.t_to_sigma(f64::from(t))).collect();
    if !reaches_zero {
        out.push(0.0);
    }
    out
}

/// Like [`normal`] with one timestep more, whose last is left out (Stability's `sgm` code).
pub fn sgm_uniform(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let (start, end) = (s.sigma_to_t(s.sigma_max()) as f32, s.sigma_to_t(s.sigma_min()) as f32);
    let mut out: Vec<f64> =
        linspace_f32(start, end, steps + 1).into_iter().map(|t| s.t_to_sigma(f64::from(t))).collect();
    out[steps] = 0.0;
    out
}

/// Timesteps 1, 1+k, 1+2k, … with k = ⌊T/steps⌋ (Song et al. 2021, "trailing" by one).
pub fn ddim_uniform(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let vanishes = s.sigmas()[1].abs() <= 1e-5;
    let (steps, mut out) = if vanishes { (steps + 1, Vec::new()) } else { (steps, vec![0.0]) };
    let stride = (s.len() / steps).max(1);
    out.extend(s.sigmas()[1..].iter().step_by(stride).map(|v| f64::from(*v)));
    out.reverse();
    out
}

/// Karras et al. 2022, equation 5, with ρ = 7.
pub fn karras(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let rho = 7.0f64;
    let (min, max) = (s.sigma_min().powf(1.0 / rho), s.sigma_max().powf(1.0 / rho));
    ramp_to_zero(0.0, 1.0, steps, |r| {
        let base = max as f32 + r * (min - max) as f32;
        f64::from(base).powf(rho) as f32
    })
}

/// Evenly spaced in log σ.
pub fn exponential(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    ramp_to_zero(s.sigma_max().ln() as f32, s.sigma_min().ln() as f32, steps, f32::exp)
}

/// Sabour et al. 2024 ("Align Your Steps"), theorem 3.1: evenly spaced in arctan σ. (With one step ComfyUI divides 0 by 0; here it is σ_max.)
pub fn kl_optimal(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let (min, max) = (s.sigma_min().atan() as f32, s.sigma_max().atan() as f32);
    let last = steps.saturating_sub(1).max(1) as f32;
    let mut out: Vec<f64> = (0..steps)
        .map(|i| {
            let r = i as f32 / last;
            f64::from((r * min + (1.0 - r) * max).tan())
        })
        .collect();
    out.push(0.0);
    out
}

/// Half of the steps linear in a thin top layer (2.5 % of the noise), then quadratic (Genmo's Mochi).
pub fn linear_quadratic(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let top = s.sigma_max() as f32;
    let threshold = 0.025;
    let scaled = |v: f64| f64::from((1.0 - v) as f32 * top);
    if steps == 1 {
        return vec![scaled(0.0), 0.0];
    }
    let n = steps as f64;
    let linear = (steps / 2) as f64;
    let difference = linear - threshold * n;
    let quadratic_steps = n - linear;
    let a = difference / (linear * quadratic_steps * quadratic_steps);
    let b = threshold / linear - 2.0 * difference / (quadratic_steps * quadratic_steps);
    let c = a * linear * linear;
    let mut out: Vec<f64> = (0..steps)
        .map(|i| {
            let x = i as f64;
            scaled(if i < steps / 2 { x * threshold / linear } else { a * x * x + b * x + c })
        })
        .collect();
    out.push(0.0);
    out
}

/// Timesteps at the quantiles of a Beta(0.6, 0.6) distribution: dense at both ends (Lee et al. 2024, arXiv 2407.12173).
pub fn beta(s: &NoiseSchedule, steps: usize) -> Vec<f64> {
    let total = (s.len() - 1) as f64;
    let mut out = Vec::with_capacity(steps + 1);
    let mut last = None;
    for i in 0..steps {
        let quantile = beta_quantile(1.0 - i as f64 / steps as f64);
        let t = (quantile * total).round_ties_even() as usize;
        if last != Some(t) {
            out.push(f64::from(s.sigmas()[t]));
        }
        last = Some(t);
    }
    out.push(0.0);
    out
}

/// The x at which the Beta(0.6, 0.6) distribution function is `p`, by bisection.
fn beta_quantile(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    let (mut low, mut high) = (0.0, 0.5);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I_x(0.6, 0.6) for x <= 0.5, by its power series (Abramowitz & Stegun 26.5.4 expanded):
/// `x^a/B(a,b) · Σ (1-b)_k x^k / (k!·(a+k))`.
fn beta_cdf(x: f64) -> f64 {
    const A: f64 = 0.6;
    // B(0.6, 0.6) = Γ(0.6)²/Γ(1.2)
    const B: f64 = 2.415_344_208_002_472_3;
    let mut term = 1.0;
    let mut sum = 1.0 / A;
    for k in 1..200 {
        let k = f64::from(k);
        term *= (k - A) / k * x;
        sum += term / (A + k);
        if term < 1e-18 {
            break;
        }
    }
    x.powf(A) * sum / B
}

fn ramp_to_zero(start: f32, end: f32, steps: usize, f: impl Fn(f32) -> f32) -> Vec<f64> {
    let mut out: Vec<f64> = linspace_f32(start, end, steps).into_iter().map(|r| f64::from(f(r))).collect();
    out.push(0.0);
    out
}

/// `torch.linspace` in f32: from both ends towards the middle.
fn linspace_f32(start: f32, end: f32, n: usize) -> Vec<f32> {
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(|i| if i < n / 2 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::ScheduleConfig;
    use super::*;

    fn sd1() -> NoiseSchedule {
        NoiseSchedule::from_config(&ScheduleConfig::default()).unwrap()
    }

    fn numbers(v: &serde_json::Value) -> Vec<f64> {
        v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn sigmas_are_comfyuis() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/diffusion.json")).unwrap();
        let mut rows = 0;
        for row in golden["sigmas"].as_array().unwrap() {
            let (sampler, scheduler) = (row["sampler"].as_str().unwrap(), row["scheduler"].as_str().unwrap());
            let (steps, denoise) =
                (row["steps"].as_u64().unwrap() as usize, row["denoise"].as_f64().unwrap());
            let want = numbers(&row["sigmas"]);
            let config = ScheduleConfig {
                rescale_betas_zero_snr: row["zsnr"].as_bool().unwrap(),
                ..Default::default()
            };
            let schedule = NoiseSchedule::from_config(&config).unwrap();
            let got = ksampler_sigmas(&schedule, sampler, scheduler, steps, denoise).unwrap();
            assert_eq!(got.len(), want.len(), "{row}");
            for (g, w) in got.iter().zip(&want) {
                // Two ulp of f32 where exp, pow or tan are taken by another library; none where values are looked up.
                let exact = matches!(scheduler, "simple" | "ddim_uniform" | "beta");
                let same = if exact { *g as f32 == *w as f32 } else { (g - w).abs() <= 1.5e-6 * w };
                assert!(same, "{sampler} {scheduler} {steps} {denoise}: {g} {w}");
            }
            rows += 1;
        }
        assert!(rows > 60, "{rows} rows");
    }

    #[test]
    fn every_schedule_falls_to_zero() {
        let s = sd1();
        for (name, make) in SCHEDULERS {
            for steps in [1, 2, 3, 7, 20, 50, 333, 1000] {
                let sigmas = make(&s, steps);
                assert_eq!(sigmas.last(), Some(&0.0), "{name} {steps}");
                assert!(sigmas.windows(2).all(|w| w[0] > w[1]), "{name} {steps} {sigmas:?}");
                assert!(sigmas.iter().all(|s| s.is_finite()), "{name} {steps}");
            }
        }
    }

    #[test]
    fn refusals() {
        let s = sd1();
        assert!(scheduler("nomal").unwrap_err().help.contains("sgm_uniform"));
        assert!(ksampler_sigmas(&s, "euler", "normal", 0, 1.0).is_err());
        assert!(ksampler_sigmas(&s, "euler", "normal", 5, f64::NAN).is_err());
        assert!(ksampler_sigmas(&s, "euler", "normal", 5, 1.5).is_err());
        assert!(ksampler_sigmas(&s, "euler", "normal", 5, 0.0).unwrap().is_empty());
        assert_eq!(ksampler_sigmas(&s, "euler", "normal", 5, 1e-12).unwrap().len(), 6);
    }

    #[test]
    fn beta_distribution() {
        assert!((beta_cdf(0.5) - 0.5).abs() < 1e-12);
        assert_eq!((beta_quantile(0.0), beta_quantile(1.0)), (0.0, 1.0));
    }
}
