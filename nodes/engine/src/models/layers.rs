//! Layers read from named weights.

use crate::Result;
use crate::checkpoint::Weights;
use crate::ops::{Conv2d, GroupNorm, LayerNorm, Linear};

pub(super) fn linear(weights: &Weights, inner: usize, out: usize) -> Result<Linear> {
    Ok(Linear { weight: weights.get("weight", &[out, inner])?, bias: Some(weights.get("bias", &[out])?) })
}

pub(super) fn linear_no_bias(weights: &Weights, inner: usize, out: usize) -> Result<Linear> {
    Ok(Linear { weight: weights.get("weight", &[out, inner])?, bias: None })
}

/// A 3×3 convolution that keeps the size.
pub(super) fn conv3x3(weights: &Weights, c: usize, o: usize) -> Result<Conv2d> {
    conv2d(weights, c, o, 3, 1, 1)
}

pub(super) fn conv2d(
    weights: &Weights,
    c: usize,
    o: usize,
    k: usize,
    stride: usize,
    padding: usize,
) -> Result<Conv2d> {
    let weight = weights.get("weight", &[o, c, k, k])?;
    Ok(Conv2d { weight, bias: Some(weights.get("bias", &[o])?), stride, padding })
}

pub(super) fn group_norm(weights: &Weights, num_groups: usize, c: usize, eps: f64) -> Result<GroupNorm> {
    Ok(GroupNorm { weight: weights.get("weight", &[c])?, bias: weights.get("bias", &[c])?, num_groups, eps })
}

pub(super) fn layer_norm(weights: &Weights, c: usize, eps: f64) -> Result<LayerNorm> {
    Ok(LayerNorm { weight: weights.get("weight", &[c])?, bias: weights.get("bias", &[c])?, eps })
}
