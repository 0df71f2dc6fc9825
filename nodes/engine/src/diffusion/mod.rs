//! The arithmetic of diffusion: noise schedule, prediction target, sigma schedulers, samplers, and torch's noise.
//!
//! Notation follows Karras et al. 2022 ("Elucidating the Design Space of Diffusion-Based Generative Models"): a noisy latent is
//! `x = x₀ + σ·ε`, a *denoiser* maps `(x, σ)` to an estimate of `x₀`. Stable Diffusion's UNet was trained in the
//! variance-preserving parametrisation of Ho et al. 2020 (`z_t = √ᾱ_t·x₀ + √(1-ᾱ_t)·ε`); [`denoiser`] translates.
//! Numbers agree with ComfyUI 0.33, which runs schedules in f32; goldens are made by `tests/golden/diffusion.py` and
//! `tests/golden/samplers.py`.

mod brownian;
pub mod denoiser;
mod noise;
mod normal;
pub mod samplers;
mod schedule;
pub mod schedulers;
mod seed_sequence;

pub use brownian::BrownianTree;
pub use denoiser::{cfg_combine, denoised, is_max_denoise, scale_input, scale_noise};
pub use noise::TorchRng;
pub use samplers::{SAMPLERS, SamplerFn, SamplerNoise, StepInfo, sampler};
pub use schedule::{BetaSchedule, NoiseSchedule, PredictionType, ScheduleConfig};
pub use schedulers::{SCHEDULERS, SchedulerFn, ksampler_sigmas, scheduler};
