//! AdamW on a plain slice, in the order of operations of torch's `AdamW`, and learning-rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Constants of AdamW (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// β₁
    pub beta1: f64,
    /// β₂
    pub beta2: f64,
    /// ε
    pub eps: f64,
    /// λ: each step first shrinks the vectors by lr·λ.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// Torch's defaults.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// The optimiser's moments. It holds the `[n, d]` matrix's and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    config: AdamWConfig,
    /// First moments.
    pub(super) m: Vec<f32>,
    /// Second moments.
    pub(super) v: Vec<f32>,
    /// Steps taken.
    pub(super) t: u64,
}

impl AdamW {
    /// An optimiser of `count` numbers that has taken no step.
    pub fn new(config: AdamWConfig, count: usize) -> Self {
        Self { config, m: vec![0.0; count], v: vec![0.0; count], t: 0 }
    }

    /// One step: θ ← θ(1 − lr·λ); m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; θ ← θ − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε).
    pub fn step(&mut self, theta: &mut [f32], gradient: &[f32], learning_rate: f64) {
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        self.t += 1;
        let t = self.t.min(i32::MAX as u64) as i32;
        let step_size = (learning_rate / (1.0 - beta1.powi(t))) as f32;
        let root = (1.0 - beta2.powi(t)).sqrt() as f32;
        let shrink = (1.0 - learning_rate * weight_decay) as f32;
        for (((theta, g), m), v) in theta.iter_mut().zip(gradient).zip(&mut self.m).zip(&mut self.v) {
            *theta *= shrink;
            *m += (1.0 - beta1) as f32 * (g - *m);
            *v = beta2 as f32 * *v + (1.0 - beta2) as f32 * g * g;
            *theta -= step_size * *m / (v.sqrt() / root + eps as f32);
        }
    }
}

/// How the learning rate changes over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    /// Always the same.
    Constant,
    /// Falls to 0 in a straight line.
    Linear,
    /// Falls to 0 along half a cosine.
    Cosine,
}

impl LearningRateSchedule {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] =
        [("constant", Self::Constant), ("linear", Self::Linear), ("cosine", Self::Cosine)];

    /// The factor on the learning rate at `step` of `steps`, with `warmup` steps of rising from 0 first.
    pub fn factor(self, step: usize, steps: usize, warmup: usize) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
        }
        let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - progress,
            Self::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_start_high_and_end_low() {
        assert_eq!(LearningRateSchedule::Constant.factor(99, 100, 0), 1.0);
        assert_eq!(LearningRateSchedule::Linear.factor(50, 100, 0), 0.5);
        assert!((LearningRateSchedule::Cosine.factor(50, 100, 0) - 0.5).abs() < 1e-12);
        assert_eq!(LearningRateSchedule::Constant.factor(0, 100, 3), 0.25);
    }

    #[test]
    fn three_steps_equal_torchs() {
        // torch 2.x: p = tensor([0.5, -1.0]); AdamW([p], lr=0.1, weight_decay=0.01); gradients [1, -2], [0.5, 3], [-1, 0.25].
        let mut theta = vec![0.5, -1.0];
        let mut adam = AdamW::new(AdamWConfig::default(), 2);
        for gradient in [[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]] {
            adam.step(&mut theta, &gradient, 0.1);
        }
        let wanted = [0.294_498_35, -0.945_471_5];
        for (a, b) in theta.iter().zip(wanted) {
            assert!((a - b).abs() < 1e-6, "{theta:?}");
        }
    }
}
