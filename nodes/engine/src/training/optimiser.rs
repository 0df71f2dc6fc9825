//! Optimisers on a plain slice, in the order of operations of torch's, and learning-rate schedules.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Which rule a step follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimiser {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW,
    /// Adam without weight decay (Kingma and Ba 2015), which is AdamW with a decay of 0.
    Adam,
    /// Stochastic gradient descent with momentum. Its steps are as long as the gradient is, while Adam's are about as long as the rate: it
    /// needs a rate of its own.
    Sgd,
}

impl Optimiser {
    /// All of them, by name; the first is that of every preset.
    pub const ALL: [(&'static str, Self); 3] =
        [("adamw", Self::AdamW), ("adam", Self::Adam), ("sgd", Self::Sgd)];

    /// Torch's constants with the `chosen` weight decay; where none was chosen AdamW takes the preset's, which was made for it, and SGD none.
    pub fn config(self, chosen: Option<f64>, preset: f64) -> OptimiserConfig {
        let adam =
            |weight_decay| OptimiserConfig::AdamW(AdamWConfig { weight_decay, ..AdamWConfig::default() });
        match self {
            Self::AdamW => adam(chosen.unwrap_or(preset)),
            Self::Adam => adam(0.0),
            Self::Sgd => OptimiserConfig::Sgd(SgdConfig {
                weight_decay: chosen.unwrap_or(0.0),
                ..SgdConfig::default()
            }),
        }
    }
}

/// An optimiser's constants. They are written without a name, since the fields tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptimiserConfig {
    /// Of AdamW, and with a decay of 0 of Adam.
    AdamW(AdamWConfig),
    /// Of stochastic gradient descent.
    Sgd(SgdConfig),
}

impl OptimiserConfig {
    /// The optimiser of `count` numbers that has taken no step.
    pub(super) fn start(self, count: usize) -> OptimiserState {
        match self {
            Self::AdamW(config) => OptimiserState::AdamW(AdamW::new(config, count)),
            Self::Sgd(config) => OptimiserState::Sgd(Sgd::new(config, count)),
        }
    }
}

/// An optimiser at work. It holds the `[n, d]` matrix's numbers and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OptimiserState {
    AdamW(AdamW),
    Sgd(Sgd),
}

impl OptimiserState {
    /// One step of the vectors `theta` against `gradient`.
    pub(super) fn step(&mut self, theta: &mut [f32], gradient: &[f32], learning_rate: f64) {
        match self {
            Self::AdamW(adam) => adam.step(theta, gradient, learning_rate),
            Self::Sgd(sgd) => sgd.step(theta, gradient, learning_rate),
        }
    }

    /// Whether it can go on from here.
    pub(super) fn is_finite(&self) -> bool {
        let numbers = match self {
            Self::AdamW(adam) => &adam.v,
            Self::Sgd(sgd) => &sgd.momentum,
        };
        numbers.iter().all(|x| x.is_finite())
    }

    /// The matrices that a run folder keeps, by their names there.
    pub(super) fn matrices(&self) -> Vec<(&'static str, &Vec<f32>)> {
        match self {
            Self::AdamW(adam) => vec![("adam.m", &adam.m), ("adam.v", &adam.v)],
            Self::Sgd(sgd) => vec![("sgd.momentum", &sgd.momentum)],
        }
    }

    /// [`matrices`](Self::matrices), to be filled.
    pub(super) fn matrices_mut(&mut self) -> Vec<(&'static str, &mut Vec<f32>)> {
        match self {
            Self::AdamW(adam) => vec![("adam.m", &mut adam.m), ("adam.v", &mut adam.v)],
            Self::Sgd(sgd) => vec![("sgd.momentum", &mut sgd.momentum)],
        }
    }

    /// The count of steps that a run folder keeps, by its name there; nothing where the rule does not ask for it.
    pub(super) fn count(&self) -> Option<(&'static str, u64)> {
        match self {
            Self::AdamW(adam) => Some(("adam.t", adam.t)),
            Self::Sgd(_) => None,
        }
    }

    /// [`count`](Self::count), to be set.
    pub(super) fn count_mut(&mut self) -> Option<(&'static str, &mut u64)> {
        match self {
            Self::AdamW(adam) => Some(("adam.t", &mut adam.t)),
            Self::Sgd(_) => None,
        }
    }
}

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
    m: Vec<f32>,
    /// Second moments.
    v: Vec<f32>,
    /// Steps taken.
    t: u64,
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

/// Constants of stochastic gradient descent with momentum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SgdConfig {
    /// μ
    pub momentum: f64,
    /// λ: the gradient of λ/2·|θ|² is added to the loss's, as torch's `SGD` does it.
    pub weight_decay: f64,
}

impl Default for SgdConfig {
    /// μ = 0.9, no decay.
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 0.0 }
    }
}

/// Stochastic gradient descent and its momentum.
#[derive(Debug, Clone, PartialEq)]
pub struct Sgd {
    config: SgdConfig,
    momentum: Vec<f32>,
}

impl Sgd {
    /// An optimiser of `count` numbers that has taken no step.
    pub fn new(config: SgdConfig, count: usize) -> Self {
        Self { config, momentum: vec![0.0; count] }
    }

    /// One step: b ← μb + g + λθ; θ ← θ − lr·b.
    pub fn step(&mut self, theta: &mut [f32], gradient: &[f32], learning_rate: f64) {
        let (decay, friction) = (self.config.weight_decay as f32, self.config.momentum as f32);
        for ((theta, g), b) in theta.iter_mut().zip(gradient).zip(&mut self.momentum) {
            *b = friction * *b + (g + decay * *theta);
            *theta -= learning_rate as f32 * *b;
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

    #[test]
    fn sgd_takes_torchs_steps() {
        // p = tensor([0.5, -1.0]); SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01); gradients [1, -2], [0.5, 3]: worked out by torch's formulas.
        let mut theta = vec![0.5, -1.0];
        let mut sgd = Sgd::new(SgdConfig { weight_decay: 0.01, ..SgdConfig::default() }, 2);
        for gradient in [[1.0, -2.0], [0.5, 3.0]] {
            sgd.step(&mut theta, &gradient, 0.1);
        }
        for (a, b) in theta.iter().zip([0.258_650_5, -0.917_301]) {
            assert!((a - b).abs() < 1e-6, "{theta:?}");
        }
    }

    #[test]
    fn constants_follow_choice_and_preset() {
        let decay = |optimiser: Optimiser, chosen| match optimiser.config(chosen, 0.01) {
            OptimiserConfig::AdamW(config) => ("adam", config.weight_decay),
            OptimiserConfig::Sgd(config) => ("sgd", config.weight_decay),
        };
        assert_eq!(decay(Optimiser::AdamW, None), ("adam", 0.01));
        assert_eq!(decay(Optimiser::AdamW, Some(0.5)), ("adam", 0.5));
        assert_eq!(decay(Optimiser::Adam, None), ("adam", 0.0));
        assert_eq!(decay(Optimiser::Sgd, None), ("sgd", 0.0));
        assert_eq!(decay(Optimiser::Sgd, Some(0.5)), ("sgd", 0.5));
    }

    #[test]
    fn settings_of_adamw_are_written_as_they_always_were() {
        let json = |config: OptimiserConfig| serde_json::to_string(&config).unwrap();
        let adamw = OptimiserConfig::AdamW(AdamWConfig::default());
        assert_eq!(json(adamw), serde_json::to_string(&AdamWConfig::default()).unwrap());
        let sgd = OptimiserConfig::Sgd(SgdConfig::default());
        for config in [adamw, sgd] {
            assert_eq!(serde_json::from_str::<OptimiserConfig>(&json(config)).unwrap(), config);
        }
    }
}
