//! CLIP's byte-pair tokenizer: its own, or as the `tokenizer/` folder of a diffusers pipeline describes it.
//!
//! The object that is built equals Hugging Face's `CLIPTokenizer` (transformers 4 and 5): NFC, white space runs to one space, lower case;
//! then the CLIP pattern and byte-level BPE with `</w>` at the end of words. Learned words are **not** added to it: the
//! [`prompt`](crate::prompt) finds them in the text and splices their vectors in, so no ordinary word changes its tokens.

mod build;

use std::path::Path;

use crate::{Error, Result};

/// A CLIP tokenizer: text to ids of the token table.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
    vocab_size: usize,
}

impl Tokenizer {
    /// CLIP's own, which comes with the program: for checkpoints in one file, which have none.
    pub fn clip() -> Result<Self> {
        build::clip()
    }

    /// Read `vocab.json` and `merges.txt` of a folder, and from `tokenizer_config.json` and `special_tokens_map.json`, where they exist, the
    /// padding token and the length.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a missing file, [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible)
    /// for one that is no CLIP vocabulary; the message names the file and, for merges, the line.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        build::from_dir(dir)
    }

    /// The ids of `text`, without begin, end and padding. Empty text gives no ids. `<|startoftext|>` and `<|endoftext|>` in the
    /// text become the special ids, as in Hugging Face's.
    pub fn encode_words(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| Error::invalid(format!("tokenizer: cannot split {text:?}: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The id that begins every chunk.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends the text of every chunk.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id that fills a chunk: the end token for SD1 and CLIP-L, 0 (`!`) for SD2 and CLIP-G.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Ids per chunk, begin and end included: 77.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the largest id, added tokens included. Ids of trainable vectors begin at or above it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Refuse a tokenizer whose ids or length the text encoder's tables (`rows` tokens, `positions` places) do not have.
    pub fn check_fits(&self, rows: usize, positions: usize) -> Result<()> {
        if self.vocab_size <= rows && self.max_length <= positions {
            return Ok(());
        }
        Err(Error::incompatible(format!(
            "the tokenizer has {} tokens and texts of {}, but the text encoder has {rows} tokens and {positions} places",
            self.vocab_size, self.max_length
        ))
        .help("tokenizer and text encoder belong to different models, or tokens were added without their vectors"))
    }

    /// The id of a word that is one token (`cat` is `cat</w>` in the vocabulary), or `None` when it is several or none.
    pub fn token_id(&self, word: &str) -> Option<u32> {
        match self.encode_words(word).ok()?.as_slice() {
            [id] if *id != self.bos && *id != self.eos => Some(*id),
            _ => None,
        }
    }

    /// The token of an id as the vocabulary spells it (`cat</w>`, `ph`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Text of ids, for messages: lower case, specials left out, unknown ids skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        let known: Vec<u32> =
            ids.iter().copied().filter(|id| self.inner.id_to_token(*id).is_some()).collect();
        self.inner.decode(&known, true).unwrap_or_default().replace("</w>", " ").trim().to_owned()
    }

    /// The same tokenizer with another padding id: SDXL's second encoder pads with 0 where only one tokenizer is at hand.
    #[must_use]
    pub fn with_pad(mut self, pad: u32) -> Self {
        self.pad = pad;
        self
    }
}

#[cfg(test)]
mod tests;
