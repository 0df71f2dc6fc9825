//! Nodes that make pictures, with ComfyUI's own ids, inputs, defaults and results.

mod checkpoint_loader_simple;
mod clip_set_last_layer;
mod clip_text_encode;
mod empty_latent_image;
mod k_sampler;
mod load_image;
mod loss_graph;
mod preview_image;
mod save_image;
mod vae_decode;
mod vae_encode;
mod vae_loader;

use vocable_engine::checkpoint::Precision;
use vocable_host_sdk::abi::InputSpec;

use crate::run::DEVICES;

pub(crate) use checkpoint_loader_simple::{CHECKPOINT_ENDINGS, CheckpointLoaderSimple};
pub(crate) use clip_set_last_layer::{ClipSetLastLayer, skipped_layers};
pub(crate) use clip_text_encode::ClipTextEncode;
pub(crate) use empty_latent_image::EmptyLatentImage;
pub(crate) use k_sampler::KSampler;
pub(crate) use load_image::LoadImage;
pub(crate) use loss_graph::LossGraph;
pub(crate) use preview_image::PreviewImage;
pub(crate) use save_image::SaveImage;
pub(crate) use vae_decode::VaeDecode;
pub(crate) use vae_encode::VaeEncode;
pub(crate) use vae_loader::VaeLoader;

/// Where what a loader reads computes.
fn device_input() -> InputSpec {
    InputSpec::combo("device", DEVICES)
        .default("auto")
        .optional()
        .advanced()
        .tooltip("Where the model computes. `auto` is the GPU where there is one that this build can use.")
}

/// The type that a loader keeps weights in, or `more` that it may be told.
fn precision_input(more: &[&str]) -> InputSpec {
    let names = Precision::ALL.iter().map(|(name, _)| *name).chain(more.iter().copied());
    InputSpec::combo("precision", names).default("f32").optional().advanced().tooltip(
        "The type that weights are kept in. Halves need half the memory; on the CPU all is computed in f32.",
    )
}
