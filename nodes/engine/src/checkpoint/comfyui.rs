//! The parts of a model that ComfyUI has loaded, in the names of its modules. Each part comes by itself, and what it is shows in its names and shapes.
//!
//! | part | names |
//! |---|---|
//! | denoiser | `diffusion_model.…` of `model.model`, below it those of a single file; `model.diffusion_model.…` is taken too |
//! | text encoders | `clip_l.transformer.…`, `clip_g.transformer.…`, `clip_h.transformer.…` of `clip.cond_stage_model`, below them those of transformers |
//! | autoencoder | `encoder.…`, `decoder.…`, `quant_conv.…` of `vae.first_stage_model`: those of a single file without the prefix |

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::Device;

use super::family::{DenoiserSign, FAMILIES, Family, TextRow};
use super::names::{self, Layout};
use super::weights::NameMap;
use super::{Part, Precision, Weights, layout, looks, vae_file};
use crate::models::{AutoencoderKL, TextEncoders, UNet2DConditionModel};
use crate::{CancelToken, Error, Result};

/// Whether what is computed depends on a tensor of that name. The others are buffers and leftovers of training, and projections of pooled states that no denoiser
/// here is told: ComfyUI leaves those as they happen to lie in memory where a checkpoint has none, so they may hold anything, and something else each time.
pub fn is_weight(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    let buffer = ["model_sampling.", "noise_augmentor."].iter().any(|start| name.starts_with(start));
    let other = [
        ".logit_scale",
        "clip_l.transformer.text_projection.weight",
        "clip_h.transformer.text_projection.weight",
    ];
    !buffer && !other.iter().any(|end| name.ends_with(end))
}

/// The denoiser, and the family that it is of.
///
/// # Errors
/// For one of no known structure, with what it looks like, and as for a file: tensors that are missing, unknown or of another shape.
pub fn unet(
    weights: Weights,
    device: &Device,
    precision: Precision,
    cancel: &CancelToken,
) -> Result<(Arc<UNet2DConditionModel>, &'static Family)> {
    let names = weights.names();
    let is_below = |prefix: &str| names.iter().any(|name| strip(name, prefix).is_some());
    let prefixes = [layout::UNET, "diffusion_model"];
    let prefix = prefixes.into_iter().find(|prefix| is_below(prefix)).ok_or_else(|| {
        refused(
            &weights,
            "no denoiser: there is no tensor diffusion_model.…",
            "hand in the state dict of `model.model`",
        )
    })?;
    refuse_beside(&weights, &[prefix.to_owned()])?;
    let family = family_of_denoiser(&weights, prefix)?;
    let (config, layout) = layout::unet(&weights, prefix, family, None)?;
    let map = NameMap { prefix: prefix.to_owned(), translate: names::unet, layout };
    let part = Part { config, weights: weights.with_names(map) };
    Ok((part.build(device, precision, cancel, UNet2DConditionModel::new)?, family))
}

fn family_of_denoiser(weights: &Weights, prefix: &str) -> Result<&'static Family> {
    let shape = |name: &str| weights.shape(&layout::below(prefix, name));
    if let Some(what) = looks::denoiser(weights, prefix) {
        return Err(refused(weights, format!("this is {what}"), known(|_| String::new())));
    }
    let sign = shape("middle_block.1.proj_in.weight").map(|projection| DenoiserSign {
        linear: projection.len() == 2,
        added: shape("label_emb.0.0.weight").is_some(),
    });
    let family = families().find(|family| family.alone == sign);
    family.filter(|_| shape("input_blocks.0.0.weight").is_some()).ok_or_else(|| {
        let some: Vec<&str> = weights.names().into_iter().take(3).collect();
        refused(
            weights,
            format!("no denoiser that is known, with tensors such as {}", some.join(", ")),
            known(|_| String::new()),
        )
    })
}

/// The families that ComfyUI has.
fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().filter(|family| family.alone.is_some())
}

/// Advice: what could be read, each with `more`.
fn known(more: impl Fn(&Family) -> String) -> String {
    let known: Vec<String> = families().map(|family| format!("{}{}", family.name, more(family))).collect();
    format!("known are {}", known.join(", "))
}

/// The text encoders, with the tokenizers that their family has.
///
/// # Errors
/// If they are together those of no known family, and as for a file: tensors that are missing, unknown or of another shape.
pub fn text_encoders(
    weights: Weights,
    device: &Device,
    precision: Precision,
    cancel: &CancelToken,
) -> Result<TextEncoders> {
    let family = family_of_text(&weights)?;
    // The tokenizers first: they take a moment, and reading the weights may take a minute.
    let parts = family.text.iter().map(|row| {
        let (part, tokenizer) = (text_part(&weights, row)?, row.tokenizer()?);
        let fits = part.check_tokenizer(&tokenizer);
        fits.map_err(|error| error.context(format!("{}: {}", weights.origin(), row.key)))?;
        Ok((row, part, Arc::new(tokenizer)))
    });
    let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
    let towers =
        parts.map(|(row, part, tokenizer)| part.tower(row, tokenizer, row.layer, device, precision, cancel));
    TextEncoders::new(towers.collect::<Result<_>>()?)
}

fn text_part(weights: &Weights, row: &TextRow) -> Result<Part> {
    let map = NameMap {
        prefix: format!("{}.transformer", row.key),
        translate: names::same,
        layout: Layout::default(),
    };
    let weights = weights.clone().with_names(map);
    Ok(Part { config: layout::text(&weights, row)?, weights })
}

/// The family with just these text encoders: a model of another kind may have one of them beside others.
fn family_of_text(weights: &Weights) -> Result<&'static Family> {
    let towers: BTreeSet<&str> =
        weights.names().into_iter().map(|name| name.split('.').next().unwrap_or(name)).collect();
    let fits = |family: &&Family| family.text.iter().map(|row| row.key).collect::<BTreeSet<_>>() == towers;
    let family = families().find(fits).ok_or_else(|| {
        let found: Vec<&str> = towers.iter().copied().take(5).collect();
        let keys = |family: &Family| {
            let keys: Vec<&str> = family.text.iter().map(|row| row.key).collect();
            format!(" ({})", keys.join(" and "))
        };
        refused(
            weights,
            format!("text encoders {}, which no known family has together", found.join(", ")),
            known(keys),
        )
    })?;
    refuse_beside(weights, &towers.iter().map(|tower| format!("{tower}.transformer")).collect::<Vec<_>>())?;
    Ok(family)
}

/// The autoencoder.
///
/// # Errors
/// For one of no known structure, with what it looks like, and as for a file: tensors that are missing, unknown or of another shape.
pub fn vae(
    weights: Weights,
    device: &Device,
    precision: Precision,
    cancel: &CancelToken,
) -> Result<Arc<AutoencoderKL>> {
    vae_file::of_ldm(weights)?.build(device, precision, cancel, AutoencoderKL::new)
}

/// Refuse tensors that are not below one of `prefixes`: they are of something that would be left out.
fn refuse_beside(weights: &Weights, prefixes: &[String]) -> Result<()> {
    let is_known = |name: &str| prefixes.iter().any(|prefix| strip(name, prefix).is_some());
    match weights.names().into_iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(refused(
            weights,
            format!("a tensor of an unknown kind: {name}"),
            "hand in the state dict of one part of the model, as ComfyUI has it loaded",
        )),
    }
}

/// What of a name is below a prefix.
fn strip<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix)?.strip_prefix('.')
}

fn refused(weights: &Weights, what: impl std::fmt::Display, help: impl Into<String>) -> Error {
    Error::incompatible(format!("{}: {what}", weights.origin())).help(help)
}
