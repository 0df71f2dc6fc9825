//! Packing tokens into chunks of 77.

use super::parts::{self, EmbeddingLookup, Part};
use super::weights::parse_weights;
use super::words::{self, Piece, Word};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Groups of this many tokens may be split between chunks; shorter ones move to the next chunk whole (ComfyUI's `max_word_length`).
const SPLITTABLE: usize = 8;

/// One position of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromptToken {
    /// A row of the token table.
    Id(u32),
    /// A learned vector: `row` of the embedding that is number `embedding` of [`TokenizedPrompt::found`].
    Vector {
        /// Index into [`TokenizedPrompt::found`].
        embedding: usize,
        /// Row of its `[n, d]` matrix.
        row: usize,
    },
}

/// As many tokens as the encoder takes at once: begin, text, end, padding.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// [`Tokenizer::max_length`] tokens.
    pub ids: Vec<PromptToken>,
    /// A weight for each; 1 for begin, end and padding.
    pub weights: Vec<f32>,
}

impl Chunk {
    /// The position of the token that ends the text: where pooled outputs are read. Found by construction, not by the highest id.
    pub fn end_position(&self, eos: u32) -> Option<usize> {
        self.ids.iter().position(|t| *t == PromptToken::Id(eos))
    }
}

/// An embedding that the prompt uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEmbedding {
    /// The learned word, or the name after `embedding:`.
    pub name: String,
    /// How many vectors it has, and how many positions it takes.
    pub vectors: usize,
    /// Index of the learned word in the list that was given; `None` for `embedding:name`.
    pub word: Option<usize>,
}

/// A prompt, ready for the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedPrompt {
    /// At least one chunk. They are encoded one by one and joined along the sequence.
    pub chunks: Vec<Chunk>,
    /// Each embedding that is used, once, in order of appearance.
    pub found: Vec<FoundEmbedding>,
    /// Names after `embedding:` for which there is no file, in order of appearance; they have no tokens. Whether that is an error is
    /// the caller's decision.
    pub missing: Vec<String>,
    /// What looks as if it were meant as a learned word and was read as ordinary text, each with all that touches it: `embedding:` behind
    /// something other than white space or in capitals, and a learned word in angle brackets that touches letters or digits. ComfyUI
    /// says nothing of these; whether that is an error is the caller's decision.
    pub overlooked: Vec<String>,
}

impl TokenizedPrompt {
    /// The weights of all chunks, as [`apply_weights`](super::apply_weights) takes them.
    pub fn weights(&self) -> Vec<Vec<f32>> {
        self.chunks.iter().map(|c| c.weights.clone()).collect()
    }

    /// An error if an `embedding:name` was not found.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) that names them all.
    pub fn require_all(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "the prompt asks for embeddings that do not exist: {}",
            self.missing.join(", ")
        ))
        .help("put the files into the embeddings folder, or connect the learned embedding to this node"))
    }

    /// An error if something that looks like a learned word was read as ordinary text.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) that names them all.
    pub fn require_none_overlooked(&self) -> Result<()> {
        if self.overlooked.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the prompt holds what looks like a learned word and would be read as ordinary text: {}",
            self.overlooked.join(", ")
        ))
        .help(
            "write embedding:name in small letters, put a space before it, and let no letter or digit touch a word in angle brackets",
        ))
    }
}

/// Tokenize a prompt for one encoder.
///
/// `words` are learned words, found wherever they stand alone (case matters, longest first); `files` answers for `embedding:name`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the tokenizer refuses the text, or its chunks have no room for text.
pub fn tokenize_prompt(
    tokenizer: &Tokenizer,
    prompt: &str,
    words: &[Word],
    files: &mut dyn EmbeddingLookup,
) -> Result<TokenizedPrompt> {
    let mut reader = Reader {
        tokenizer,
        words,
        found: Vec::new(),
        missing: Vec::new(),
        overlooked: Vec::new(),
        groups: Vec::new(),
    };
    for (text, weight) in parse_weights(prompt) {
        for part in parts::cut(&text, files) {
            match part {
                Part::Text(text) => reader.text(&text, weight)?,
                Part::Embedding { name, vectors } => reader.embedding(&name, vectors, None, weight),
                Part::Missing(name) if !reader.missing.contains(&name) => reader.missing.push(name),
                Part::Missing(_) => {}
            }
        }
    }
    let chunks = pack(&reader.groups, tokenizer)?;
    Ok(TokenizedPrompt {
        chunks,
        found: reader.found,
        missing: reader.missing,
        overlooked: reader.overlooked,
    })
}

type Group = Vec<(PromptToken, f32)>;

struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    words: &'a [Word],
    found: Vec<FoundEmbedding>,
    missing: Vec<String>,
    overlooked: Vec<String>,
    groups: Vec<Group>,
}

impl Reader<'_> {
    fn text(&mut self, text: &str, weight: f32) -> Result<()> {
        let words = self.words;
        for piece in words::cut(text, words) {
            match piece {
                Piece::Text(text) => {
                    for run in words::overlooked(text, words) {
                        if !self.overlooked.iter().any(|known| known == run) {
                            self.overlooked.push(run.to_owned());
                        }
                    }
                    let ids = self.tokenizer.encode_words(text)?;
                    self.groups.push(ids.into_iter().map(|id| (PromptToken::Id(id), weight)).collect());
                }
                Piece::Word(i) => self.embedding(&words[i].word, words[i].vectors, Some(i), weight),
            }
        }
        Ok(())
    }

    fn embedding(&mut self, name: &str, vectors: usize, word: Option<usize>, weight: f32) {
        let known = self.found.iter().position(|f| f.name == name && f.word == word);
        let embedding = known.unwrap_or_else(|| {
            self.found.push(FoundEmbedding { name: name.to_owned(), vectors, word });
            self.found.len() - 1
        });
        let rows = 0..self.found[embedding].vectors;
        self.groups.push(rows.map(|row| (PromptToken::Vector { embedding, row }, weight)).collect());
    }
}

/// Each chunk holds begin, as much text as fits with the end behind it, padding.
fn pack(groups: &[Group], tokenizer: &Tokenizer) -> Result<Vec<Chunk>> {
    let room = tokenizer.max_length().saturating_sub(2);
    if room == 0 {
        let length = tokenizer.max_length();
        return Err(Error::invalid(format!("chunks of {length} tokens have no room for text")));
    }
    let mut filled: Vec<Group> = vec![Vec::new()];
    for group in groups {
        let mut rest = group.as_slice();
        let splittable = group.len() >= SPLITTABLE || group.len() > room;
        while !rest.is_empty() {
            let last = filled.len() - 1;
            let free = room - filled[last].len();
            if rest.len() <= free {
                filled[last].extend_from_slice(rest);
                break;
            }
            if splittable {
                filled[last].extend_from_slice(&rest[..free]);
                rest = &rest[free..];
            }
            filled.push(Vec::new());
        }
    }
    Ok(filled
        .into_iter()
        .map(|text| {
            let mut tokens = vec![(PromptToken::Id(tokenizer.bos()), 1.0)];
            tokens.extend(text);
            tokens.push((PromptToken::Id(tokenizer.eos()), 1.0));
            tokens.resize(tokenizer.max_length(), (PromptToken::Id(tokenizer.pad()), 1.0));
            let (ids, weights) = tokens.into_iter().unzip();
            Chunk { ids, weights }
        })
        .collect())
}
