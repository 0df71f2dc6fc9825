//! The autoencoder between pictures and latents: `AutoencoderKL` (Rombach et al. 2022).

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layers::{conv2d, conv3x3, group_norm, linear};
use super::resnet::{ResnetBlock2D, ResnetConfig};
use super::settings::{OtherSettings, refuse_others};
use super::unet::compute_dtype;
use crate::checkpoint::Weights;
use crate::ops::{
    Conv2d, GroupNorm, Linear, Mask, Tape, Traced, add, all_finite, attention, from_tokens, to_tokens,
    upsample_nearest_2x,
};
use crate::{CancelToken, Error, ErrorKind, Result};

/// `vae/config.json`, as far as this structure needs it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct AutoencoderKLConfig {
    /// Channels of a picture.
    #[serde(default = "three")]
    pub in_channels: usize,
    /// Channels of a picture.
    #[serde(default = "three")]
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level of the encoder; one more in the decoder.
    pub layers_per_block: usize,
    /// Channels of the latents.
    #[serde(default = "four")]
    pub latent_channels: usize,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// s: latents are multiplied by it before they are noised.
    #[serde(default = "stable_diffusion_1")]
    pub scaling_factor: f64,
    #[serde(flatten)]
    others: OtherSettings,
}

fn three() -> usize {
    3
}
fn four() -> usize {
    4
}
fn thirty_two() -> usize {
    32
}
fn stable_diffusion_1() -> f64 {
    0.18215
}

const EPS: f64 = 1e-6;

/// What the encoder says of a picture: independent normal distributions, one for each number of the latent.
#[derive(Debug, Clone)]
pub struct LatentPosterior {
    /// `[B, 4, h, w]`, not scaled.
    pub mean: Tensor,
    /// `[B, 4, h, w]`, not scaled.
    pub std: Tensor,
}

/// Self-attention over all places in one head.
#[derive(Debug)]
struct AttentionBlock {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl AttentionBlock {
    fn new(c: usize, groups: usize, weights: &Weights) -> Result<Self> {
        // Files from before 2023 carry the older names.
        let layer = |name: &str, old: &str| {
            let name = if weights.at(old).contains("weight") { old } else { name };
            linear(&weights.at(name), c, c)
        };
        Ok(Self {
            group_norm: group_norm(&weights.at("group_norm"), groups, c, EPS)?,
            to_q: layer("to_q", "query")?,
            to_k: layer("to_k", "key")?,
            to_v: layer("to_v", "value")?,
            to_out: layer("to_out.0", "proj_attn")?,
        })
    }

    fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        let (_, _, h, w) = x.value().dims4()?;
        let tokens = to_tokens(tape, &self.group_norm.forward(tape, x)?)?;
        let q = self.to_q.forward(tape, &tokens)?;
        let k = self.to_k.forward(tape, &tokens)?;
        let v = self.to_v.forward(tape, &tokens)?;
        let o = self.to_out.forward(tape, &attention(tape, &q, &k, &v, 1, Mask::None)?)?;
        add(tape, &from_tokens(tape, &o, h, w)?, x)
    }
}

#[derive(Debug)]
struct Mid(ResnetBlock2D, AttentionBlock, ResnetBlock2D);

impl Mid {
    fn new(c: usize, groups: usize, weights: &Weights) -> Result<Self> {
        let resnet = |i: usize| ResnetBlock2D::new(resnet_config(c, c, groups), &weights.at("resnets").at(i));
        Ok(Self(resnet(0)?, AttentionBlock::new(c, groups, &weights.at("attentions.0"))?, resnet(1)?))
    }

    fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        let x = self.0.forward(tape, x, None)?;
        let x = self.1.forward(tape, &x)?;
        self.2.forward(tape, &x, None)
    }
}

fn resnet_config(in_channels: usize, out_channels: usize, groups: usize) -> ResnetConfig {
    ResnetConfig { in_channels, out_channels, temb_channels: None, groups, eps: EPS }
}

/// A level: residual blocks, then the convolution that changes the size, if any.
type Level = (Vec<ResnetBlock2D>, Option<Conv2d>);

#[derive(Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Level>,
    mid_block: Mid,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Conv2d,
}

#[derive(Debug)]
struct Decoder {
    post_quant_conv: Conv2d,
    conv_in: Conv2d,
    mid_block: Mid,
    up_blocks: Vec<Level>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// The autoencoder.
#[derive(Debug)]
pub struct AutoencoderKL {
    config: AutoencoderKLConfig,
    state_dict: BTreeMap<String, Tensor>,
    encoder: Encoder,
    decoder: Decoder,
}

impl AutoencoderKL {
    /// Read the model from weights in diffusers' names.
    pub fn new(config: &AutoencoderKLConfig, weights: &Weights) -> Result<Self> {
        refuse_others(
            "autoencoder",
            &weights.origin(),
            &config.others,
            &[
                ("act_fn", json!("silu")),
                ("latents_mean", Value::Null),
                ("latents_std", Value::Null),
                ("mid_block_add_attention", json!(true)),
                ("shift_factor", Value::Null),
                ("use_post_quant_conv", json!(true)),
                ("use_quant_conv", json!(true)),
            ],
        )?;
        let channels = &config.block_out_channels;
        let groups = config.norm_num_groups;
        if channels.is_empty() || groups == 0 || channels.iter().any(|c| c % groups != 0) {
            return Err(Error::incompatible(format!(
                "{}: widths {channels:?} of the autoencoder cannot be normed in {groups} groups",
                weights.origin()
            )));
        }
        let (levels, first, deepest) = (channels.len(), channels[0], channels[channels.len() - 1]);
        let latent = config.latent_channels;
        let level = |weights: &Weights, input: usize, output: usize, count: usize| {
            (0..count)
                .map(|i| {
                    let input = if i == 0 { input } else { output };
                    ResnetBlock2D::new(resnet_config(input, output, groups), &weights.at("resnets").at(i))
                })
                .collect::<Result<Vec<_>>>()
        };

        let at = weights.at("encoder");
        let down_blocks = (0..levels)
            .map(|i| {
                let weights = at.at("down_blocks").at(i);
                let output = channels[i];
                let downsampler = weights.at("downsamplers.0.conv");
                Ok((
                    level(&weights, channels[i.saturating_sub(1)], output, config.layers_per_block)?,
                    (i + 1 < levels).then(|| conv2d(&downsampler, output, output, 3, 2, 0)).transpose()?,
                ))
            })
            .collect::<Result<_>>()?;
        let encoder = Encoder {
            conv_in: conv3x3(&at.at("conv_in"), config.in_channels, first)?,
            down_blocks,
            mid_block: Mid::new(deepest, groups, &at.at("mid_block"))?,
            conv_norm_out: group_norm(&at.at("conv_norm_out"), groups, deepest, EPS)?,
            conv_out: conv3x3(&at.at("conv_out"), deepest, 2 * latent)?,
            quant_conv: conv2d(&weights.at("quant_conv"), 2 * latent, 2 * latent, 1, 1, 0)?,
        };

        let at = weights.at("decoder");
        let up_blocks = (0..levels)
            .map(|i| {
                let weights = at.at("up_blocks").at(i);
                let output = channels[levels - 1 - i];
                let input = if i == 0 { deepest } else { channels[levels - i] };
                let upsampler = weights.at("upsamplers.0.conv");
                Ok((
                    level(&weights, input, output, config.layers_per_block + 1)?,
                    (i + 1 < levels).then(|| conv3x3(&upsampler, output, output)).transpose()?,
                ))
            })
            .collect::<Result<_>>()?;
        let decoder = Decoder {
            post_quant_conv: conv2d(&weights.at("post_quant_conv"), latent, latent, 1, 1, 0)?,
            conv_in: conv3x3(&at.at("conv_in"), latent, deepest)?,
            mid_block: Mid::new(deepest, groups, &at.at("mid_block"))?,
            up_blocks,
            conv_norm_out: group_norm(&at.at("conv_norm_out"), groups, first, EPS)?,
            conv_out: conv3x3(&at.at("conv_out"), first, config.out_channels)?,
        };
        Ok(Self { config: config.clone(), state_dict: weights.state_dict(), encoder, decoder })
    }

    /// All weights in diffusers' names. They are shared with the model.
    pub fn state_dict(&self) -> &BTreeMap<String, Tensor> {
        &self.state_dict
    }

    /// The configuration that the model was read with.
    pub fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.encoder.conv_in.weight.device()
    }

    /// Pixels per latent place, along a side.
    pub fn factor(&self) -> usize {
        1 << (self.config.block_out_channels.len() - 1)
    }

    /// The posterior of `pixels [B, 3, H, W]` in −1..1; H and W must be multiples of [`factor`](Self::factor).
    pub fn encode(&self, pixels: &Tensor, cancel: &CancelToken) -> Result<LatentPosterior> {
        let tape = &Tape::new(cancel.clone());
        let (_, channels, height, width) = pixels.dims4()?;
        let factor = self.factor();
        if channels != self.config.in_channels
            || height % factor != 0
            || width % factor != 0
            || height * width == 0
        {
            return Err(Error::invalid(format!(
                "pictures of shape {:?} cannot be encoded: {} channels and sides in multiples of {factor} are wanted",
                pixels.dims(),
                self.config.in_channels
            )));
        }
        let encoder = &self.encoder;
        let pixels = pixels.to_device(self.device())?.to_dtype(compute_dtype(&encoder.conv_in.weight))?;
        let mut h = encoder.conv_in.forward(tape, &pixels.into())?;
        for (resnets, downsampler) in &encoder.down_blocks {
            for resnet in resnets {
                h = resnet.forward(tape, &h, None)?;
            }
            if let Some(downsampler) = downsampler {
                // Zeros to the right and below only.
                let padded = h.value().pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?;
                h = downsampler.forward(tape, &padded.into())?;
            }
        }
        let h = encoder.mid_block.forward(tape, &h)?;
        let h = encoder.conv_out.forward(tape, &encoder.conv_norm_out.forward_silu(tape, &h)?)?;
        let moments = encoder.quant_conv.forward(tape, &h)?.into_value().to_dtype(DType::F32)?;
        let latent = self.config.latent_channels;
        check_finite(&moments, "encoder", &encoder.conv_in)?;
        let log_variance = moments.narrow(1, latent, latent)?.clamp(-30f32, 20f32)?;
        Ok(LatentPosterior {
            mean: moments.narrow(1, 0, latent)?.contiguous()?,
            std: (log_variance * 0.5)?.exp()?.contiguous()?,
        })
    }

    /// The pictures `[B, 3, H, W]` of unscaled latents `[B, 4, h, w]`, about −1..1 and not clamped.
    pub fn decode(&self, latents: &Tensor, cancel: &CancelToken) -> Result<Tensor> {
        let tape = &Tape::new(cancel.clone());
        if latents.dims4()?.1 != self.config.latent_channels {
            return Err(Error::incompatible(format!(
                "latents of shape {:?} cannot be decoded: {} channels are wanted",
                latents.dims(),
                self.config.latent_channels
            )));
        }
        let decoder = &self.decoder;
        let latents = latents.to_device(self.device())?.to_dtype(compute_dtype(&decoder.conv_in.weight))?;
        let h = decoder.post_quant_conv.forward(tape, &latents.into())?;
        let mut h = decoder.mid_block.forward(tape, &decoder.conv_in.forward(tape, &h)?)?;
        for (resnets, upsampler) in &decoder.up_blocks {
            for resnet in resnets {
                h = resnet.forward(tape, &h, None)?;
            }
            if let Some(upsampler) = upsampler {
                let (_, _, height, width) = h.value().dims4()?;
                let doubled = upsample_nearest_2x(tape, &h, (2 * height, 2 * width))?;
                h = upsampler.forward(tape, &doubled)?;
            }
        }
        let h = decoder.conv_out.forward(tape, &decoder.conv_norm_out.forward_silu(tape, &h)?)?;
        let pixels = h.into_value().to_dtype(DType::F32)?;
        check_finite(&pixels, "decoder", &decoder.conv_in)?;
        Ok(pixels)
    }
}

/// Half precision overflows in some autoencoders, of SDXL's first release above all; black pictures would be all that one sees of it.
fn check_finite(x: &Tensor, side: &str, layer: &Conv2d) -> Result<()> {
    if all_finite(x)? {
        return Ok(());
    }
    let dtype = layer.weight.dtype();
    Err(Error::new(ErrorKind::Internal, format!("the {side} of the autoencoder left the finite numbers in {dtype:?}"))
        .help("load the checkpoint with precision f32 or bf16; if it is so already, the latents or pictures are not finite"))
}
