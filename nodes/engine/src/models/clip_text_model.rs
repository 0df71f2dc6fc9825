//! The text encoder: `CLIPTextModel` (Radford et al. 2021), a causal transformer over token embeddings.

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::layers::{layer_norm, linear};
use super::unet::compute_dtype;
use crate::checkpoint::Weights;
use crate::ops::{
    Activation, LayerNorm, Linear, Mask, Tape, Traced, activation, add, attention, splice_rows, transfer,
};
use crate::{Error, Result};

/// `text_encoder/config.json`, as far as this structure needs it.
#[derive(Debug, Clone, Deserialize)]
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

/// What the encoder gives for a batch of texts.
#[derive(Debug, Clone)]
pub struct EncodedText {
    /// `[B, T, d]`: the hidden states of the asked layer after the final layer norm.
    pub hidden: Traced,
    /// `[B, d]`: the last layer's normed state at the first end-of-text token of each text, not projected.
    pub pooled: Option<Tensor>,
}

/// The text encoder.
#[derive(Debug)]
pub struct ClipTextModel {
    config: ClipTextConfig,
    act: Activation,
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipTextModel {
    /// Read the model from weights in the names of transformers, with or without the leading `text_model`.
    pub fn new(config: &ClipTextConfig, weights: &Weights) -> Result<Self> {
        let inner = weights.at("text_model");
        let weights = if inner.contains("final_layer_norm.weight") { inner } else { weights.clone() };
        let (d, eps) = (config.hidden_size, config.layer_norm_eps);
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
                    q_proj: linear(&attn.at("q_proj"), d, d)?,
                    k_proj: linear(&attn.at("k_proj"), d, d)?,
                    v_proj: linear(&attn.at("v_proj"), d, d)?,
                    out_proj: linear(&attn.at("out_proj"), d, d)?,
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
            act,
            config: config.clone(),
        })
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
    /// `vectors [n, d]`. `skip` layers at the end are left out of `hidden` (0: the last layer; the final layer norm is applied in
    /// any case). With `eos` the pooled state is made too, at the first place of that id: never at the highest id, which the
    /// placeholder would be.
    pub fn forward(
        &self,
        tape: &Tape,
        ids: &[u32],
        batch: usize,
        vectors: &Traced,
        skip: usize,
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
        let wanted = self.layers.len().saturating_sub(skip).max(1);
        let mut hidden = None;
        for (i, layer) in self.layers.iter().enumerate() {
            if i == wanted {
                hidden = Some(x.clone());
                if eos.is_none() {
                    break;
                }
            }
            x = self.layer(tape, layer, &x)?;
        }
        let last = match &hidden {
            Some(_) if eos.is_none() => None,
            _ => Some(self.final_layer_norm.forward(tape, &x)?),
        };
        let pooled = match (eos, &last) {
            (Some(eos), Some(last)) => Some(pool(last.value(), ids, tokens, eos)?),
            _ => None,
        };
        let hidden = match (hidden, last) {
            (Some(hidden), _) => self.final_layer_norm.forward(tape, &hidden)?,
            (None, Some(last)) => last,
            (None, None) => return Err(Error::invalid("the text encoder has no layers")),
        };
        Ok(EncodedText { hidden, pooled })
    }

    fn layer(&self, tape: &Tape, layer: &EncoderLayer, x: &Traced) -> Result<Traced> {
        let h = layer.layer_norm1.forward(tape, x)?;
        let q = layer.q_proj.forward(tape, &h)?;
        let k = layer.k_proj.forward(tape, &h)?;
        let v = layer.v_proj.forward(tape, &h)?;
        let o = attention(tape, &q, &k, &v, self.config.num_attention_heads, Mask::Causal)?;
        let x = add(tape, &layer.out_proj.forward(tape, &o)?, x)?;
        let h = layer.layer_norm2.forward(tape, &x)?;
        let h = activation(tape, &layer.fc1.forward(tape, &h)?, self.act)?;
        add(tape, &layer.fc2.forward(tape, &h)?, &x)
    }
}

/// The state at the first `eos` of each text, or at its last place where there is none.
fn pool(hidden: &Tensor, ids: &[u32], tokens: usize, eos: u32) -> Result<Tensor> {
    let rows = ids
        .chunks_exact(tokens)
        .enumerate()
        .map(|(b, ids)| {
            let place = ids.iter().position(|id| *id == eos).unwrap_or(tokens - 1);
            Ok(hidden.get(b)?.narrow(0, place, 1)?)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}
