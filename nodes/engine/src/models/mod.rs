//! The frozen models. Structs mirror the names in the checkpoint; widths and depths come from its configuration.

mod autoencoder_kl;
mod clip_text_model;
mod layers;
mod resnet;
mod settings;
mod transformer;
mod unet;

pub use autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig, LatentPosterior};
pub use clip_text_model::{ClipTextConfig, ClipTextModel, EncodedText};
pub use unet::{UNet2DConditionConfig, UNet2DConditionModel};
