//! Textual inversion on candle: frozen, differentiable models, training, embeddings and sampling.
//!
//! The engine knows nothing of hosts or node graphs. Start at [`training`] to learn a word and at [`diffusion`] to paint with it.
#![deny(missing_docs)]

mod cancel;
pub mod checkpoint;
pub mod concept;
pub mod diffusion;
pub mod embedding;
mod error;
mod files;
pub mod models;
pub mod ops;
pub mod prompt;
pub mod sampling;
pub mod tokenizer;
pub mod training;

pub use cancel::CancelToken;
pub use error::{Error, ErrorKind, Result};
pub use files::{hex, short_hex, write_whole};
