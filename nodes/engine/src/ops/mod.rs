//! Frozen, fused, differentiable operations.
//!
//! Each file holds one operation: the formula, the forward pass and, beside it, the gradient of its *input*. Weights are frozen, so
//! no gradient of a weight exists anywhere. On the CPU in f32 the operations run as own kernels; on any other device or type they
//! are composed of candle's operations, with the same gradients. Tensors are `[B, C, H, W]` in the convolutional parts and
//! `[B, T, C]` (batch, tokens, channels) in the transformers, as in the checkpoints.

mod activation;
mod attention;
mod conv2d;
mod elementwise;
mod gemm;
mod group_norm;
mod layer_norm;
mod linear;
mod math;
mod resample;
mod rows;
mod splice;
mod tape;
mod transfer;
mod view;

pub use activation::{Activation, activation, geglu};
pub use attention::{Mask, attention};
pub use conv2d::Conv2d;
pub(crate) use elementwise::all_finite;
pub use elementwise::{add, add_per_channel};
pub use group_norm::GroupNorm;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use resample::upsample_nearest_2x;
pub use rows::{columns, concat, from_tokens, pick_tokens, to_tokens};
pub use splice::splice_rows;
pub use tape::{Tape, Traced};
pub use transfer::transfer;

#[cfg(test)]
mod checks;
