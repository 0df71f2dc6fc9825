//! What is behind the handles of the sockets MODEL, CLIP, VAE and TI_CONCEPT.

use std::sync::Arc;

use vocable_engine::concept::Concept;
use vocable_engine::embedding::{Embedding, encoder_for_width};
use vocable_engine::models::{AutoencoderKL, ClipTextModel};
use vocable_engine::sampling::Denoiser;
use vocable_engine::tokenizer::Tokenizer;
use vocable_host_sdk::abi::{Handle, Inputs, NodeError, Value};

/// A denoiser and what it was trained with.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) denoiser: Denoiser,
    /// What the user calls it.
    pub(crate) name: String,
    /// A short name for the weights and what they are computed with.
    pub(crate) fingerprint: String,
}

/// A text encoder, its tokenizer, and the layer to stop at.
#[derive(Clone)]
pub(crate) struct Clip {
    pub(crate) encoder: Arc<ClipTextModel>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// How many of the last layers are left out.
    pub(crate) skip: usize,
    /// A short name for the weights and what they are computed with.
    pub(crate) fingerprint: String,
}

impl Clip {
    /// Whether `word` was learned for this text encoder; the error says for which it was.
    pub(crate) fn fits(&self, word: &Embedding) -> vocable_engine::Result<()> {
        let width = self.encoder.config().hidden_size;
        word.for_encoder(encoder_for_width(width), width).map(|_| ())
    }
}

/// The autoencoder between pictures and latents.
#[derive(Clone)]
pub(crate) struct Vae {
    pub(crate) autoencoder: Arc<AutoencoderKL>,
    /// A short name for the weights and what they are computed with.
    pub(crate) fingerprint: String,
}

/// Pictures to learn from.
pub(crate) struct ConceptPictures {
    pub(crate) concept: Concept,
}

macro_rules! sockets {
    ($($type:ident $tag:literal)*) => {
        $(impl $type {
            /// The socket's type.
            pub(crate) const TAG: &'static str = $tag;

            /// The object behind the input of that name.
            pub(crate) fn from_input(inputs: &Inputs, name: &str) -> Result<Arc<Self>, NodeError> {
                inputs.handle(name)?.open::<Self>().map_err(|error| error.at(format!("input `{name}`")))
            }

            /// The value for an output.
            pub(crate) fn into_value(self) -> Value {
                Value::Handle(Handle::new(Self::TAG, Arc::new(self)))
            }
        })*
    };
}
sockets!(Model "MODEL" Clip "CLIP" Vae "VAE" ConceptPictures "TI_CONCEPT");
