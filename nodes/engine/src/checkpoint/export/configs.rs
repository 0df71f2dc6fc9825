//! The JSON files of a pipeline's folder, as diffusers and transformers write them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::family::{Family, TextRow};
use super::Export;
use super::text_layers::Layers;
use crate::diffusion::ScheduleConfig;
use crate::models::{AutoencoderKLConfig, ClipTextConfig, OneOrEach, TextTower, UNet2DConditionConfig};
use crate::{Error, Result};

/// The diffusers whose files these are like; it reads older ones with other defaults.
const DIFFUSERS: &str = "0.42.1";

/// `model_index.json`.
pub(super) fn model_index(export: &Export<'_>) -> Value {
    let Family { pipeline, text, .. } = export.family;
    let mut index = Map::new();
    let class = if export.is_inpainting() { pipeline.inpainting } else { pipeline.class };
    index.insert("_class_name".into(), class.into());
    index.insert("_diffusers_version".into(), DIFFUSERS.into());
    let mut part = |name: &str, library: &str, class: &str| {
        index.insert(name.into(), json!([library, class]));
    };
    part("unet", "diffusers", "UNet2DConditionModel");
    part(pipeline.vae, "diffusers", "AutoencoderKL");
    part("scheduler", "diffusers", pipeline.scheduler);
    for (row, tower) in text.iter().zip(export.text.towers()) {
        part(row.folder.name, row.folder.class.0, row.folder.class.1);
        part(row.folder.tokenizer, "transformers", tower.tokenizer.class());
    }
    let mut set = |names: &[&str], value: Value| {
        names.iter().for_each(|name| drop(index.insert((*name).into(), value.clone())));
    };
    match text {
        // Pictures are compared with an empty prompt as nothing at all, which is how SDXL was trained.
        [_, _] => {
            set(&["feature_extractor", "image_encoder"], json!([null, null]));
            set(&["force_zeros_for_empty_prompt"], json!(true));
        }
        [row] if row.folder.class.0 == "transformers" => {
            set(&["feature_extractor", "image_encoder", "safety_checker"], json!([null, null]));
            set(&["requires_safety_checker"], json!(false));
        }
        _ => {}
    }
    Value::Object(index)
}

/// `unet/config.json`. The side of the latents counts only where the model does not say its own.
pub(super) fn unet(config: &UNet2DConditionConfig, latent_side: usize) -> Result<Value> {
    let mut json = object(config)?;
    // Diffusers refuses the right name of the number of heads.
    json.remove("num_attention_heads");
    json.insert("attention_head_dim".into(), each_or_one(config, config.heads()));
    let depths = each_or_one(config, &config.transformer_layers_per_block);
    json.insert("transformer_layers_per_block".into(), depths);
    Ok(of_diffusers("UNet2DConditionModel", json, &[("sample_size", json!(latent_side))]))
}

/// One number where it is the same on each level.
fn each_or_one(config: &UNet2DConditionConfig, numbers: &OneOrEach) -> Value {
    let all: Vec<usize> = (0..config.block_out_channels.len()).map(|level| numbers.at(level)).collect();
    match all.first() {
        Some(first) if all.iter().all(|n| n == first) => json!(first),
        _ => json!(all),
    }
}

/// `vae/config.json`.
pub(super) fn vae(config: &AutoencoderKLConfig, scaling_factor: f64, side: usize) -> Result<Value> {
    let mut json = object(config)?;
    json.insert("scaling_factor".into(), scaling_factor.into());
    let kinds = |kind: &str| json!(vec![kind; config.block_out_channels.len()]);
    let missing = [
        ("down_block_types", kinds("DownEncoderBlock2D")),
        ("up_block_types", kinds("UpDecoderBlock2D")),
        ("sample_size", json!(side)),
    ];
    Ok(of_diffusers("AutoencoderKL", json, &missing))
}

/// `config.json` of a text encoder that is written with these layers in this type (`float16`).
pub(super) fn text(tower: &TextTower, row: &TextRow, layers: Layers, dtype: &str) -> Value {
    let (config, tokenizer) = (tower.encoder.config(), &tower.tokenizer);
    let width = config.attention_width.unwrap_or(config.hidden_size);
    let (_, class) = row.folder.class;
    if class == "LDMBertModel" {
        return json!({
            "architectures": [class],
            "model_type": "ldmbert",
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_position_embeddings,
            "d_model": config.hidden_size,
            "encoder_layers": layers.count,
            "encoder_ffn_dim": config.intermediate_size,
            "encoder_attention_heads": config.num_attention_heads,
            "head_dim": width / config.num_attention_heads.max(1),
            "activation_function": config.hidden_act,
            "scale_embedding": false,
            "pad_token_id": tokenizer.pad(),
            "torch_dtype": dtype,
        });
    }
    json!({
        "architectures": [class],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": layers.count,
        "num_attention_heads": config.num_attention_heads,
        "projection_dim": config.projection_dim.unwrap_or(config.hidden_size),
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos(),
        "eos_token_id": tokenizer.eos(),
        "pad_token_id": tokenizer.pad(),
        "torch_dtype": dtype,
    })
}

/// `scheduler_config.json`: the schedule, and of the scheduler what pipelines of Stable Diffusion have.
pub(super) fn scheduler(family: &Family, schedule: &ScheduleConfig) -> Result<Value> {
    let class = family.pipeline.scheduler;
    // With no signal left in the last timestep, sampling has to begin there.
    let spacing = if schedule.rescale_betas_zero_snr { "trailing" } else { "leading" };
    let mut own = vec![
        ("steps_offset", json!(1)),
        ("timestep_spacing", json!(spacing)),
        ("trained_betas", Value::Null),
    ];
    if class == "DDIMScheduler" {
        own.extend([("clip_sample", json!(false)), ("set_alpha_to_one", json!(false))]);
    } else {
        own.extend([("interpolation_type", json!("linear")), ("use_karras_sigmas", json!(false))]);
    }
    Ok(of_diffusers(class, object(schedule)?, &own))
}

/// What two readers of one network must agree on, for comparing them: settings that mean the same are the same.
pub(super) fn meaning_of_unet(config: &UNet2DConditionConfig) -> Result<Map<String, Value>> {
    let mut json = object(config)?;
    let levels = config.block_out_channels.len();
    json.remove("num_attention_heads");
    json.insert("attention_head_dim".into(), each_or_one(config, config.heads()));
    // Levels without a transformer have no depth; the block in the middle has that of the last level.
    let depth = |level: usize| {
        let has = config.down_block_types[level].starts_with("CrossAttn") || level + 1 == levels;
        if has { config.transformer_layers_per_block.at(level) } else { 1 }
    };
    json.insert("transformer_layers_per_block".into(), json!((0..levels).map(depth).collect::<Vec<_>>()));
    Ok(json)
}

/// The same for a text encoder, with or without a projection.
pub(super) fn meaning_of_text(config: &ClipTextConfig, projection: bool) -> Result<Map<String, Value>> {
    let width = config.attention_width.unwrap_or(config.hidden_size);
    let projection_dim = projection.then(|| config.projection_dim.unwrap_or(config.hidden_size));
    object(&ClipTextConfig { attention_width: Some(width), projection_dim, ..config.clone() })
}

/// A configuration as JSON.
pub(super) fn object(config: &impl Serialize) -> Result<Map<String, Value>> {
    match serde_json::to_value(config) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::incompatible("a configuration is no table")),
        Err(error) => Err(Error::incompatible(format!("a configuration cannot be written: {error}"))),
    }
}

/// With class and version, and `missing` where the model does not say it; sorted, as diffusers has it.
fn of_diffusers(class: &str, config: Map<String, Value>, missing: &[(&str, Value)]) -> Value {
    let mut json: BTreeMap<String, Value> = config.into_iter().collect();
    // Where its last owner kept it is nobody's business.
    json.remove("_name_or_path");
    json.insert("_class_name".into(), class.into());
    json.insert("_diffusers_version".into(), DIFFUSERS.into());
    for (name, value) in missing {
        if json.get(*name).is_none_or(Value::is_null) {
            json.insert((*name).into(), value.clone());
        }
    }
    Value::Object(json.into_iter().collect())
}
