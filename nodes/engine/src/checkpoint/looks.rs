//! What networks look like that cannot be read: for errors that say what was found.

use super::Weights;
use super::layout::below;

/// A name, or the beginning of names, below the prefix of a denoiser, and whose it is. The first one that is there counts.
const DENOISERS: [(&str, &str); 11] = [
    ("double_blocks.", "Flux or a relative of it"),
    ("joint_blocks.", "Stable Diffusion 3"),
    ("clip_txt_mapper.", "Stable Cascade"),
    ("clip_txt_pooled_mapper.", "Stable Cascade"),
    ("clip_mapper.", "Stable Cascade"),
    ("double_layers.", "AuraFlow"),
    ("mlp_t5.", "Hunyuan DiT"),
    ("t_block.", "PixArt"),
    ("cap_embedder.", "Lumina or a relative of it"),
    ("head.modulation", "Wan, a model of videos"),
    ("input_blocks.1.0.time_stack.", "a model of videos"),
];

/// The same for autoencoders.
const AUTOENCODERS: [(&str, &str); 6] = [
    ("taesd_", "TAESD, an approximation of an autoencoder"),
    ("vquantizer.", "stage A of Stable Cascade"),
    ("encoder.backbone.", "stage C of Stable Cascade"),
    ("decoder.middle.", "the autoencoder of Wan, a model of videos"),
    ("decoder.mid.block_1.time_stack.", "the autoencoder of a model of videos"),
    ("decoder.layers.", "an autoencoder of sounds"),
];

fn look(weights: &Weights, prefix: &str, table: &[(&'static str, &'static str)]) -> Option<&'static str> {
    let names = weights.names();
    let has = |start: &str| {
        let start = below(prefix, start);
        names.iter().any(|name| name.starts_with(&start))
    };
    table.iter().find(|(start, _)| has(start)).map(|(_, what)| *what)
}

/// What the denoiser below `prefix` is, if it is one that is known not to be readable.
pub(super) fn denoiser(weights: &Weights, prefix: &str) -> Option<&'static str> {
    let has = |name: &str| weights.shape(&below(prefix, name)).is_some();
    if let Some(what) = look(weights, prefix, &DENOISERS) {
        return Some(what);
    }
    // Of the UNets that are told more than the text, SDXL's has three levels of two residual blocks, the others have four.
    if !has("label_emb.0.0.weight") || !has("input_blocks.9.0.op.weight") {
        return None;
    }
    Some(match has("input_blocks.1.1.proj_in.weight") {
        true => "Stable Diffusion 2 unCLIP",
        false => "the refiner of SDXL",
    })
}

/// What the autoencoder below `prefix` is, if it is one that is known not to be readable.
pub(super) fn autoencoder(weights: &Weights, prefix: &str) -> Option<String> {
    if let Some(what) = look(weights, prefix, &AUTOENCODERS) {
        return Some(what.to_owned());
    }
    let first = ["decoder.conv_in.weight", "decoder.conv_in.conv.weight"];
    match first.iter().find_map(|name| weights.shape(&below(prefix, name)))?[..] {
        [_, _, _, _, _] => Some("the autoencoder of a model of videos".to_owned()),
        [_, 16, ..] => {
            Some("an autoencoder of 16 channels, as Flux and Stable Diffusion 3 have it".to_owned())
        }
        [_, channels, ..] if channels != 4 => Some(format!("an autoencoder of {channels} channels")),
        _ => None,
    }
}
