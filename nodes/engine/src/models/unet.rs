//! The denoiser: `UNet2DConditionModel` of the structure of Stable Diffusion 1, in any widths and depths.

use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

use super::layers::{conv2d, conv3x3, group_norm, linear};
use super::resnet::{ResnetBlock2D, ResnetConfig};
use super::settings::{OtherSettings, refuse_others};
use super::transformer::{Transformer2DModel, TransformerConfig};
use crate::checkpoint::Weights;
use crate::ops::{
    Conv2d, GroupNorm, Linear, Tape, Traced, concat_channels, silu, transfer, upsample_nearest_2x,
};
use crate::{Error, Result};

/// `unet/config.json`, as far as this structure needs it.
#[derive(Debug, Clone, Deserialize)]
pub struct UNet2DConditionConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// `CrossAttnDownBlock2D` or `DownBlock2D` for each level.
    pub down_block_types: Vec<String>,
    /// `CrossAttnUpBlock2D` or `UpBlock2D` for each level, deepest first.
    pub up_block_types: Vec<String>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Width of the text encoder's output.
    pub cross_attention_dim: usize,
    /// Named so by diffusers, but the *number* of heads: one for all levels, or one for each.
    #[serde(default = "eight")]
    pub attention_head_dim: OneOrEach,
    /// Groups of the group norms.
    #[serde(default = "thirty_two")]
    pub norm_num_groups: usize,
    /// ε of the group norms.
    #[serde(default = "small")]
    pub norm_eps: f64,
    /// Transformer blocks of each spatial transformer.
    #[serde(default = "one")]
    pub transformer_layers_per_block: OneOrEach,
    /// Linear layers instead of 1×1 convolutions around the transformer blocks.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Whether cosines come before sines in the time embedding.
    #[serde(default = "yes")]
    pub flip_sin_to_cos: bool,
    /// Shift of the frequencies of the time embedding.
    #[serde(default)]
    pub freq_shift: f64,
    /// The number of heads, in configurations that name it rightly; it counts before [`attention_head_dim`](Self::attention_head_dim).
    #[serde(default)]
    pub num_attention_heads: Option<OneOrEach>,
    #[serde(flatten)]
    others: OtherSettings,
}

/// One number for all levels, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum OneOrEach {
    /// For all levels.
    One(usize),
    /// For each level.
    Each(Vec<usize>),
}

impl OneOrEach {
    fn at(&self, level: usize) -> usize {
        match self {
            Self::One(n) => *n,
            Self::Each(all) => all.get(level).or(all.last()).copied().unwrap_or(1),
        }
    }
}

fn eight() -> OneOrEach {
    OneOrEach::One(8)
}
fn one() -> OneOrEach {
    OneOrEach::One(1)
}
fn thirty_two() -> usize {
    32
}
fn small() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

/// A residual block and the transformer after it, on levels that have one.
type Layer = (ResnetBlock2D, Option<Transformer2DModel>);

#[derive(Debug)]
struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Conv2d>,
}

#[derive(Debug)]
struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Conv2d>,
}

/// The denoiser.
#[derive(Debug)]
pub struct UNet2DConditionModel {
    config: UNet2DConditionConfig,
    time_embedding: (Linear, Linear),
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: (ResnetBlock2D, Transformer2DModel, ResnetBlock2D),
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// Read the model from weights in diffusers' names.
    pub fn new(config: &UNet2DConditionConfig, weights: &Weights) -> Result<Self> {
        config.check(&weights.origin())?;
        let channels = &config.block_out_channels;
        let (levels, first, deepest) = (channels.len(), channels[0], channels[channels.len() - 1]);
        let temb_channels = 4 * first;
        let resnet = |in_channels, out_channels, weights: &Weights| {
            let (groups, eps) = (config.norm_num_groups, config.norm_eps);
            let config =
                ResnetConfig { in_channels, out_channels, temb_channels: Some(temb_channels), groups, eps };
            ResnetBlock2D::new(config, weights)
        };
        let transformer = |level: usize, weights: &Weights| {
            let config = TransformerConfig {
                channels: channels[level],
                heads: config.num_attention_heads.as_ref().unwrap_or(&config.attention_head_dim).at(level),
                depth: config.transformer_layers_per_block.at(level),
                cross_attention_dim: config.cross_attention_dim,
                groups: config.norm_num_groups,
                use_linear_projection: config.use_linear_projection,
            };
            Transformer2DModel::new(config, weights)
        };

        let mut down_blocks = Vec::new();
        for (level, kind) in config.down_block_types.iter().enumerate() {
            let weights = weights.at("down_blocks").at(level);
            let (input, output) = (channels[level.saturating_sub(1)], channels[level]);
            let layers = (0..config.layers_per_block)
                .map(|i| {
                    let input = if i == 0 { input } else { output };
                    let attentions = weights.at("attentions").at(i);
                    Ok((
                        resnet(input, output, &weights.at("resnets").at(i))?,
                        has_attention(kind).then(|| transformer(level, &attentions)).transpose()?,
                    ))
                })
                .collect::<Result<_>>()?;
            let downsampler = (level + 1 < levels)
                .then(|| conv2d(&weights.at("downsamplers.0.conv"), output, output, 3, 2, 1))
                .transpose()?;
            down_blocks.push(DownBlock { layers, downsampler });
        }

        let mid = weights.at("mid_block");
        let mid_block = (
            resnet(deepest, deepest, &mid.at("resnets.0"))?,
            transformer(levels - 1, &mid.at("attentions.0"))?,
            resnet(deepest, deepest, &mid.at("resnets.1"))?,
        );

        let mut up_blocks = Vec::new();
        let mut previous = deepest;
        for (i, kind) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let weights = weights.at("up_blocks").at(i);
            let output = channels[level];
            let below = channels[level.saturating_sub(1)];
            let layers = (0..=config.layers_per_block)
                .map(|j| {
                    let input = if j == 0 { previous } else { output };
                    let skip = if j == config.layers_per_block { below } else { output };
                    let attentions = weights.at("attentions").at(j);
                    Ok((
                        resnet(input + skip, output, &weights.at("resnets").at(j))?,
                        has_attention(kind).then(|| transformer(level, &attentions)).transpose()?,
                    ))
                })
                .collect::<Result<_>>()?;
            let upsampler =
                (level > 0).then(|| conv3x3(&weights.at("upsamplers.0.conv"), output, output)).transpose()?;
            up_blocks.push(UpBlock { layers, upsampler });
            previous = output;
        }

        Ok(Self {
            time_embedding: (
                linear(&weights.at("time_embedding.linear_1"), first, temb_channels)?,
                linear(&weights.at("time_embedding.linear_2"), temb_channels, temb_channels)?,
            ),
            conv_in: conv3x3(&weights.at("conv_in"), config.in_channels, first)?,
            down_blocks,
            mid_block,
            up_blocks,
            conv_norm_out: group_norm(
                &weights.at("conv_norm_out"),
                config.norm_num_groups,
                first,
                config.norm_eps,
            )?,
            conv_out: conv3x3(&weights.at("conv_out"), first, config.out_channels)?,
            config: config.clone(),
        })
    }

    /// The configuration that the model was read with.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// Where the weights are, and in which type.
    pub fn device(&self) -> &Device {
        self.conv_in.weight.device()
    }

    /// The type that this model computes in: the weights' own, but f32 on the CPU.
    pub fn compute_dtype(&self) -> candle_core::DType {
        compute_dtype(&self.conv_in.weight)
    }

    /// The prediction for `x [B, C, H, W]` of any size at `timesteps` (one for each picture; fractions are allowed) under `context [B, T, D]`.
    pub fn forward(&self, tape: &Tape, x: &Traced, timesteps: &[f64], context: &Traced) -> Result<Traced> {
        let (batch, channels, height, width) = x.value().dims4()?;
        if channels != self.config.in_channels || height * width == 0 {
            return Err(Error::invalid(format!(
                "latents of shape {:?} do not fit a UNet of {} channels",
                x.dims(),
                self.config.in_channels
            )));
        }
        if context.value().dim(2)? != self.config.cross_attention_dim || context.value().dim(0)? != batch {
            return Err(Error::incompatible(format!(
                "the conditioning has shape {:?}, but this UNet wants [{batch}, tokens, {}]",
                context.dims(),
                self.config.cross_attention_dim
            ))
            .help("the prompt was encoded with the text encoder of another model family"));
        }
        // Text encoder and autoencoder may be kept in another type, or elsewhere.
        let x = &transfer(tape, x, self.compute_dtype(), self.device())?;
        let context = &transfer(tape, context, self.compute_dtype(), self.device())?;
        let temb = self.time_embedding(timesteps, batch)?;
        let temb = Some(&temb);

        let mut h = self.conv_in.forward(tape, x)?;
        let mut skips = vec![h.clone()];
        for block in &self.down_blocks {
            for layer in &block.layers {
                h = run(tape, layer, &h, temb, context)?;
                skips.push(h.clone());
            }
            if let Some(downsampler) = &block.downsampler {
                h = downsampler.forward(tape, &h)?;
                skips.push(h.clone());
            }
        }

        let (first, transformer, second) = &self.mid_block;
        h = first.forward(tape, &h, temb)?;
        h = transformer.forward(tape, &h, context)?;
        h = second.forward(tape, &h, temb)?;

        for block in &self.up_blocks {
            for layer in &block.layers {
                let Some(skip) = skips.pop() else {
                    return Err(Error::incompatible(
                        "the UNet has more layers on its way up than on its way down",
                    ));
                };
                h = run(tape, layer, &concat_channels(tape, &h, &skip)?, temb, context)?;
            }
            if let Some(upsampler) = &block.upsampler {
                // To the size of the skip that is next: sides that are no multiples of 2^levels were rounded up on the way down.
                let size = match skips.last() {
                    Some(skip) => block_size(skip)?,
                    None => block_size(&h).map(|(height, width)| (2 * height, 2 * width))?,
                };
                h = upsampler.forward(tape, &upsample_nearest_2x(tape, &h, size)?)?;
            }
        }
        self.conv_out.forward(tape, &self.conv_norm_out.forward_silu(tape, &h)?)
    }

    /// Sinusoids of the timesteps (Vaswani et al. 2017; `get_timestep_embedding` in diffusers), then two linear layers. Computed in
    /// f64 up to the layers: at t = 999 half precision would leave nothing of the phase.
    fn time_embedding(&self, timesteps: &[f64], batch: usize) -> Result<Tensor> {
        if timesteps.len() != batch {
            return Err(Error::invalid(format!("{} timesteps for a batch of {batch}", timesteps.len())));
        }
        let half = self.config.block_out_channels[0] / 2;
        let frequency = |i: usize| (-(1e4f64.ln()) * i as f64 / (half as f64 - self.config.freq_shift)).exp();
        let mut values = Vec::with_capacity(batch * 2 * half);
        for t in timesteps {
            let angles = (0..half).map(|i| t * frequency(i));
            let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
            let (first, second) = if self.config.flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            values.extend(first);
            values.extend(second);
        }
        let emb =
            Tensor::from_vec(values, (batch, 2 * half), self.device())?.to_dtype(self.compute_dtype())?;
        let (linear_1, linear_2) = &self.time_embedding;
        linear_2.apply(&silu(&linear_1.apply(&emb)?)?)
    }
}

/// The type that is computed in with this weight: its own, but f32 on the CPU.
pub(super) fn compute_dtype(weight: &Tensor) -> candle_core::DType {
    if weight.device().is_cpu() { candle_core::DType::F32 } else { weight.dtype() }
}

fn run(
    tape: &Tape,
    (resnet, attention): &Layer,
    x: &Traced,
    temb: Option<&Tensor>,
    context: &Traced,
) -> Result<Traced> {
    let h = resnet.forward(tape, x, temb)?;
    match attention {
        Some(attention) => attention.forward(tape, &h, context),
        None => Ok(h),
    }
}

/// Height and width.
fn block_size(x: &Traced) -> Result<(usize, usize)> {
    let (_, _, height, width) = x.value().dims4()?;
    Ok((height, width))
}

fn has_attention(kind: &str) -> bool {
    kind.starts_with("CrossAttn")
}

impl UNet2DConditionConfig {
    fn check(&self, origin: &str) -> Result<()> {
        refuse_others(
            "UNet",
            origin,
            &self.others,
            &[
                ("act_fn", json!("silu")),
                ("addition_embed_type", Value::Null),
                ("class_embed_type", Value::Null),
                ("conv_in_kernel", json!(3)),
                ("conv_out_kernel", json!(3)),
                ("dual_cross_attention", json!(false)),
                ("encoder_hid_dim", Value::Null),
                ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
                ("num_class_embeds", Value::Null),
                ("only_cross_attention", json!(false)),
                ("resnet_time_scale_shift", json!("default")),
                ("time_cond_proj_dim", Value::Null),
                ("time_embedding_type", json!("positional")),
            ],
        )?;
        let levels = self.block_out_channels.len();
        let problem =
            if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
                format!(
                    "{levels} widths, {} down blocks, {} up blocks",
                    self.down_block_types.len(),
                    self.up_block_types.len()
                )
            } else if let Some(kind) = self.down_block_types.iter().chain(&self.up_block_types).find(|kind| {
                !["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]
                    .contains(&kind.as_str())
            }) {
                format!("block type {kind} is not known")
            } else if self
                .block_out_channels
                .iter()
                .any(|c| self.norm_num_groups == 0 || c % self.norm_num_groups != 0)
            {
                format!(
                    "widths {:?} cannot be normed in {} groups",
                    self.block_out_channels, self.norm_num_groups
                )
            } else {
                return Ok(());
            };
        Err(Error::incompatible(format!(
            "{origin}: this UNet is not of Stable Diffusion 1's structure: {problem}"
        )))
    }
}
