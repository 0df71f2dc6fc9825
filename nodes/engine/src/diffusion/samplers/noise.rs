//! Where samplers take their noise from.

use candle_core::{Device, Tensor};

use crate::Result;
use crate::diffusion::{BrownianTree, TorchRng};

/// A sampler's noise, as ComfyUI's samplers draw it on the CPU.
#[derive(Debug, Clone)]
pub struct SamplerNoise {
    rng: TorchRng,
    seed: u64,
    shape: Vec<usize>,
    device: Device,
}

impl SamplerNoise {
    /// The noise of `seed` for latents of `shape`, which is moved to `device`.
    pub fn new(seed: u64, shape: &[usize], device: &Device) -> Self {
        // One more, so that the first step does not add the noise again from which the latent was made.
        let rng = TorchRng::new(seed.wrapping_add(1));
        Self { rng, seed, shape: shape.to_vec(), device: device.clone() }
    }

    /// Standard normal noise that is independent of what was drawn before: torch's generator at `seed + 1`, one draw of `shape` after
    /// another. Ancestral samplers take this.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn fresh(&mut self) -> Result<Tensor> {
        let values = self.rng.randn(self.shape.iter().product());
        Ok(Tensor::from_vec(values, self.shape.as_slice(), &self.device)?)
    }

    /// Noise along one Brownian path over the stretch that the positive `sigmas` span: k-diffusion's `BrownianTreeNoiseSampler` with
    /// this seed. SDE samplers take this: the noise of a step is then that of its parts together, so that pictures with more steps
    /// resemble each other.
    pub fn brownian(&self, sigmas: &[f64]) -> BrownianNoise {
        let positive = || sigmas.iter().map(|s| single(*s)).filter(|s| *s > 0.0);
        let (low, high) = (positive().fold(f64::INFINITY, f64::min), positive().fold(0.0, f64::max));
        let tree = BrownianTree::new(self.seed, self.shape.iter().product(), low.min(high), high);
        BrownianNoise { tree, shape: self.shape.clone(), device: self.device.clone() }
    }
}

/// Noise along a Brownian path: made by [`SamplerNoise::brownian`].
#[derive(Debug, Clone)]
pub struct BrownianNoise {
    tree: BrownianTree,
    shape: Vec<usize>,
    device: Device,
}

impl BrownianNoise {
    /// `(W(to) - W(from)) / √|to - from|`: standard normal, and the same whenever the same is asked.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn between(&self, from: f64, to: f64) -> Result<Tensor> {
        let (from, to) = (single(from), single(to));
        let mut values = self.tree.increment(from.min(to), from.max(to));
        let deviation = ((to as f32) - (from as f32)).abs().sqrt();
        let sign = if from < to { 1.0 } else { -1.0 };
        for value in &mut values {
            *value = if deviation > 0.0 { sign * *value / deviation } else { 0.0 };
        }
        Ok(Tensor::from_vec(values, self.shape.as_slice(), &self.device)?)
    }
}

/// ComfyUI's sigmas are f32.
fn single(sigma: f64) -> f64 {
    f64::from(sigma as f32)
}
