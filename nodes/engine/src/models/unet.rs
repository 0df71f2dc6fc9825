//! The denoiser: `UNet2DConditionModel` of the structure of Stable Diffusion, in any widths and depths.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::layers::{conv2d, conv3x3, group_norm, linear};
use super::resnet::{ResnetBlock2D, ResnetConfig};
use super::transformer::{Transformer2DModel, TransformerConfig};
use super::unet_config::UNet2DConditionConfig;
use crate::checkpoint::Weights;
use crate::ops::{
    Activation, Conv2d, GroupNorm, Linear, Tape, Traced, activation, add, concat, transfer,
    upsample_nearest_2x,
};
use crate::{Error, Result};

/// What SDXL is told beside the prompt (Podell et al. 2023, section 2.2).
#[derive(Debug, Clone)]
pub struct AddedConditioning {
    /// `[B, P]`: the pooled and projected state of the last text encoder.
    pub text_embeds: Traced,
    /// Of each picture.
    pub time_ids: Vec<TimeIds>,
}

/// Where a training picture came from, in pixels: original height and width, top and left of the crop, target height and width.
pub type TimeIds = [f64; 6];

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
    state_dict: BTreeMap<String, Tensor>,
    time_embedding: (Linear, Linear),
    add_embedding: Option<(Linear, Linear)>,
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
                heads: config.heads().at(level),
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

        let embedding = |name: &str, inner: usize| -> Result<(Linear, Linear)> {
            let weights = weights.at(name);
            Ok((
                linear(&weights.at("linear_1"), inner, temb_channels)?,
                linear(&weights.at("linear_2"), temb_channels, temb_channels)?,
            ))
        };
        Ok(Self {
            time_embedding: embedding("time_embedding", first)?,
            add_embedding: match config.addition_embed_type {
                Some(_) => {
                    let inner = config.projection_class_embeddings_input_dim.unwrap_or(0);
                    Some(embedding("add_embedding", inner)?)
                }
                None => None,
            },
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
            state_dict: weights.state_dict(),
        })
    }

    /// All weights in diffusers' names. They are shared with the model.
    pub fn state_dict(&self) -> &BTreeMap<String, Tensor> {
        &self.state_dict
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

    /// The prediction for `x [B, C, H, W]` of any size at `timesteps` (one for each picture; fractions are allowed) under `context [B, T, D]` and,
    /// for SDXL, `added`; other models leave it aside. An inpainting model that is given latents alone is told that all is to be painted.
    pub fn forward(
        &self,
        tape: &Tape,
        x: &Traced,
        timesteps: &[f64],
        context: &Traced,
        added: Option<&AddedConditioning>,
    ) -> Result<Traced> {
        let (batch, channels, height, width) = x.value().dims4()?;
        if channels + 5 == self.config.in_channels && channels == BLANK.len() {
            let x = concat(tape, x, &nothing_to_keep(x.value())?.into(), 1)?;
            return self.forward(tape, &x, timesteps, context, added);
        }
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
        let x = &self.to_compute(tape, x)?;
        let context = &self.to_compute(tape, context)?;
        let temb = activation(tape, &self.embedded(tape, timesteps, batch, added)?, Activation::Silu)?;
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
                h = run(tape, layer, &concat(tape, &h, &skip, 1)?, temb, context)?;
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

    fn to_compute(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        transfer(tape, x, self.compute_dtype(), self.device())
    }

    /// The time embedding `[B, temb_channels]`: of the timesteps, plus that of what was `added`.
    fn embedded(
        &self,
        tape: &Tape,
        timesteps: &[f64],
        batch: usize,
        added: Option<&AddedConditioning>,
    ) -> Result<Traced> {
        if timesteps.len() != batch {
            return Err(Error::invalid(format!("{} timesteps for a batch of {batch}", timesteps.len())));
        }
        let two_layers = |(linear_1, linear_2): &(Linear, Linear), x: &Traced| {
            let h = linear_1.forward(tape, &self.to_compute(tape, x)?)?;
            linear_2.forward(tape, &activation(tape, &h, Activation::Silu)?)
        };
        let sinusoids = self.sinusoids(timesteps, self.config.block_out_channels[0])?;
        let temb = two_layers(&self.time_embedding, &sinusoids.into())?;
        let (Some(layers), Some(wanted)) = (&self.add_embedding, self.config.pooled_width()) else {
            return Ok(temb);
        };
        let Some(AddedConditioning { text_embeds, time_ids }) = added else {
            return Err(Error::incompatible(
                "this UNet wants a pooled text and the picture's sizes, too, and the conditioning has none",
            )
            .help("encode the prompt with both text encoders of the SDXL checkpoint"));
        };
        if text_embeds.dims() != [batch, wanted] || time_ids.len() != batch {
            return Err(Error::incompatible(format!(
                "the pooled text has shape {:?} with sizes for {} pictures, but this UNet wants [{batch}, {wanted}]",
                text_embeds.dims(),
                time_ids.len()
            ))
            .help("the prompt was encoded with the text encoders of another model family"));
        }
        let each = self.config.addition_time_embed_dim.unwrap_or(0);
        let sizes = self.sinusoids(&time_ids.concat(), each)?.reshape((batch, 6 * each))?;
        let text_embeds = self.to_compute(tape, text_embeds)?;
        let both = concat(tape, &text_embeds, &self.to_compute(tape, &sizes.into())?, 1)?;
        add(tape, &temb, &two_layers(layers, &both)?)
    }

    /// Sinusoids `[values, channels]` in f32 (Vaswani et al. 2017; `get_timestep_embedding` in diffusers). The angles are computed in f64: at t = 999
    /// half precision would leave nothing of the phase.
    fn sinusoids(&self, values: &[f64], channels: usize) -> Result<Tensor> {
        let half = channels / 2;
        let frequency = |i: usize| (-(1e4f64.ln()) * i as f64 / (half as f64 - self.config.freq_shift)).exp();
        let mut numbers = Vec::with_capacity(values.len() * 2 * half);
        for value in values {
            let angles = (0..half).map(|i| value * frequency(i));
            let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(|a| (a.sin() as f32, a.cos() as f32)).unzip();
            let (first, second) = if self.config.flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            numbers.extend(first);
            numbers.extend(second);
        }
        Ok(Tensor::from_vec(numbers, (values.len(), 2 * half), self.device())?)
    }
}

/// The latent of a picture without a value anywhere, as ComfyUI gives it to inpainting models (`blank_inpaint_image_like` in its `model_base.py`).
const BLANK: [f32; 4] = [0.8223, -0.6876, 0.6364, 0.1380];

/// For latents `[B, 4, h, w]` the five channels more that say: paint everywhere (a mask of ones), there is no picture yet. `[B, 5, h, w]`
fn nothing_to_keep(x: &Tensor) -> Result<Tensor> {
    let (batch, _, height, width) = x.dims4()?;
    let values = [1.0, BLANK[0], BLANK[1], BLANK[2], BLANK[3]];
    let channels = Tensor::new(&values, x.device())?.to_dtype(x.dtype())?.reshape((1, 5, 1, 1))?;
    Ok(channels.broadcast_as((batch, 5, height, width))?.contiguous()?)
}

/// The type that is computed in with this weight: its own, but f32 on the CPU.
pub(super) fn compute_dtype(weight: &Tensor) -> candle_core::DType {
    if weight.device().is_cpu() { candle_core::DType::F32 } else { weight.dtype() }
}

fn run(
    tape: &Tape,
    (resnet, attention): &Layer,
    x: &Traced,
    temb: Option<&Traced>,
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
