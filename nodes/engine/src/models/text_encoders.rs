//! All text encoders of a model, and what each is used with. SDXL has two, whose states are joined; the others have one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::clip_text_model::{ClipTextModel, HiddenLayer};
use crate::embedding::Embedding;
use crate::ops::{Tape, Traced, columns, concat, transfer};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// One text encoder.
#[derive(Debug, Clone)]
pub struct TextTower {
    /// The network.
    pub encoder: Arc<ClipTextModel>,
    /// Its tokenizer, with its own padding.
    pub tokenizer: Arc<Tokenizer>,
    /// What its vectors are called in embedding files: `clip_l`, `clip_g`, `clip_h`, `bert`.
    pub key: String,
    /// The layer whose states are taken.
    pub layer: HiddenLayer,
}

impl TextTower {
    /// d, the width.
    pub fn width(&self) -> usize {
        self.encoder.config().hidden_size
    }

    /// The id of the first learned vector: one past the token table.
    pub fn first_vector(&self) -> u32 {
        self.encoder.config().vocab_size as u32
    }
}

/// The text encoders of a model, at least one, in the order in which their states are joined. Vectors of all of them are handled as one matrix
/// `[n, D]`, D = Σd: each encoder has its own columns.
#[derive(Debug, Clone)]
pub struct TextEncoders {
    towers: Vec<TextTower>,
}

/// What the text encoders give for a batch of texts.
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    /// `[B, T, D]`: the states of all encoders, side by side.
    pub hidden: Traced,
    /// `[B, P]`: the last encoder's pooled and projected state, if it was asked for.
    pub pooled: Option<Traced>,
}

impl TextEncoders {
    /// # Errors
    /// If there is none.
    pub fn new(towers: Vec<TextTower>) -> Result<Self> {
        if towers.is_empty() {
            return Err(Error::incompatible("the model has no text encoder"));
        }
        Ok(Self { towers })
    }

    /// All of them.
    pub fn towers(&self) -> &[TextTower] {
        &self.towers
    }

    /// D: all widths together.
    pub fn width(&self) -> usize {
        self.towers.iter().map(TextTower::width).sum()
    }

    /// Where the first one computes; vectors are kept there.
    pub fn device(&self) -> &Device {
        self.towers[0].encoder.device()
    }

    /// Whether one of them computes in f16.
    pub fn is_f16(&self) -> bool {
        self.towers.iter().any(|tower| tower.encoder.compute_dtype() == DType::F16)
    }

    /// The same encoders, each without its last `skip` layers; see [`HiddenLayer::skip`].
    #[must_use]
    pub fn skipping(mut self, skip: usize) -> Self {
        for tower in &mut self.towers {
            tower.layer.skip = skip;
        }
        self
    }

    /// Each encoder with its columns of a matrix `[n, D]`.
    pub fn with_columns(&self) -> impl Iterator<Item = (&TextTower, Range<usize>)> {
        self.towers.iter().scan(0, |start, tower| {
            let columns = *start..*start + tower.width();
            *start = columns.end;
            Some((tower, columns))
        })
    }

    /// Encode `batch` texts. `ids` holds the texts in the tokens of each encoder; an id of `vocab_size + i` stands for row i of `vectors [n, D]`.
    pub fn forward(
        &self,
        tape: &Tape,
        ids: &[Vec<u32>],
        batch: usize,
        vectors: &Traced,
        pooled: bool,
    ) -> Result<EncodedPrompt> {
        if ids.len() != self.towers.len() || vectors.dims() != [vectors.value().dim(0)?, self.width()] {
            return Err(Error::invalid(format!(
                "texts in {} kinds of tokens and vectors of shape {:?}, wanted {} and [n, {}]",
                ids.len(),
                vectors.dims(),
                self.towers.len(),
                self.width()
            )));
        }
        let mut joined: Option<EncodedPrompt> = None;
        for ((tower, own), ids) in self.with_columns().zip(ids) {
            let vectors = columns(tape, vectors, own.start, own.len())?;
            let vectors = transfer(tape, &vectors, vectors.value().dtype(), tower.encoder.device())?;
            let eos = pooled.then(|| tower.tokenizer.eos());
            let encoded = tower.encoder.forward(tape, ids, batch, &vectors, tower.layer, eos)?;
            let pooled = encoded.pooled.map(|state| tower.encoder.project(tape, &state)).transpose()?;
            let hidden = match joined {
                None => encoded.hidden,
                Some(EncodedPrompt { hidden: before, .. }) => {
                    let (dtype, device) = (before.value().dtype(), before.value().device().clone());
                    concat(tape, &before, &transfer(tape, &encoded.hidden, dtype, &device)?, 2)?
                }
            };
            joined = Some(EncodedPrompt { hidden, pooled });
        }
        joined.ok_or_else(|| Error::incompatible("the model has no text encoder"))
    }

    /// A matrix `[n, D]` as a part for each encoder, by its key.
    pub fn split(&self, vectors: &Tensor) -> Result<BTreeMap<String, Tensor>> {
        self.with_columns()
            .map(|(tower, own)| {
                Ok((tower.key.clone(), vectors.narrow(1, own.start, own.len())?.contiguous()?))
            })
            .collect()
    }

    /// The vectors of a learned word for these encoders, `[n, D]`.
    ///
    /// # Errors
    /// If it was learned for others; the message says for which.
    pub fn join(&self, word: &Embedding) -> Result<Tensor> {
        let parts = self.towers.iter().map(|tower| word.for_encoder(&tower.key, tower.width()));
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)?)
    }
}
