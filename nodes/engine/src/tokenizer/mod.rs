//! Text to ids: CLIP's byte pairs, or the word pieces of BERT that CompVis' text2img-large reads. Each comes with the program, or as the
//! `tokenizer/` folder of a diffusers pipeline describes it.
//!
//! What is built equals Hugging Face's (transformers 4 and 5). `CLIPTokenizer`: NFC, white space runs to one space, lower case; then the CLIP
//! pattern and byte-level BPE with `</w>` at the end of words. `BertTokenizerFast`: control characters out, spaces around Chinese
//! characters, accents off, lower case; then words and single punctuation marks, and the longest pieces from the left, `##` before all but the
//! first. Learned words are **not** added to either: the [`prompt`](crate::prompt) finds them in the text and splices their vectors in, so no
//! ordinary word changes its tokens.

mod bert;
mod clip;
mod files;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use files::{Files, JOINT};

use crate::{Error, Result};

/// The tokenizer of a text encoder: text to ids of its token table.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    unknown: Option<u32>,
    max_length: usize,
    vocab_size: usize,
}

impl Tokenizer {
    /// CLIP's own, which comes with the program: for checkpoints in one file, which have none.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if the library refused the vocabulary.
    pub fn clip() -> Result<Self> {
        clip::clip()
    }

    /// BERT's uncased one, which comes with the program, in texts of 77: what latent diffusion's text2img-large was trained with (CompVis,
    /// `ldm/modules/encoders/modules.py`: `BertTokenizerFast` of `bert-base-uncased`).
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if the library refused the vocabulary.
    pub fn bert() -> Result<Self> {
        bert::bert()
    }

    /// Read the tokenizer of a folder: CLIP's from `vocab.json` and `merges.txt`, or, where there is no `vocab.json`, BERT's from `vocab.txt`; where
    /// there is neither, as transformers 5 writes folders, either from `tokenizer.json`.
    /// `tokenizer_config.json` and `special_tokens_map.json`, where they exist, give the padding token and the length, for BERT also the
    /// other special tokens and what happens to case, accents and Chinese characters.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a missing file, [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible)
    /// for one that is no such vocabulary; the message names the file and, for merges, the line.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_files(Files::Folder(dir))
    }

    /// The same from the texts of these files by name, as [`files`](Self::files) gives them; `origin` names in errors what holds them.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn from_texts(origin: &str, texts: &BTreeMap<String, String>) -> Result<Self> {
        Self::from_files(Files::Texts { origin, texts })
    }

    fn from_files(files: Files<'_>) -> Result<Self> {
        match (files.has(clip::VOCAB), files.has(bert::VOCAB)) {
            (true, _) => clip::from_files(files, None),
            (false, true) => bert::from_files(files, None),
            (false, false) if files.has(JOINT) => {
                let joint = files.json(JOINT)?;
                match joint["model"]["type"].as_str() {
                    Some("BPE") => clip::from_files(files, Some(joint)),
                    Some("WordPiece") => bert::from_files(files, Some(joint)),
                    other => Err(Error::incompatible(format!(
                        "{}: a tokenizer of type {}, wanted BPE (CLIP) or WordPiece (BERT)",
                        files.place(JOINT),
                        other.unwrap_or("that is not told")
                    ))),
                }
            }
            (false, false) => Err(Error::not_found(format!(
                "{files}: neither vocab.json (CLIP) nor vocab.txt (BERT) nor tokenizer.json is there"
            ))
            .help("give the folder in which a diffusers pipeline keeps its tokenizer")),
        }
    }

    /// The ids of `text`, without begin, end and padding. Empty text gives no ids. Special tokens in the text (`<|endoftext|>`,
    /// for BERT `[SEP]`) become their ids, as in Hugging Face's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the library refuses the text.
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

    /// The id that fills a chunk: the end token for SD1 and CLIP-L, 0 (`!`) for SD2 and CLIP-G, 0 (`[PAD]`) for BERT.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The id of every word that the vocabulary cannot spell: BERT's `[UNK]`. CLIP spells everything, byte by byte.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
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
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) with the four numbers.
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

    /// The id of a word that is one token (`cat` is `cat</w>` in CLIP's vocabulary), or `None` when it is several or none. Special tokens
    /// are no words.
    pub fn token_id(&self, word: &str) -> Option<u32> {
        match self.encode_words(word).ok()?.as_slice() {
            [id] if !self.is_special(*id) => Some(*id),
            _ => None,
        }
    }

    fn is_special(&self, id: u32) -> bool {
        let token = self.inner.id_to_token(id);
        token.is_some_and(|token| self.inner.get_added_vocabulary().is_special_token(&token))
    }

    /// The token of an id as the vocabulary spells it (`cat</w>` and `ph`, or BERT's `cat` and `##ph`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Text of ids, for messages: lower case, specials left out, ids that do not exist skipped.
    pub fn decode(&self, ids: &[u32]) -> String {
        let known: Vec<u32> =
            ids.iter().copied().filter(|id| self.inner.id_to_token(*id).is_some()).collect();
        // CLIP's byte decoder leaves its ends of words; in BERT's text no `</w>` can arise, for punctuation stands apart.
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
