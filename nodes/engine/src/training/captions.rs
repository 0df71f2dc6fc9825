//! Prompts of the training: a caption in which the placeholder stands for the trained vectors, as token ids.

use crate::prompt::{Piece, Word, cut};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Turns captions into rows of 77 ids, with ids from `vocab_size` on for the placeholder's vectors.
#[derive(Debug, Clone)]
pub struct PromptIds<'a> {
    tokenizer: &'a Tokenizer,
    placeholder: &'a str,
    /// The id of the first vector: the rows of the text encoder's token table.
    first: u32,
    n: usize,
}

impl<'a> PromptIds<'a> {
    /// For a `placeholder` of `n` vectors, over a token table of `vocab_size` rows.
    pub fn new(tokenizer: &'a Tokenizer, placeholder: &'a str, vocab_size: usize, n: usize) -> Self {
        Self { tokenizer, placeholder, first: vocab_size as u32, n }
    }

    /// `caption` as a row of ids: begin, words, end, padding. Every occurrence of the placeholder becomes its n ids.
    ///
    /// # Errors
    /// If the caption does not hold the placeholder, or no occurrence of it fits before the end of the row.
    pub fn encode(&self, caption: &str) -> Result<Vec<u32>> {
        let mut ids = vec![self.tokenizer.bos()];
        let limit = self.tokenizer.max_length() - 1;
        let mut inside = false;
        let mut occurs = false;
        for piece in cut(caption, &[Word::new(self.placeholder, self.n)]) {
            match piece {
                Piece::Text(text) => ids.extend(self.tokenizer.encode_words(text)?),
                Piece::Word(_) => {
                    ids.extend((0..self.n as u32).map(|i| self.first + i));
                    inside |= ids.len() <= limit;
                    occurs = true;
                }
            }
        }
        if !inside {
            let what = if occurs {
                format!(
                    "the {} vectors of {} do not fit into the {} tokens of",
                    self.n,
                    self.placeholder,
                    limit + 1
                )
            } else {
                format!("the placeholder {} does not occur in", self.placeholder)
            };
            return Err(Error::invalid(format!("{what} the prompt '{caption}'"))
                .help("use fewer vectors, or put the placeholder at the beginning of a shorter prompt"));
        }
        ids.truncate(limit);
        ids.push(self.tokenizer.eos());
        ids.resize(limit + 1, self.tokenizer.pad());
        Ok(ids)
    }
}
