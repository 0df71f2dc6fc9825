//! Prompts of the training: a caption in which the placeholder stands for the trained vectors, as token ids.

use crate::models::TextEncoders;
use crate::prompt::{Piece, Word, cut};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Turns captions into rows of 77 ids, with ids from `vocab_size` on for the placeholder's vectors.
#[derive(Debug, Clone)]
pub struct PromptIds<'a> {
    text: &'a TextEncoders,
    placeholder: &'a str,
    n: usize,
}

impl<'a> PromptIds<'a> {
    /// For a `placeholder` of `n` vectors.
    pub fn new(text: &'a TextEncoders, placeholder: &'a str, n: usize) -> Self {
        Self { text, placeholder, n }
    }

    /// `caption` as a row of ids for each text encoder: begin, words, end, padding. Every occurrence of the placeholder becomes its n ids.
    ///
    /// # Errors
    /// If the caption does not hold the placeholder, or no occurrence of it fits before the end of the row.
    pub fn encode(&self, caption: &str) -> Result<Vec<Vec<u32>>> {
        let towers = self.text.towers().iter();
        towers.map(|tower| self.row(&tower.tokenizer, tower.first_vector(), caption)).collect()
    }

    fn row(&self, tokenizer: &Tokenizer, first: u32, caption: &str) -> Result<Vec<u32>> {
        let mut ids = vec![tokenizer.bos()];
        let limit = tokenizer.max_length() - 1;
        let mut inside = false;
        let mut occurs = false;
        for piece in cut(caption, &[Word::new(self.placeholder, self.n)]) {
            match piece {
                Piece::Text(text) => ids.extend(tokenizer.encode_words(text)?),
                Piece::Word(_) => {
                    ids.extend((0..self.n as u32).map(|i| first + i));
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
        ids.push(tokenizer.eos());
        ids.resize(limit + 1, tokenizer.pad());
        Ok(ids)
    }
}
