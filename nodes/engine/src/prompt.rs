//! From a prompt to chunks of tokens: ComfyUI's weights and `embedding:` names, and learned words wherever they stand.
//!
//! | written | means |
//! |---|---|
//! | `(x)` | ×1.1 for every token of `x`; nested parentheses multiply |
//! | `(x:1.3)` | weight 1.3 for `x`, not multiplied by what is around it |
//! | `\(` `\)` | literal parentheses; unbalanced ones are literal too |
//! | `embedding:name` | the vectors of a file, at the start of a weighted part or after white space |
//! | a learned word | its vectors, wherever the word stands alone; longest word first |
//!
//! Chunks, weights and embedding names follow ComfyUI (`comfy/sd1_clip.py`; goldens by `tests/golden/prompt.py`), so that a prompt means the same in
//! both. Learned words are an addition: ComfyUI would read them as ordinary text.

mod chunks;
mod parts;
mod weights;
mod words;

pub use chunks::{Chunk, FoundEmbedding, PromptToken, TokenizedPrompt, tokenize_prompt};
pub use parts::EmbeddingLookup;
pub use weights::{apply_weights, parse_weights};
pub(crate) use words::{Piece, cut};
pub use words::{Word, check_word, contains_word};

#[cfg(test)]
mod tests;
