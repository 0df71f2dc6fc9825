//! The denoiser's configuration.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::settings::{OtherSettings, refuse_others};
use crate::{Error, Result};

/// `unet/config.json`, as far as this structure needs it.
#[derive(Debug, Clone, Deserialize, Serialize)]
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
    /// `text_time` for SDXL: see [`AddedConditioning`].
    #[serde(default)]
    pub addition_embed_type: Option<String>,
    /// Channels that each of the six sizes is embedded in.
    #[serde(default)]
    pub addition_time_embed_dim: Option<usize>,
    /// Width of the pooled text and the six embedded sizes together.
    #[serde(default)]
    pub projection_class_embeddings_input_dim: Option<usize>,
    #[serde(flatten)]
    others: OtherSettings,
}

/// One number for all levels, or one for each.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub enum OneOrEach {
    /// For all levels.
    One(usize),
    /// For each level.
    Each(Vec<usize>),
}

impl OneOrEach {
    /// That of a level.
    pub(crate) fn at(&self, level: usize) -> usize {
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

impl UNet2DConditionConfig {
    /// Width of the pooled text that the UNet wants; `None` where it wants none.
    pub fn pooled_width(&self) -> Option<usize> {
        let all = self.projection_class_embeddings_input_dim?;
        all.checked_sub(6 * self.addition_time_embed_dim?).filter(|width| *width > 0)
    }

    /// The number of heads, whatever it is called.
    pub(crate) fn heads(&self) -> &OneOrEach {
        self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim)
    }

    /// Refuse what this structure does not have.
    pub(super) fn check(&self, origin: &str) -> Result<()> {
        refuse_others(
            "UNet",
            origin,
            &self.others,
            &[
                ("act_fn", json!("silu")),
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
            } else if let Some(kind) = self.addition_embed_type.as_deref().filter(|kind| *kind != "text_time")
            {
                format!("addition_embed_type {kind} is not known (text_time)")
            } else if self.addition_embed_type.is_some() && self.pooled_width().is_none() {
                "text_time wants addition_time_embed_dim and a larger projection_class_embeddings_input_dim"
                    .to_owned()
            } else {
                return Ok(());
            };
        Err(Error::incompatible(format!(
            "{origin}: this UNet is not of Stable Diffusion's structure: {problem}"
        )))
    }
}
