//! The text encoder: `CLIPTextModel` (Radford et al. 2021), a causal transformer over token embeddings. The encoder of CompVis' text2img-large,
//! `BERTEmbedder`, is the same structure without the causal mask, with heads that are not as wide as the model together.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::layers::{layer_norm, linear, linear_no_bias};
use super::unet::compute_dtype;
use crate::checkpoint::Weights;
use crate::ops::{
    Activation, LayerNorm, Linear, Mask, Tape, Traced, activation, add, attention, pick_tokens, splice_rows,
    transfer,
};
use crate::{Error, Result};

/// `text_encoder/config.json`, as far as this structure needs it.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// d, the width.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Longest text in tokens.
    #[serde(default = "seventy_seven")]
    pub max_position_embeddings: usize,
    /// `quick_gelu` (OpenAI) or `gelu` (OpenCLIP).
    #[serde(default = "quick_gelu")]
    pub hidden_act: String,
    /// ε of the layer norms.
    #[serde(default = "small")]
    pub layer_norm_eps: f64,
    /// Whether a token sees only those before it. False for `BERTEmbedder`; not a field of transformers' configuration.
    #[serde(default = "yes")]
    pub causal: bool,
    /// Width of all heads together, where it is not [`hidden_size`](Self::hidden_size); not a field of transformers' configuration.
    #[serde(default)]
    pub attention_width: Option<usize>,
    /// Width of the pooled state after its projection.
    #[serde(default)]
    pub projection_dim: Option<usize>,
}

fn seventy_seven() -> usize {
    77
}
fn quick_gelu() -> String {
    "quick_gelu".into()
}
fn small() -> f64 {
    1e-5
}
fn yes() -> bool {
    true
}

#[derive(Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// Which states are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenLayer {
    /// How many of the last layers are left out. As many as there are, or more, means the last layer's normed states, as in ComfyUI.
    pub skip: usize,
    /// Whether the states go through the final layer norm, as for SD 1 and 2, or come as they are, as for SDXL.
    pub norm: bool,
}

impl HiddenLayer {
    /// The last layer.
    pub const LAST: Self = Self { skip: 0, norm: true };

    /// How many of so many layers are left out.
    pub(crate) fn skipped(self, layers: usize) -> usize {
        if self.skip < layers { self.skip } else { 0 }
    }
}

/// What the encoder gives for a batch of texts.
#[derive(Debug, Clone)]
pub struct EncodedText {
    /// `[B, T, d]`: the hidden states of the asked layer.
    pub hidden: Traced,
    /// `[B, d]`: the last layer's normed state at the first end-of-text token of each text, not projected (see [`ClipTextModel::project`]).
    pub pooled: Option<Traced>,
}

/// The text encoder.
#[derive(Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    state_dict: BTreeMap<String, Tensor>,
    act: Activation,
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}

impl ClipTextModel {
    /// Read the model from weights in the names of transformers, with or without the leading `text_model`.
    pub fn new(config: &ClipTextConfig, weights: &Weights) -> Result<Self> {
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
        let text_projection = if weights.contains("text_projection.weight") {
            let weights = weights.at("text_projection");
            Some(linear_no_bias(&weights, d, config.projection_dim.unwrap_or(d))?)
        } else {
            None
        };
        let inner = weights.at("text_model");
        let weights = if inner.contains("final_layer_norm.weight") { inner } else { weights.clone() };
        let width = config.attention_width.unwrap_or(d);
        let in_proj = |weights: &Weights| {
            if weights.contains("bias") {
                linear(weights, d, width)
            } else {
                linear_no_bias(weights, d, width)
            }
        };
        let act = match config.hidden_act.as_str() {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::Gelu,
            other => {
                return Err(Error::incompatible(format!(
                    "{}: activation {other} of the text encoder is not known (quick_gelu, gelu)",
                    weights.origin()
                )));
            }
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| {
                let weights = weights.at("encoder.layers").at(i);
                let attn = weights.at("self_attn");
                Ok(EncoderLayer {
                    layer_norm1: layer_norm(&weights.at("layer_norm1"), d, eps)?,
                    q_proj: in_proj(&attn.at("q_proj"))?,
                    k_proj: in_proj(&attn.at("k_proj"))?,
                    v_proj: in_proj(&attn.at("v_proj"))?,
                    out_proj: linear(&attn.at("out_proj"), width, d)?,
                    layer_norm2: layer_norm(&weights.at("layer_norm2"), d, eps)?,
                    fc1: linear(&weights.at("mlp.fc1"), d, config.intermediate_size)?,
                    fc2: linear(&weights.at("mlp.fc2"), config.intermediate_size, d)?,
                })
            })
            .collect::<Result<_>>()?;
        let embeddings = weights.at("embeddings");
        Ok(Self {
            token_embedding: embeddings.get("token_embedding.weight", &[config.vocab_size, d])?,
            position_embedding: embeddings
                .get("position_embedding.weight", &[config.max_position_embeddings, d])?,
            layers,
            final_layer_norm: layer_norm(&weights.at("final_layer_norm"), d, eps)?,
            text_projection,
            act,
            config: config.clone(),
            state_dict: weights.state_dict(),
        })
    }

    /// All weights in diffusers' names. They are shared with the model.
    pub fn state_dict(&self) -> &BTreeMap<String, Tensor> {
        &self.state_dict
    }

    /// The configuration that the model was read with.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// The token table `[N, d]`. It is only ever read.
    pub fn token_embedding(&self) -> &Tensor {
        &self.token_embedding
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.token_embedding.device()
    }

    /// The type that this model computes in: the weights' own, but f32 on the CPU.
    pub fn compute_dtype(&self) -> candle_core::DType {
        compute_dtype(&self.token_embedding)
    }

    /// Encode `batch` texts of equal length. `ids` holds them one after another; an id of `vocab_size + i` stands for row i of
    /// `vectors [n, d]`. With `eos` the pooled state is made too, at the first place of that id: never at the highest id, which the
    /// placeholder would be.
    pub fn forward(
        &self,
        tape: &Tape,
        ids: &[u32],
        batch: usize,
        vectors: &Traced,
        wanted: HiddenLayer,
        eos: Option<u32>,
    ) -> Result<EncodedText> {
        let tokens = ids.len().checked_div(batch).unwrap_or(0);
        if tokens == 0 || tokens * batch != ids.len() || tokens > self.config.max_position_embeddings {
            return Err(Error::invalid(format!(
                "{} token ids for a batch of {batch}: the text encoder takes up to {} tokens",
                ids.len(),
                self.config.max_position_embeddings
            )));
        }
        // Spliced in the vectors' own type, so that their gradient is summed up in it.
        let x = splice_rows(tape, &self.token_embedding, vectors, ids, batch)?;
        let dtype = self.compute_dtype();
        let x = transfer(tape, &x, dtype, self.device())?;
        let positions = self.position_embedding.narrow(0, 0, tokens)?.to_dtype(dtype)?;
        let positions =
            positions.unsqueeze(0)?.broadcast_as((batch, tokens, self.config.hidden_size))?.contiguous()?;
        let mut x = add(tape, &x, &positions.into())?;
        let norm = wanted.norm || wanted.skip >= self.layers.len();
        let stop = self.layers.len() - wanted.skipped(self.layers.len());
        let mut earlier = None;
        for (i, layer) in self.layers.iter().enumerate() {
            if i == stop {
                earlier = Some(x.clone());
                if eos.is_none() {
                    break;
                }
            }
            x = self.layer(tape, layer, &x)?;
        }
        let is_last = earlier.is_none();
        let last = match eos.is_some() || (is_last && norm) {
            true => Some(self.final_layer_norm.forward(tape, &x)?),
            false => None,
        };
        let pooled = match (eos, &last) {
            (Some(eos), Some(last)) => Some(pick_tokens(tape, last, &ends(ids, tokens, eos))?),
            _ => None,
        };
        let hidden = match (earlier.unwrap_or(x), last) {
            (_, Some(last)) if is_last && norm => last,
            (hidden, _) if norm => self.final_layer_norm.forward(tape, &hidden)?,
            (hidden, _) => hidden,
        };
        Ok(EncodedText { hidden, pooled })
    }

    /// The pooled state `[B, d]` in the space that texts share with pictures, `[B, projection_dim]`; as it is, where the model has no projection.
    pub fn project(&self, tape: &Tape, pooled: &Traced) -> Result<Traced> {
        match &self.text_projection {
            Some(projection) => projection.forward(tape, pooled),
            None => Ok(pooled.clone()),
        }
    }

    fn layer(&self, tape: &Tape, layer: &EncoderLayer, x: &Traced) -> Result<Traced> {
        let h = layer.layer_norm1.forward(tape, x)?;
        let q = layer.q_proj.forward(tape, &h)?;
        let k = layer.k_proj.forward(tape, &h)?;
        let v = layer.v_proj.forward(tape, &h)?;
        let mask = if self.config.causal { Mask::Causal } else { Mask::None };
        let o = attention(tape, &q, &k, &v, self.config.num_attention_heads, mask)?;
        let x = add(tape, &layer.out_proj.forward(tape, &o)?, x)?;
        let h = layer.layer_norm2.forward(tape, &x)?;
        let h = activation(tape, &layer.fc1.forward(tape, &h)?, self.act)?;
        add(tape, &layer.fc2.forward(tape, &h)?, &x)
    }
}

/// The first `eos` of each text, or its last place where there is none.
fn ends(ids: &[u32], tokens: usize, eos: u32) -> Vec<usize> {
    let end = |ids: &[u32]| ids.iter().position(|id| *id == eos).unwrap_or(tokens - 1);
    ids.chunks_exact(tokens).map(end).collect()
}
