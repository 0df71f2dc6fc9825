//! The spatial transformer of the UNet (`Transformer2DModel`): places as tokens that look at each other and at the text.

use super::layers::{conv2d, group_norm, layer_norm, linear, linear_no_bias};
use crate::Result;
use crate::checkpoint::Weights;
use crate::ops::{
    Conv2d, GroupNorm, LayerNorm, Linear, Mask, Tape, Traced, add, attention, from_tokens, geglu, to_tokens,
};

/// The sizes of a spatial transformer.
#[derive(Debug, Clone, Copy)]
pub(super) struct TransformerConfig {
    pub(super) channels: usize,
    pub(super) heads: usize,
    pub(super) depth: usize,
    pub(super) cross_attention_dim: usize,
    pub(super) groups: usize,
    pub(super) use_linear_projection: bool,
}

#[derive(Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    fn new(channels: usize, context: usize, heads: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            to_q: linear_no_bias(&weights.at("to_q"), channels, channels)?,
            to_k: linear_no_bias(&weights.at("to_k"), context, channels)?,
            to_v: linear_no_bias(&weights.at("to_v"), context, channels)?,
            to_out: linear(&weights.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    fn forward(&self, tape: &Tape, x: &Traced, context: &Traced) -> Result<Traced> {
        let q = self.to_q.forward(tape, x)?;
        let k = self.to_k.forward(tape, context)?;
        let v = self.to_v.forward(tape, context)?;
        let o = attention(tape, &q, &k, &v, self.heads, Mask::None)?;
        self.to_out.forward(tape, &o)
    }
}

#[derive(Debug)]
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
}

impl BasicTransformerBlock {
    fn new(config: TransformerConfig, weights: &Weights) -> Result<Self> {
        let TransformerConfig { channels, heads, cross_attention_dim, .. } = config;
        Ok(Self {
            norm1: layer_norm(&weights.at("norm1"), channels, 1e-5)?,
            attn1: Attention::new(channels, channels, heads, &weights.at("attn1"))?,
            norm2: layer_norm(&weights.at("norm2"), channels, 1e-5)?,
            attn2: Attention::new(channels, cross_attention_dim, heads, &weights.at("attn2"))?,
            norm3: layer_norm(&weights.at("norm3"), channels, 1e-5)?,
            ff_in: linear(&weights.at("ff.net.0.proj"), channels, 8 * channels)?,
            ff_out: linear(&weights.at("ff.net.2"), 4 * channels, channels)?,
        })
    }

    fn forward(&self, tape: &Tape, x: &Traced, context: &Traced) -> Result<Traced> {
        let h = self.norm1.forward(tape, x)?;
        let x = add(tape, &self.attn1.forward(tape, &h, &h)?, x)?;
        let h = self.norm2.forward(tape, &x)?;
        let x = add(tape, &self.attn2.forward(tape, &h, context)?, &x)?;
        let h = self.norm3.forward(tape, &x)?;
        let h = geglu(tape, &self.ff_in.forward(tape, &h)?)?;
        add(tape, &self.ff_out.forward(tape, &h)?, &x)
    }
}

/// The way into and out of tokens: a 1×1 convolution before the change of layout, or a linear layer after it.
#[derive(Debug)]
enum Projection {
    Conv(Conv2d, Conv2d),
    Linear(Linear, Linear),
}

#[derive(Debug)]
pub(super) struct Transformer2DModel {
    norm: GroupNorm,
    proj: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
}

impl Transformer2DModel {
    pub(super) fn new(config: TransformerConfig, weights: &Weights) -> Result<Self> {
        let c = config.channels;
        let (proj_in, proj_out) = (weights.at("proj_in"), weights.at("proj_out"));
        Ok(Self {
            norm: group_norm(&weights.at("norm"), config.groups, c, 1e-6)?,
            proj: if config.use_linear_projection {
                Projection::Linear(linear(&proj_in, c, c)?, linear(&proj_out, c, c)?)
            } else {
                Projection::Conv(conv2d(&proj_in, c, c, 1, 1, 0)?, conv2d(&proj_out, c, c, 1, 1, 0)?)
            },
            transformer_blocks: (0..config.depth)
                .map(|i| BasicTransformerBlock::new(config, &weights.at("transformer_blocks").at(i)))
                .collect::<Result<_>>()?,
        })
    }

    /// `x [B, C, H, W]`, `context [B, T, D]` → `[B, C, H, W]`.
    pub(super) fn forward(&self, tape: &Tape, x: &Traced, context: &Traced) -> Result<Traced> {
        let (_, _, h, w) = x.value().dims4()?;
        let normed = self.norm.forward(tape, x)?;
        let mut tokens = match &self.proj {
            Projection::Conv(proj_in, _) => to_tokens(tape, &proj_in.forward(tape, &normed)?)?,
            Projection::Linear(proj_in, _) => proj_in.forward(tape, &to_tokens(tape, &normed)?)?,
        };
        for block in &self.transformer_blocks {
            tokens = block.forward(tape, &tokens, context)?;
        }
        let y = match &self.proj {
            Projection::Conv(_, proj_out) => proj_out.forward(tape, &from_tokens(tape, &tokens, h, w)?)?,
            Projection::Linear(_, proj_out) => from_tokens(tape, &proj_out.forward(tape, &tokens)?, h, w)?,
        };
        add(tape, &y, x)
    }
}
