//! Configurations read off the shapes of a single file's tensors, in diffusers' terms (after ComfyUI's `model_detection.py`: shapes tell all
//! but the number of heads).

use serde_json::{Value, json};

use super::Weights;
use super::family::{Family, Heads, TextRow};
use super::names::Layout;
use crate::{Error, Result};

pub(super) const UNET: &str = "model.diffusion_model";
pub(super) const VAE: &str = "first_stage_model";

/// A name below a prefix, which may be empty.
pub(super) fn below(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Channels that SDXL embeds each of the six sizes in.
const SIZE_CHANNELS: usize = 256;

/// The shapes of a source, asked for by name.
struct Shapes<'a> {
    weights: &'a Weights,
    names: Vec<&'a str>,
}

impl<'a> Shapes<'a> {
    fn new(weights: &'a Weights) -> Self {
        Self { weights, names: weights.names() }
    }

    fn of(&self, name: &str) -> Result<Vec<usize>> {
        self.weights.shape(name).ok_or_else(|| {
            Error::incompatible(format!("{}: tensor {name} is missing", self.weights.origin()))
                .help("the file is incomplete, or not a checkpoint of the family that its other tensors show")
        })
    }

    /// One size of a tensor's shape.
    fn size(&self, name: &str, dim: usize) -> Result<usize> {
        let shape = self.of(name)?;
        shape.get(dim).copied().filter(|size| *size > 0).ok_or_else(|| {
            Error::incompatible(format!("{}: tensor {name} has shape {shape:?}", self.weights.origin()))
        })
    }

    fn has_below(&self, prefix: &str) -> bool {
        // The names are sorted.
        let at = self.names.partition_point(|name| *name < prefix);
        self.names.get(at).is_some_and(|name| name.starts_with(prefix))
    }

    /// How many there are of `prefix0…`, `prefix1…`, ….
    fn count(&self, prefix: &str) -> usize {
        (0..).take_while(|i| self.has_below(&format!("{prefix}{i}."))).count()
    }
}

/// `unet/config.json` of the denoiser below `prefix`, and what its names depend on. `pooled` is the width of the text encoders' pooled state, if they
/// are at hand; else the sizes that an SDXL is told are as wide as in every SDXL.
pub(super) fn unet(
    weights: &Weights,
    prefix: &str,
    family: &Family,
    pooled: Option<usize>,
) -> Result<(Value, Layout)> {
    let shapes = Shapes::new(weights);
    let at = |name: &str| below(prefix, name);
    let conv_in = shapes.of(&at("input_blocks.0.0.weight"))?;
    let [first, in_channels, ..] = conv_in[..] else {
        return Err(Error::incompatible(format!(
            "{}: the UNet's first layer has shape {conv_in:?}",
            weights.origin()
        )));
    };
    let mut widths = Vec::new();
    // Residual blocks of each level, and the transformer blocks behind the first of them (0: none).
    let (mut blocks, mut depths) = (vec![0usize], vec![0usize]);
    let mut cross_attention_dim = 0;
    for i in 1..shapes.count(&at("input_blocks.")) {
        let block = at(&format!("input_blocks.{i}"));
        if shapes.has_below(&format!("{block}.0.op.")) {
            blocks.push(0);
            depths.push(0);
            continue;
        }
        let level = blocks.len() - 1;
        if blocks[level] == 0 {
            widths.push(shapes.size(&format!("{block}.0.out_layers.3.weight"), 0)?);
            depths[level] = shapes.count(&format!("{block}.1.transformer_blocks."));
        }
        blocks[level] += 1;
        if depths[level] > 0 {
            cross_attention_dim =
                shapes.size(&format!("{block}.1.transformer_blocks.0.attn2.to_k.weight"), 1)?;
        }
    }
    let levels = widths.len();
    let layers_per_block = blocks[0];
    if levels != blocks.len() || blocks.iter().any(|n| *n != layers_per_block) || cross_attention_dim == 0 {
        return Err(Error::incompatible(format!(
            "{}: the UNet's blocks {blocks:?} of widths {widths:?} are of no structure that is known",
            weights.origin()
        )));
    }
    let kinds = |with: &str, without: &str| -> Vec<String> {
        depths.iter().map(|depth| if *depth > 0 { with } else { without }.to_owned()).collect()
    };
    let (down, mut up) =
        (kinds("CrossAttnDownBlock2D", "DownBlock2D"), kinds("CrossAttnUpBlock2D", "UpBlock2D"));
    up.reverse();
    let heads: Vec<usize> = widths
        .iter()
        .map(|width| match family.heads {
            Heads::Count(n) => n,
            Heads::Width(w) => (width / w).max(1),
        })
        .collect();
    let projection = shapes.of(&at("middle_block.1.proj_in.weight"))?;
    // The pooled text, and six sizes.
    let added = weights.shape(&at("label_emb.0.0.weight")).map(|shape| shape.get(1).copied().unwrap_or(0));
    let each = added.map(|added| pooled.map_or(SIZE_CHANNELS, |pooled| added.saturating_sub(pooled) / 6));
    let config = json!({
        "addition_embed_type": added.map(|_| "text_time"),
        "addition_time_embed_dim": each,
        "projection_class_embeddings_input_dim": added,
        "in_channels": in_channels,
        "out_channels": shapes.size(&at("out.2.weight"), 0)?,
        "block_out_channels": widths,
        "down_block_types": down,
        "up_block_types": up,
        "layers_per_block": layers_per_block,
        "cross_attention_dim": cross_attention_dim,
        "num_attention_heads": heads,
        "transformer_layers_per_block": depths.iter().map(|depth| (*depth).max(1)).collect::<Vec<_>>(),
        "use_linear_projection": projection.len() == 2,
        "norm_num_groups": groups(first),
    });
    Ok((config, Layout { levels, layers_per_block }))
}

/// 32, but in networks that are too narrow for it.
fn groups(width: usize) -> usize {
    if width.is_multiple_of(32) { 32 } else { width }
}

/// `vae/config.json` of a file in the names of latent-diffusion.
pub(super) fn vae(weights: &Weights, prefix: &str, scaling_factor: f64) -> Result<(Value, Layout)> {
    let names = VaeNames { level: "encoder.down.", block: "block.", prefix };
    vae_by(weights, &names, scaling_factor)
}

/// `vae/config.json` of a file in diffusers' names that lost it.
pub(super) fn vae_of_diffusers(weights: &Weights, scaling_factor: f64) -> Result<Value> {
    let names = VaeNames { level: "encoder.down_blocks.", block: "resnets.", prefix: "" };
    Ok(vae_by(weights, &names, scaling_factor)?.0)
}

/// What the two kinds of names call the levels of the encoder, and the blocks of a level.
struct VaeNames<'a> {
    level: &'a str,
    block: &'a str,
    prefix: &'a str,
}

fn vae_by(weights: &Weights, names: &VaeNames<'_>, scaling_factor: f64) -> Result<(Value, Layout)> {
    let shapes = Shapes::new(weights);
    let VaeNames { level, block, prefix } = names;
    let at = |name: &str| below(prefix, name);
    let levels = shapes.count(&at(level));
    let width = |i: usize| shapes.size(&at(&format!("{level}{i}.{block}0.conv1.weight")), 0);
    let widths = (0..levels).map(width).collect::<Result<Vec<_>>>()?;
    let layers_per_block = shapes.count(&at(&format!("{level}0.{block}")));
    let kinds = |kind: &str| vec![kind.to_owned(); levels];
    let config = json!({
        "in_channels": shapes.size(&at("encoder.conv_in.weight"), 1)?,
        "out_channels": shapes.size(&at("decoder.conv_out.weight"), 0)?,
        "down_block_types": kinds("DownEncoderBlock2D"),
        "up_block_types": kinds("UpDecoderBlock2D"),
        "block_out_channels": widths,
        "layers_per_block": layers_per_block,
        "latent_channels": shapes.size(&at("decoder.conv_in.weight"), 1)?,
        "norm_num_groups": widths.first().map_or(32, |width| groups(*width)),
        "scaling_factor": scaling_factor,
    });
    Ok((config, Layout { levels, layers_per_block }))
}

/// `text_encoder/config.json` of weights under our names.
pub(super) fn text(weights: &Weights, row: &TextRow) -> Result<Value> {
    let ours = |name: &str| weights.shape_of(&format!("text_model.{name}"));
    let wanted = |name: &str| {
        ours(name).filter(|shape| shape.iter().all(|size| *size > 0)).ok_or_else(|| {
            Error::incompatible(format!(
                "{}: tensor {} is missing",
                weights.origin(),
                weights.their_name(&format!("text_model.{name}"))
            ))
            .help("the text encoder is incomplete, or of another family than its other tensors show")
        })
    };
    let layer = |i: usize| format!("encoder.layers.{i}.mlp.fc1.weight");
    let size = |name: &str, dim: usize| {
        let shape = wanted(name)?;
        shape.get(dim).copied().ok_or_else(|| {
            let name = weights.their_name(&format!("text_model.{name}"));
            Error::incompatible(format!("{}: tensor {name} has shape {shape:?}", weights.origin()))
                .help("the text encoder is damaged, or of another family than its other tensors show")
        })
    };
    let table = "embeddings.token_embedding.weight";
    let vocab_size = size(table, 0)?;
    let attention = size("encoder.layers.0.self_attn.q_proj.weight", 0)?;
    Ok(json!({
        "vocab_size": vocab_size,
        "hidden_size": size(table, 1)?,
        "intermediate_size": size(&layer(0), 0)?,
        "num_hidden_layers": (0..).take_while(|i| ours(&layer(*i)).is_some()).count(),
        "num_attention_heads": (attention / row.head_width).max(1),
        "attention_width": attention,
        "max_position_embeddings": size("embeddings.position_embedding.weight", 0)?,
        "projection_dim": weights.shape_of("text_projection.weight").and_then(|shape| shape.first().copied()),
        "hidden_act": row.hidden_act,
        "causal": row.causal,
    }))
}

/// The width of the pooled state of weights under our names.
pub(super) fn pooled_width(weights: &Weights) -> usize {
    weights.shape_of("text_projection.weight").and_then(|shape| shape.first().copied()).unwrap_or(0)
}
