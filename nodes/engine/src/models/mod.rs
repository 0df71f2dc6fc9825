//! The frozen models. Structs mirror the names in the checkpoint; widths and depths come from its configuration.

mod autoencoder_kl;
mod clip_text_model;
mod layers;
mod resnet;
mod settings;
mod text_encoders;
mod transformer;
mod unet;
mod unet_config;

pub use autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig, LatentPosterior};
pub use clip_text_model::{ClipTextConfig, ClipTextModel, EncodedText, HiddenLayer};
pub use text_encoders::{EncodedPrompt, TextEncoders, TextTower};
pub use unet::{AddedConditioning, TimeIds, UNet2DConditionModel};
pub use unet_config::{OneOrEach, UNet2DConditionConfig};
