//! The residual block of UNet and autoencoder (`ResnetBlock2D`): two rounds of group norm, SiLU and a 3×3 convolution, with the
//! time embedding added between them.

use super::layers::{conv2d, conv3x3, group_norm, linear};
use crate::Result;
use crate::checkpoint::Weights;
use crate::ops::{Conv2d, GroupNorm, Linear, Tape, Traced, add, add_per_channel};

/// The sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResnetConfig {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    /// Width of the time embedding; the autoencoder has none.
    pub(super) temb_channels: Option<usize>,
    pub(super) groups: usize,
    pub(super) eps: f64,
}

#[derive(Debug)]
pub(super) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock2D {
    pub(super) fn new(config: ResnetConfig, weights: &Weights) -> Result<Self> {
        let ResnetConfig { in_channels, out_channels, temb_channels, groups, eps } = config;
        Ok(Self {
            norm1: group_norm(&weights.at("norm1"), groups, in_channels, eps)?,
            conv1: conv3x3(&weights.at("conv1"), in_channels, out_channels)?,
            time_emb_proj: temb_channels
                .map(|temb| linear(&weights.at("time_emb_proj"), temb, out_channels))
                .transpose()?,
            norm2: group_norm(&weights.at("norm2"), groups, out_channels, eps)?,
            conv2: conv3x3(&weights.at("conv2"), out_channels, out_channels)?,
            conv_shortcut: if in_channels == out_channels {
                None
            } else {
                Some(conv2d(&weights.at("conv_shortcut"), in_channels, out_channels, 1, 1, 0)?)
            },
        })
    }

    /// `x [B, C, H, W]`, SiLU(temb) `[B, temb_channels]` → `[B, C′, H, W]`. All blocks see the same embedding, so its activation is made once, outside.
    pub(super) fn forward(&self, tape: &Tape, x: &Traced, temb: Option<&Traced>) -> Result<Traced> {
        let mut h = self.conv1.forward(tape, &self.norm1.forward_silu(tape, x)?)?;
        if let (Some(proj), Some(temb)) = (&self.time_emb_proj, temb) {
            h = add_per_channel(tape, &h, &proj.forward(tape, temb)?)?;
        }
        let h = self.conv2.forward(tape, &self.norm2.forward_silu(tape, &h)?)?;
        match &self.conv_shortcut {
            Some(shortcut) => add(tape, &shortcut.forward(tape, x)?, &h),
            None => add(tape, x, &h),
        }
    }
}
