//! The noise schedule: how much noise a timestep means, and what the model was trained to predict.

use candle_core::Tensor;

use crate::{Error, Result};

/// What the UNet's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise ε (SD1, SDXL; Ho et al. 2020).
    Epsilon,
    /// The velocity `v = √ᾱ·ε - √(1-ᾱ)·x₀` (SD2-v; Salimans & Ho 2022).
    VPrediction,
}

/// How β grows from `beta_start` to `beta_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// `linspace(√start, √end)²`: every Stable Diffusion. (ComfyUI's code calls it "linear".)
    ScaledLinear,
    /// `linspace(start, end)`: DDPM.
    Linear,
}

/// The settings of a schedule: the fields of a diffusers `scheduler_config.json` that matter here, with its names.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    /// Number of timesteps that the model was trained on, 2..=100 000.
    pub num_train_timesteps: usize,
    /// First β, in (0, 1).
    pub beta_start: f64,
    /// Last β, in (0, 1).
    pub beta_end: f64,
    /// The curve between them.
    pub beta_schedule: BetaSchedule,
    /// What the model predicts.
    pub prediction_type: PredictionType,
    /// Rescale so that the last timestep is pure noise (Lin et al. 2023, algorithm 1).
    pub rescale_betas_zero_snr: bool,
}

impl Default for ScheduleConfig {
    /// Stable Diffusion 1: scaled linear 0.00085..0.012 over 1000 steps, ε.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::ScaledLinear,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
        }
    }
}

impl ScheduleConfig {
    /// Read a diffusers `scheduler_config.json`. Fields that are missing have Stable Diffusion 1's values; unknown fields are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the text is no JSON or a field has a value that is not supported.
    pub fn from_json(text: &str) -> Result<Self> {
        let trained = serde_json::from_str::<serde_json::Value>(text)
            .is_ok_and(|config| !config["trained_betas"].is_null());
        if trained {
            return Err(Error::incompatible("scheduler_config.json: trained_betas are not known")
                .help("supported are beta_schedule scaled_linear and linear"));
        }
        serde_json::from_str(text).map_err(|e| {
            Error::incompatible(format!("scheduler_config.json: {e}"))
                .help("supported are beta_schedule scaled_linear and linear, prediction_type epsilon and v_prediction")
        })
    }
}

/// A schedule, computed: ᾱ in f64, and the σ that ComfyUI would use, in f32 as there.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    prediction: PredictionType,
    /// `None` if it is that of no settings.
    config: Option<ScheduleConfig>,
    alphas_cumprod: Vec<f64>,
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

/// How far apart, of their size, noise levels may be that are the same but for the digits of f32.
const ROUNDED: f32 = 2e-5;

/// ᾱ of the last step after the zero-SNR rescale: not 0, so that σ stays finite (4518); ComfyUI's value (`model_sampling.py`).
const ZERO_SNR_LAST: f64 = 4.897_345_189_085_343_5e-8;

impl NoiseSchedule {
    /// Compute the schedule.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when a setting is out of its range.
    pub fn from_config(config: &ScheduleConfig) -> Result<Self> {
        let n = config.num_train_timesteps;
        if !(2..=100_000).contains(&n) {
            return Err(Error::invalid(format!("noise schedule: {n} timesteps, wanted 2 to 100000")));
        }
        let open = |b: f64| b > 0.0 && b < 1.0;
        if !open(config.beta_start) || !open(config.beta_end) {
            let (a, b) = (config.beta_start, config.beta_end);
            return Err(Error::invalid(format!(
                "noise schedule: betas {a} to {b}, wanted values between 0 and 1"
            )));
        }
        let betas: Vec<f64> = match config.beta_schedule {
            BetaSchedule::ScaledLinear => linspace(config.beta_start.sqrt(), config.beta_end.sqrt(), n)
                .into_iter()
                .map(|b| b * b)
                .collect(),
            BetaSchedule::Linear => linspace(config.beta_start, config.beta_end, n),
        };
        let mut product = 1.0;
        let mut alphas_cumprod: Vec<f64> = betas
            .iter()
            .map(|b| {
                product *= 1.0 - b;
                product
            })
            .collect();
        if config.rescale_betas_zero_snr {
            rescale_zero_snr(&mut alphas_cumprod);
        }
        let exact: Vec<f64> = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let sigmas = exact.iter().map(|s| *s as f32).collect();
        let log_sigmas = exact.iter().map(|s| s.ln() as f32).collect();
        let prediction = config.prediction_type;
        Ok(Self { prediction, config: Some(config.clone()), alphas_cumprod, sigmas, log_sigmas })
    }

    /// The schedule of a model of which the noise levels are known: σ of each timestep, rising.
    ///
    /// If they are those of Stable Diffusion, with or without zero terminal SNR, it is [that schedule](Self::from_config), with the digits that f32
    /// does not have; else ᾱ = 1/(1+σ²) of the numbers as they are. Numbers that are within [`ROUNDED`] of those, because they were rescaled in f32, have
    /// the same [settings](Self::config), too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for fewer than 2 or more than 100 000 of them, or one that is not finite, not above 0 or below the
    /// one before.
    pub fn from_sigmas(sigmas: &[f32], prediction: PredictionType) -> Result<Self> {
        let invalid = |what: String| Error::invalid(format!("noise levels: {what}"));
        if !(2..=100_000).contains(&sigmas.len()) {
            return Err(invalid(format!("there are {}, wanted 2 to 100000", sigmas.len())));
        }
        if let Some(t) = sigmas.iter().position(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(invalid(format!(
                "that of timestep {t} is {}, wanted a finite number above 0",
                sigmas[t]
            )));
        }
        if let Some(t) = sigmas.windows(2).position(|pair| pair[1] < pair[0]) {
            let (before, after) = (sigmas[t], sigmas[t + 1]);
            return Err(invalid(format!("{after} at timestep {} is below {before} before it", t + 1)));
        }
        let close = |known: &[f32]| known.iter().zip(sigmas).all(|(a, b)| (a - b).abs() <= ROUNDED * a);
        let mut rounded = None;
        for rescale_betas_zero_snr in [false, true] {
            let config = ScheduleConfig {
                num_train_timesteps: sigmas.len(),
                prediction_type: prediction,
                rescale_betas_zero_snr,
                ..ScheduleConfig::default()
            };
            let known = Self::from_config(&config)?;
            if known.sigmas == sigmas {
                return Ok(known);
            }
            if close(&known.sigmas) {
                rounded = Some(config);
            }
        }
        Ok(Self {
            prediction,
            config: rounded,
            alphas_cumprod: sigmas.iter().map(|s| 1.0 / (1.0 + f64::from(*s).powi(2))).collect(),
            sigmas: sigmas.to_vec(),
            log_sigmas: sigmas.iter().map(|s| f64::from(*s).ln() as f32).collect(),
        })
    }

    /// The settings that it can be computed from; `None` for [noise levels](Self::from_sigmas) of their own.
    pub fn config(&self) -> Option<&ScheduleConfig> {
        self.config.as_ref()
    }

    /// What the model predicts.
    pub fn prediction(&self) -> PredictionType {
        self.prediction
    }

    /// ᾱ_t for every timestep, from nearly 1 (little noise) down to nearly 0.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// `σ_t = √((1-ᾱ_t)/ᾱ_t)` for every timestep, rising.
    pub fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// Number of timesteps.
    pub fn len(&self) -> usize {
        self.sigmas.len()
    }

    /// Never true; here because `len` is.
    pub fn is_empty(&self) -> bool {
        self.sigmas.is_empty()
    }

    /// σ of timestep 0.
    pub fn sigma_min(&self) -> f64 {
        f64::from(self.sigmas[0])
    }

    /// σ of the last timestep.
    pub fn sigma_max(&self) -> f64 {
        f64::from(self.sigmas[self.sigmas.len() - 1])
    }

    /// The timestep whose log σ is nearest: what ComfyUI hands to the UNet (it does not interpolate here).
    pub fn sigma_to_t(&self, sigma: f64) -> usize {
        let log = (sigma as f32).ln();
        let mut best = (0, f32::INFINITY);
        for (t, l) in self.log_sigmas.iter().enumerate() {
            let distance = (log - l).abs();
            if distance < best.1 {
                best = (t, distance);
            }
        }
        best.0
    }

    /// σ at a timestep that need not be whole: log σ is interpolated linearly, in f32 as in ComfyUI. `t` is clamped to the schedule.
    pub fn t_to_sigma(&self, t: f64) -> f64 {
        let last = (self.len() - 1) as f32;
        let t = (t as f32).clamp(0.0, last);
        let (low, high, w) = (t.floor() as usize, t.ceil() as usize, t.fract());
        let log = (1.0 - w) * self.log_sigmas[low] + w * self.log_sigmas[high];
        f64::from(log.exp())
    }

    /// `z_t = √ᾱ_t·x₀ + √(1-ᾱ_t)·ε` for a batch: `x0`, `noise` `[B, …]`, one timestep per sample.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when there is not one timestep per sample, or one is outside the schedule.
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor, t: &[usize]) -> Result<Tensor> {
        let (signal, amount) = self.factors(x0, t)?;
        Ok((x0.broadcast_mul(&signal)? + noise.broadcast_mul(&amount)?)?)
    }

    /// `v = √ᾱ_t·ε - √(1-ᾱ_t)·x₀` for a batch; shapes and errors as in [`NoiseSchedule::add_noise`].
    pub fn velocity(&self, x0: &Tensor, noise: &Tensor, t: &[usize]) -> Result<Tensor> {
        let (signal, amount) = self.factors(x0, t)?;
        Ok((noise.broadcast_mul(&signal)? - x0.broadcast_mul(&amount)?)?)
    }

    /// What the model should have said: ε or v; shapes and errors as in [`NoiseSchedule::add_noise`].
    pub fn target(&self, x0: &Tensor, noise: &Tensor, t: &[usize]) -> Result<Tensor> {
        match self.prediction {
            PredictionType::Epsilon => {
                self.factors(x0, t)?;
                Ok(noise.clone())
            }
            PredictionType::VPrediction => self.velocity(x0, noise, t),
        }
    }

    /// √ᾱ and √(1-ᾱ) as `[B, 1, …]`.
    fn factors(&self, x0: &Tensor, t: &[usize]) -> Result<(Tensor, Tensor)> {
        let batch = x0.dim(0)?;
        if t.len() != batch {
            return Err(Error::invalid(format!("{} timesteps for a batch of {batch}", t.len())));
        }
        let mut alphas = Vec::with_capacity(batch);
        for &t in t {
            alphas.push(*self.alphas_cumprod.get(t).ok_or_else(|| {
                Error::invalid(format!("timestep {t}, wanted 0 to {}", self.alphas_cumprod.len() - 1))
            })?);
        }
        let mut shape = vec![1; x0.rank()];
        shape[0] = batch;
        let column = |f: fn(f64) -> f64| {
            let values: Vec<f32> = alphas.iter().map(|a| f(*a) as f32).collect();
            Tensor::from_vec(values, shape.as_slice(), x0.device())
        };
        Ok((column(f64::sqrt)?, column(|a| (1.0 - a).sqrt())?))
    }
}

/// `n` values from `start` to `end`, computed from both ends towards the middle as torch does, so that both ends are exact.
fn linspace(start: f64, end: f64, n: usize) -> Vec<f64> {
    let step = (end - start) / (n - 1) as f64;
    (0..n)
        .map(|i| if i < n / 2 { start + step * i as f64 } else { end - step * (n - 1 - i) as f64 })
        .collect()
}

/// Lin et al. 2023 ("Common Diffusion Noise Schedules and Sample Steps are Flawed"), algorithm 1.
fn rescale_zero_snr(alphas_cumprod: &mut [f64]) {
    let first = alphas_cumprod[0].sqrt();
    let last = alphas_cumprod[alphas_cumprod.len() - 1].sqrt();
    for a in alphas_cumprod.iter_mut() {
        *a = ((a.sqrt() - last) * (first / (first - last))).powi(2);
    }
    if let Some(a) = alphas_cumprod.last_mut() {
        *a = ZERO_SNR_LAST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn schedule(prediction_type: PredictionType) -> NoiseSchedule {
        NoiseSchedule::from_config(&ScheduleConfig { prediction_type, ..Default::default() }).unwrap()
    }

    #[test]
    fn known_ends() {
        let s = schedule(PredictionType::Epsilon);
        assert_eq!(s.len(), 1000);
        // k-diffusion's well-known numbers for Stable Diffusion.
        assert!((s.sigma_max() - 14.614_642).abs() < 1e-5 && (s.sigma_min() - 0.029_167_5).abs() < 1e-6);
        assert!((s.alphas_cumprod()[999] - 0.004_660_095).abs() < 1e-8);
    }

    #[test]
    fn sigma_and_t_are_inverse() {
        let s = schedule(PredictionType::Epsilon);
        for t in [0usize, 1, 17, 500, 998, 999] {
            assert_eq!(s.sigma_to_t(s.t_to_sigma(t as f64)), t);
        }
        assert_eq!(s.sigma_to_t(1e9), 999);
        assert_eq!(s.sigma_to_t(1e-9), 0);
        let (a, m, b) = (s.t_to_sigma(10.0), s.t_to_sigma(10.5), s.t_to_sigma(11.0));
        assert!((m - (a * b).sqrt()).abs() < 1e-6);
        assert_eq!(s.t_to_sigma(5000.0), s.t_to_sigma(999.0));
    }

    #[test]
    fn noise_and_velocity_recover_x0() {
        let s = schedule(PredictionType::VPrediction);
        let x0 = Tensor::new(&[[1f32, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap();
        let noise = Tensor::new(&[[0.3f32, 0.1], [-1.0, 0.7]], &Device::Cpu).unwrap();
        let t = [40usize, 900];
        let z = s.add_noise(&x0, &noise, &t).unwrap();
        let v = s.target(&x0, &noise, &t).unwrap();
        let (signal, amount) = s.factors(&x0, &t).unwrap();
        // x0 = sqrt(abar) z - sqrt(1-abar) v
        let back = (z.broadcast_mul(&signal).unwrap() - v.broadcast_mul(&amount).unwrap()).unwrap();
        let gap = (back - &x0).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gap < 1e-6);
        assert!(s.add_noise(&x0, &noise, &[1]).is_err());
        assert!(s.add_noise(&x0, &noise, &[1, 1000]).unwrap_err().message.contains("1000"));
        let e = schedule(PredictionType::Epsilon).target(&x0, &noise, &t).unwrap();
        assert_eq!(e.to_vec2::<f32>().unwrap(), noise.to_vec2::<f32>().unwrap());
    }

    #[test]
    fn config_from_json() {
        let config = ScheduleConfig::from_json(
            r#"{"_class_name":"DDIMScheduler","beta_schedule":"linear","prediction_type":"v_prediction","num_train_timesteps":100}"#,
        )
        .unwrap();
        assert_eq!(config.beta_schedule, BetaSchedule::Linear);
        assert_eq!(config.prediction_type, PredictionType::VPrediction);
        assert_eq!((config.num_train_timesteps, config.beta_start), (100, 0.00085));
        for bad in [r#"{"beta_schedule":"squaredcos_cap_v2"}"#, r#"{"prediction_type":"sample"}"#, "[]x"] {
            assert!(ScheduleConfig::from_json(bad).is_err(), "{bad}");
        }
        for bad in [
            ScheduleConfig { num_train_timesteps: 1, ..Default::default() },
            ScheduleConfig { beta_start: 0.0, ..Default::default() },
            ScheduleConfig { beta_end: f64::NAN, ..Default::default() },
        ] {
            assert!(NoiseSchedule::from_config(&bad).is_err());
        }
    }

    #[test]
    fn noise_levels_are_the_schedule_that_they_come_from_or_their_own() {
        for rescale_betas_zero_snr in [false, true] {
            let config = ScheduleConfig { rescale_betas_zero_snr, ..Default::default() };
            let known = NoiseSchedule::from_config(&config).unwrap();
            assert_eq!(NoiseSchedule::from_sigmas(known.sigmas(), PredictionType::Epsilon).unwrap(), known);
            // One number that is another in its last digit, and all else follows from the numbers.
            let mut sigmas = known.sigmas().to_vec();
            sigmas[500] = sigmas[500].next_up();
            let own = NoiseSchedule::from_sigmas(&sigmas, PredictionType::VPrediction).unwrap();
            let same = ScheduleConfig { prediction_type: PredictionType::VPrediction, ..config };
            assert_eq!((own.sigmas(), own.config()), (sigmas.as_slice(), Some(&same)));
            assert_eq!(own.prediction(), PredictionType::VPrediction);
            for t in [0, 500, 999] {
                assert!((own.alphas_cumprod()[t] / known.alphas_cumprod()[t] - 1.0).abs() < 1e-6, "{t}");
                assert_eq!(own.sigma_to_t(f64::from(sigmas[t])), t);
                assert!((own.t_to_sigma(t as f64) / f64::from(sigmas[t]) - 1.0).abs() < 1e-5, "{t}");
            }
            sigmas[500] *= 1.0 + 1e-4;
            assert_eq!(NoiseSchedule::from_sigmas(&sigmas, PredictionType::Epsilon).unwrap().config(), None);
        }
        for bad in [&[1.0][..], &[0.0, 1.0], &[1.0, f32::NAN], &[1.0, f32::INFINITY], &[2.0, 1.0]] {
            let error = NoiseSchedule::from_sigmas(bad, PredictionType::Epsilon).unwrap_err();
            assert!(error.message.starts_with("noise levels: "), "{error}");
        }
    }

    #[test]
    fn zero_snr_ends_in_noise() {
        let config = ScheduleConfig { rescale_betas_zero_snr: true, ..Default::default() };
        let s = NoiseSchedule::from_config(&config).unwrap();
        assert!((s.sigma_max() - 4518.76).abs() < 0.5);
        assert!((s.sigma_min() - schedule(PredictionType::Epsilon).sigma_min()).abs() < 1e-6);
    }
}
