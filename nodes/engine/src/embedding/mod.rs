//! Learned words as files: sniff, read, write, find.
//!
//! | read | keys | who writes it |
//! |---|---|---|
//! | `emb_params` | `emb_params` | A1111 tools, kohya, Invoke, Vocable (one encoder) |
//! | encoder keys | `clip_l`, `clip_g`, `clip_h`, … | SDXL: kohya, OneTrainer, Vocable (two encoders) |
//! | diffusers | the word itself; also one key per vector: `word`, `word_1`, … | diffusers |
//! | OneTrainer | `emp_params` (sic) | OneTrainer |
//! | `string_to_param` | `string_to_param.*` | A1111 dictionaries saved as safetensors |
//!
//! All as `.safetensors`, in f32, f16, bf16 or f64, `[d]` or `[n, d]`. Pickles and pictures are recognised and refused by name.
//! Files are written with nothing but these tensors, so that tools which take "the first tensor" take the right one.

mod format;
mod names;
mod read;
mod search;
mod write;

use std::collections::BTreeMap;

use candle_core::Tensor;

pub use format::EmbeddingFormat;
pub use names::{check_file_name, file_stem_for};
pub use search::find_embedding;

use crate::{Error, Result};

/// The most vectors that a word may have: what fits into one chunk of 77 tokens.
pub const MOST_VECTORS: usize = 75;

/// A learned word: n vectors for each text encoder that it was learned for.
#[derive(Debug, Clone)]
pub struct Embedding {
    /// The word, or where the file does not tell, the file's stem.
    pub name: String,
    /// Encoder key (`clip_l`, `clip_g`, `clip_h`, `t5xxl`, `bert`, …) to `[n, d]` in f32 on the CPU. n is the same for all, and at least 1.
    pub vectors: BTreeMap<String, Tensor>,
    /// The file's text metadata. [`Embedding::to_safetensors`] adds `format`, `name`, `vectors` and, for one encoder, `encoder`.
    pub metadata: BTreeMap<String, String>,
}

impl Embedding {
    /// A checked embedding.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when there is no encoder, a tensor is not `[n, d]` f32, the encoders have different n, n is 0 or
    /// above 1024, or a value is not finite.
    pub fn new(
        name: impl Into<String>,
        vectors: BTreeMap<String, Tensor>,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self> {
        let embedding = Self { name: name.into(), vectors, metadata };
        embedding.check()?;
        Ok(embedding)
    }

    /// Number of vectors per encoder.
    pub fn count(&self) -> usize {
        self.vectors.values().next().map_or(0, |t| t.dims().first().copied().unwrap_or(0))
    }

    /// The `[n, d]` vectors for an encoder of width `width`. A file for one encoder does not always say for which; then the width decides.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the word was learned for another model: the message names both widths.
    pub fn for_encoder(&self, encoder: &str, width: usize) -> Result<&Tensor> {
        let exact = self.vectors.get(encoder);
        let only = || self.vectors.values().next().filter(|_| self.vectors.len() == 1);
        match exact.or_else(only) {
            Some(tensor) if tensor.dim(1)? == width => Ok(tensor),
            _ => {
                let name = &self.name;
                let has = self.describe();
                Err(Error::incompatible(format!(
                    "embedding {name}: has {has}, but the model wants {encoder} with width {width}"
                ))
                .help("an embedding works with models of the family it was learned on (SD1 768, SD2 1024, SDXL 768 and 1280)"))
            }
        }
    }

    /// `clip_l [2, 768], clip_g [2, 1280]`, for messages.
    pub fn describe(&self) -> String {
        let parts: Vec<String> = self.vectors.iter().map(|(k, t)| format!("{k} {:?}", t.dims())).collect();
        parts.join(", ")
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::incompatible(format!("embedding {}: {what}", self.name)));
        if self.vectors.is_empty() {
            return wrong("no vectors".into());
        }
        let count = self.count();
        for (key, tensor) in &self.vectors {
            let (shape, dtype) = (tensor.dims(), tensor.dtype());
            if shape.len() != 2 || dtype != candle_core::DType::F32 {
                return wrong(format!("{key} is {dtype:?} {shape:?}, wanted F32 [n, d]"));
            }
            if shape[0] == 0 || shape[0] > 1024 || shape[1] == 0 {
                return wrong(format!("{key} is {shape:?}, wanted 1 to 1024 vectors"));
            }
            if shape[0] != count {
                return wrong(format!("the encoders have different numbers of vectors: {}", self.describe()));
            }
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let (row, column) = (at / shape[1], at % shape[1]);
                return wrong(format!("{key}[{row}, {column}] is {}, wanted a finite number", values[at]));
            }
        }
        Ok(())
    }
}

/// The encoder that a lone matrix of that width is for: 768 CLIP-L (SD1), 1024 OpenCLIP-H (SD2), 1280 OpenCLIP-G (SDXL), 4096 T5. Other widths are
/// taken as `clip_l`, the key of a model with one small encoder.
pub fn encoder_for_width(width: usize) -> &'static str {
    match width {
        1024 => "clip_h",
        1280 => "clip_g",
        4096 => "t5xxl",
        _ => "clip_l",
    }
}

#[cfg(test)]
mod tests;
