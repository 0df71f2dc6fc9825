//! From diffusers' names, which our models ask for, to the names in a single-file checkpoint (CompVis' latent-diffusion, "ldm").
//!
//! The two describe one structure: diffusers counts levels and the blocks inside them, ldm counts all blocks in one row. So a name can be
//! translated as soon as the blocks per level are known, and nothing has to be renamed in advance.

/// Where a tensor is found: under the first of these names that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) names: Vec<String>,
    pub(super) take: Take,
}

/// How much of the found tensor is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Whole,
    /// The i-th of n equal parts of the first dimension.
    Part(usize, usize),
    Transposed,
}

impl Alias {
    pub(super) fn whole(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], take: Take::Whole }
    }

    fn either(first: String, second: String) -> Self {
        Self { names: vec![first, second], take: Take::Whole }
    }

    fn part(name: impl Into<String>, index: usize, count: usize) -> Self {
        Self { names: vec![name.into()], take: Take::Part(index, count) }
    }

    fn transposed(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], take: Take::Transposed }
    }
}

/// What must be known of a file before a name can be translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Levels of the network.
    pub(super) levels: usize,
    /// Residual blocks of each level on the way down.
    pub(super) layers_per_block: usize,
}

/// Parts of a translated name, and what is left of the asked one.
type Split<'a> = (String, &'a str);

/// A name of `UNet2DConditionModel` as `model.diffusion_model` has it.
pub(super) fn unet(name: &str, layout: Layout) -> Option<Alias> {
    let (block, rest) = split_number(name, "down_blocks.");
    let per_level = layout.layers_per_block + 1;
    if let Some(level) = block {
        let (path, rest) = if let Some(rest) = rest.strip_prefix("downsamplers.0.conv.") {
            (format!("input_blocks.{}.0.op", (level + 1) * per_level), rest)
        } else {
            let (kind, index, rest) = layer(rest)?;
            (format!("input_blocks.{}.{kind}", 1 + level * per_level + index), rest)
        };
        return Some(join((path, rest)));
    }
    if let (Some(block), rest) = split_number(name, "up_blocks.") {
        let (path, rest) = if let Some(rest) = rest.strip_prefix("upsamplers.0.conv.") {
            // After the residual block and, where there is one, the transformer: the source knows which.
            let at = block * per_level + layout.layers_per_block;
            let with = |index: usize| format!("output_blocks.{at}.{index}.conv.{rest}");
            return Some(Alias::either(with(2), with(1)));
        } else {
            let (kind, index, rest) = layer(rest)?;
            (format!("output_blocks.{}.{kind}", block * per_level + index), rest)
        };
        return Some(join((path, rest)));
    }
    let renamed = [
        ("mid_block.resnets.0.", "middle_block.0"),
        ("mid_block.attentions.0.", "middle_block.1"),
        ("mid_block.resnets.1.", "middle_block.2"),
        ("conv_in.", "input_blocks.0.0"),
        ("conv_norm_out.", "out.0"),
        ("conv_out.", "out.2"),
        ("time_embedding.linear_1.", "time_embed.0"),
        ("time_embedding.linear_2.", "time_embed.2"),
        ("add_embedding.linear_1.", "label_emb.0.0"),
        ("add_embedding.linear_2.", "label_emb.0.2"),
    ];
    renamed.iter().find_map(|(ours, theirs)| Some(join(((*theirs).to_owned(), name.strip_prefix(ours)?))))
}

/// `resnets.1.norm1.weight` is the first thing in block 1, `attentions.1.…` the second.
fn layer(name: &str) -> Option<(usize, usize, &str)> {
    if let (Some(index), rest) = split_number(name, "resnets.") {
        return Some((0, index, rest));
    }
    match split_number(name, "attentions.") {
        (Some(index), rest) => Some((1, index, rest)),
        _ => None,
    }
}

/// The names inside a residual block differ, those inside a transformer are the same.
fn join((path, rest): Split<'_>) -> Alias {
    const RESNET: [(&str, &str); 6] = [
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ];
    let renamed = RESNET.iter().find_map(|(ours, theirs)| {
        let rest = rest.strip_prefix(ours)?.strip_prefix('.')?;
        // `norm1` also names a layer norm inside a transformer, but never directly below the block.
        Some(format!("{path}.{theirs}.{rest}"))
    });
    Alias::whole(renamed.unwrap_or_else(|| format!("{path}.{rest}")))
}

/// A name of `AutoencoderKL` as `first_stage_model` has it.
pub(super) fn vae(name: &str, layout: Layout) -> Option<Alias> {
    let (side, rest) = match name.split_once('.')? {
        ("encoder", rest) => ("encoder", rest),
        ("decoder", rest) => ("decoder", rest),
        // quant_conv and post_quant_conv are called the same.
        _ => return Some(Alias::whole(name)),
    };
    let inside = |path: String, rest: &str| {
        Alias::whole(format!("{side}.{path}.{}", rest.replace("conv_shortcut", "nin_shortcut")))
    };
    if let (Some(level), rest) = split_number(rest, "down_blocks.") {
        return Some(match split_number(rest, "resnets.") {
            (Some(block), rest) => inside(format!("down.{level}.block.{block}"), rest),
            _ => inside(format!("down.{level}.downsample.conv"), rest.strip_prefix("downsamplers.0.conv.")?),
        });
    }
    if let (Some(block), rest) = split_number(rest, "up_blocks.") {
        // ldm counts the decoder's levels from the picture's side.
        let level = layout.levels.checked_sub(block + 1)?;
        return Some(match split_number(rest, "resnets.") {
            (Some(block), rest) => inside(format!("up.{level}.block.{block}"), rest),
            _ => inside(format!("up.{level}.upsample.conv"), rest.strip_prefix("upsamplers.0.conv.")?),
        });
    }
    if let Some(rest) = rest.strip_prefix("mid_block.attentions.0.") {
        let names = [
            ("group_norm.", "norm"),
            ("to_q.", "q"),
            ("to_k.", "k"),
            ("to_v.", "v"),
            ("to_out.0.", "proj_out"),
        ];
        let found = names.iter().find_map(|(ours, theirs)| Some((theirs, rest.strip_prefix(ours)?)));
        return found.map(|(theirs, rest)| Alias::whole(format!("{side}.mid.attn_1.{theirs}.{rest}")));
    }
    if let (Some(block), rest) = split_number(rest, "mid_block.resnets.") {
        return Some(inside(format!("mid.block_{}", block + 1), rest));
    }
    Some(Alias::whole(format!("{side}.{}", rest.replace("conv_norm_out", "norm_out"))))
}

/// Names of `CLIPTextModel` that are the same in the file.
pub(super) fn same(name: &str, _: Layout) -> Option<Alias> {
    Some(Alias::whole(name))
}

/// A name of `CLIPTextModel` as OpenCLIP's `model` has it.
pub(super) fn open_clip(name: &str, _: Layout) -> Option<Alias> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let fixed = [
        ("embeddings.token_embedding.weight", "token_embedding.weight"),
        ("embeddings.position_embedding.weight", "positional_embedding"),
        ("final_layer_norm.weight", "ln_final.weight"),
        ("final_layer_norm.bias", "ln_final.bias"),
    ];
    if let Some((_, theirs)) = fixed.iter().find(|(ours, _)| *ours == name) {
        return Some(Alias::whole(*theirs));
    }
    if name == "text_projection.weight" {
        // A matrix for x·P there, a linear layer here.
        return Some(Alias::transposed("text_projection"));
    }
    let (Some(layer), rest) = split_number(name, "encoder.layers.") else { return None };
    let block = format!("transformer.resblocks.{layer}");
    for (third, proj) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        if let Some(rest) = rest.strip_prefix("self_attn.").and_then(|rest| rest.strip_prefix(proj)) {
            // One matrix holds all three.
            return Some(Alias::part(format!("{block}.attn.in_proj_{}", rest.strip_prefix('.')?), third, 3));
        }
    }
    let renamed = [
        ("self_attn.out_proj.", "attn.out_proj"),
        ("layer_norm1.", "ln_1"),
        ("layer_norm2.", "ln_2"),
        ("mlp.fc1.", "mlp.c_fc"),
        ("mlp.fc2.", "mlp.c_proj"),
    ];
    renamed.iter().find_map(|(ours, theirs)| {
        Some(Alias::whole(format!("{block}.{theirs}.{}", rest.strip_prefix(ours)?)))
    })
}

/// A name of `CLIPTextModel` as CompVis' `BERTEmbedder` has it, where attention and feed-forward are layers of their own, each behind its norm.
pub(super) fn ldm_bert(name: &str, _: Layout) -> Option<Alias> {
    let fixed = [
        ("embeddings.token_embedding.weight", "token_emb.weight"),
        ("embeddings.position_embedding.weight", "pos_emb.emb.weight"),
        ("final_layer_norm.weight", "norm.weight"),
        ("final_layer_norm.bias", "norm.bias"),
    ];
    let (attention, rest) = match bert_layer(name, &fixed)? {
        Ok(alias) => return Some(alias),
        Err((layer, rest)) => (2 * layer, rest),
    };
    let feed_forward = attention + 1;
    let renamed = [
        ("layer_norm1.", format!("{attention}.0")),
        ("self_attn.q_proj.", format!("{attention}.1.to_q")),
        ("self_attn.k_proj.", format!("{attention}.1.to_k")),
        ("self_attn.v_proj.", format!("{attention}.1.to_v")),
        ("self_attn.out_proj.", format!("{attention}.1.to_out")),
        ("layer_norm2.", format!("{feed_forward}.0")),
        ("mlp.fc1.", format!("{feed_forward}.1.net.0.0")),
        ("mlp.fc2.", format!("{feed_forward}.1.net.2")),
    ];
    renamed.iter().find_map(|(ours, theirs)| {
        Some(Alias::whole(format!("attn_layers.layers.{theirs}.{}", rest.strip_prefix(ours)?)))
    })
}

/// A name of `CLIPTextModel` as diffusers' `LDMBertModel` has it.
pub(super) fn ldm_bert_in_folder(name: &str, _: Layout) -> Option<Alias> {
    let fixed = [
        ("embeddings.token_embedding.weight", "model.embed_tokens.weight"),
        ("embeddings.position_embedding.weight", "model.embed_positions.weight"),
        ("final_layer_norm.weight", "model.layer_norm.weight"),
        ("final_layer_norm.bias", "model.layer_norm.bias"),
    ];
    let (layer, rest) = match bert_layer(name, &fixed)? {
        Ok(alias) => return Some(alias),
        Err(layer) => layer,
    };
    let renamed =
        [("layer_norm1.", "self_attn_layer_norm."), ("layer_norm2.", "final_layer_norm."), ("mlp.", "")];
    let found = renamed.iter().find_map(|(ours, theirs)| Some((theirs, rest.strip_prefix(ours)?)));
    let (theirs, rest) = found.unwrap_or((&"", rest));
    Some(Alias::whole(format!("model.layers.{layer}.{theirs}{rest}")))
}

/// A name outside the layers as `fixed` has it, or else the layer and the name inside it.
fn bert_layer<'a>(name: &'a str, fixed: &[(&str, &str)]) -> Option<Result<Alias, (usize, &'a str)>> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    if let Some((_, theirs)) = fixed.iter().find(|(ours, _)| *ours == name) {
        return Some(Ok(Alias::whole(*theirs)));
    }
    match split_number(name, "encoder.layers.") {
        (Some(layer), rest) => Some(Err((layer, rest))),
        _ => None,
    }
}

/// `down_blocks.2.rest` with the prefix `down_blocks.` is 2 and `rest`; otherwise nothing and the name.
fn split_number<'a>(name: &'a str, prefix: &str) -> (Option<usize>, &'a str) {
    let split = name.strip_prefix(prefix).and_then(|rest| {
        let (number, rest) = rest.split_once('.')?;
        Some((number.parse().ok()?, rest))
    });
    split.map_or((None, name), |(number, rest)| (Some(number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD1: Layout = Layout { levels: 4, layers_per_block: 2 };

    #[test]
    fn names_of_stable_diffusion_1() {
        for (ours, theirs) in [
            ("conv_in.weight", "input_blocks.0.0.weight"),
            ("time_embedding.linear_2.bias", "time_embed.2.bias"),
            ("down_blocks.0.resnets.1.norm1.weight", "input_blocks.2.0.in_layers.0.weight"),
            ("down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"),
            (
                "down_blocks.2.attentions.0.transformer_blocks.0.norm1.weight",
                "input_blocks.7.1.transformer_blocks.0.norm1.weight",
            ),
            ("down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"),
            ("mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"),
            ("mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"),
            ("up_blocks.3.resnets.2.conv2.weight", "output_blocks.11.0.out_layers.3.weight"),
            ("up_blocks.1.attentions.2.norm.weight", "output_blocks.5.1.norm.weight"),
            ("conv_norm_out.weight", "out.0.weight"),
        ] {
            assert_eq!(unet(ours, SD1), Some(Alias::whole(theirs)), "{ours}");
        }
        let upsampler = |at: usize| {
            Alias::either(
                format!("output_blocks.{at}.2.conv.weight"),
                format!("output_blocks.{at}.1.conv.weight"),
            )
        };
        assert_eq!(unet("up_blocks.0.upsamplers.0.conv.weight", SD1), Some(upsampler(2)));
        assert_eq!(unet("something.else", SD1), None);
    }

    #[test]
    fn names_of_the_autoencoder() {
        for (ours, theirs) in [
            (
                "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
                "encoder.down.1.block.0.nin_shortcut.bias",
            ),
            ("encoder.down_blocks.2.downsamplers.0.conv.weight", "encoder.down.2.downsample.conv.weight"),
            ("encoder.mid_block.attentions.0.to_out.0.weight", "encoder.mid.attn_1.proj_out.weight"),
            ("decoder.up_blocks.0.resnets.2.norm1.weight", "decoder.up.3.block.2.norm1.weight"),
            ("decoder.up_blocks.2.upsamplers.0.conv.weight", "decoder.up.1.upsample.conv.weight"),
            ("decoder.mid_block.resnets.1.conv2.weight", "decoder.mid.block_2.conv2.weight"),
            ("decoder.conv_norm_out.weight", "decoder.norm_out.weight"),
            ("post_quant_conv.weight", "post_quant_conv.weight"),
        ] {
            assert_eq!(vae(ours, SD1), Some(Alias::whole(theirs)), "{ours}");
        }
    }

    #[test]
    fn names_of_open_clip() {
        let named = |name| open_clip(name, SD1);
        assert_eq!(
            named("text_model.encoder.layers.3.self_attn.k_proj.weight"),
            Some(Alias::part("transformer.resblocks.3.attn.in_proj_weight", 1, 3))
        );
        assert_eq!(
            named("encoder.layers.0.mlp.fc2.bias"),
            Some(Alias::whole("transformer.resblocks.0.mlp.c_proj.bias"))
        );
        assert_eq!(named("text_projection.weight"), Some(Alias::transposed("text_projection")));
    }

    #[test]
    fn names_of_the_latent_diffusion_encoder() {
        for (ours, file, folder) in [
            ("embeddings.token_embedding.weight", "token_emb.weight", "model.embed_tokens.weight"),
            ("text_model.final_layer_norm.bias", "norm.bias", "model.layer_norm.bias"),
            (
                "text_model.encoder.layers.3.self_attn.k_proj.weight",
                "attn_layers.layers.6.1.to_k.weight",
                "model.layers.3.self_attn.k_proj.weight",
            ),
            (
                "encoder.layers.3.layer_norm1.weight",
                "attn_layers.layers.6.0.weight",
                "model.layers.3.self_attn_layer_norm.weight",
            ),
            (
                "encoder.layers.0.mlp.fc1.bias",
                "attn_layers.layers.1.1.net.0.0.bias",
                "model.layers.0.fc1.bias",
            ),
            (
                "encoder.layers.0.layer_norm2.weight",
                "attn_layers.layers.1.0.weight",
                "model.layers.0.final_layer_norm.weight",
            ),
        ] {
            assert_eq!(ldm_bert(ours, SD1), Some(Alias::whole(file)), "{ours}");
            assert_eq!(ldm_bert_in_folder(ours, SD1), Some(Alias::whole(folder)), "{ours}");
        }
        assert_eq!(ldm_bert("text_projection.weight", SD1), None);
    }
}
