//! What is behind the handles of the sockets MODEL, CLIP, VAE and TI_CONCEPT.

use std::sync::Arc;

use vocable_engine::checkpoint::Family;
use vocable_engine::concept::Concept;
use vocable_engine::embedding::Embedding;
use vocable_engine::models::{AutoencoderKL, TextEncoders};
use vocable_engine::sampling::Denoiser;
use vocable_host_sdk::abi::{Handle, Inputs, NodeError, Value};

/// A denoiser and what it was trained with.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) denoiser: Denoiser,
    /// What kind of model it is; `None` if a host handed it in under diffusers' names, which tell its structure only.
    pub(crate) family: Option<&'static Family>,
    /// What the user calls it.
    pub(crate) name: String,
    /// A short name for the weights and what they are computed with.
    pub(crate) fingerprint: String,
}

/// The text encoders of a model, each with its tokenizer and the layer to stop at.
#[derive(Clone)]
pub(crate) struct Clip {
    pub(crate) text: TextEncoders,
    /// A short name for the weights and what they are computed with.
    pub(crate) fingerprint: String,
}

impl Clip {
    /// Whether `word` was learned for these text encoders; the error says for which it was.
    pub(crate) fn fits(&self, word: &Embedding) -> vocable_engine::Result<()> {
        self.text.join(word).map(|_| ())
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
