//! A diffusers pipeline's folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde_json::Value;

use super::super::family::TextRow;
use super::super::names::{Layout, Take};
use super::tensors::{Entry, write as write_tensors};
use super::text_layers::{self, Layers, PROJECTION, no_projection};
use super::{Export, Progress, configs};
use crate::files::{write_folder, write_whole};
use crate::models::TextTower;
use crate::{Error, Result};

/// A part's folder: its configuration and its tensors.
struct Part {
    name: &'static str,
    /// Of the weights.
    file: &'static str,
    config: Value,
    entries: Vec<Entry>,
}

/// Write the folder; see [`Export::write`].
pub(super) fn write(export: &Export<'_>, path: &Path, mut progress: Progress<'_>) -> Result<Vec<String>> {
    const NETWORK: &str = "diffusion_pytorch_model.safetensors";
    let side = export.family.resolution_for(export.schedule.prediction());
    let mut parts = vec![
        Part {
            name: "unet",
            file: NETWORK,
            config: configs::unet(export.unet.config(), side / export.vae.factor())?,
            entries: entries(export.unet.state_dict()),
        },
        Part {
            name: export.family.pipeline.vae,
            file: NETWORK,
            config: configs::vae(export.vae.config(), export.scaling_factor, side)?,
            entries: entries(export.vae.state_dict()),
        },
    ];
    let towers = || export.family.text.iter().zip(export.text.towers());
    for (row, tower) in towers() {
        let layers = Layers::of_folder(tower, row)?;
        let tensors = tensors_of_text(&layers.state_dict(tower)?, tower, row)?;
        let dtype = torch_dtype(export, tower.encoder.token_embedding());
        parts.push(Part {
            name: row.folder.name,
            file: "model.safetensors",
            config: configs::text(tower, row, layers, dtype),
            entries: entries(&tensors),
        });
    }
    progress.total = parts.iter().map(|part| part.entries.len()).sum();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_folder(path, |folder| {
        write_json(&folder.join("model_index.json"), &configs::model_index(export))?;
        let scheduler = subfolder(folder, "scheduler")?;
        let config = configs::scheduler(export.family, export.schedule_config()?)?;
        write_json(&scheduler.join("scheduler_config.json"), &config)?;
        for (row, tower) in towers() {
            let folder = subfolder(folder, row.folder.tokenizer)?;
            for (name, text) in tower.tokenizer.files()? {
                write_whole(&folder.join(name), text.as_bytes())?;
            }
        }
        for part in parts {
            let folder = subfolder(folder, part.name)?;
            write_json(&folder.join("config.json"), &part.config)?;
            let file = folder.join(part.file);
            write_tensors(&file, part.entries, &metadata, export.precision, &mut progress)?;
        }
        Ok(())
    })?;
    Ok(towers().filter_map(|(row, tower)| text_layers::note(tower, row)).collect())
}

fn entries(tensors: &BTreeMap<String, Tensor>) -> Vec<Entry> {
    tensors.iter().map(|(name, tensor)| Entry::new(name, tensor)).collect()
}

/// A text encoder's tensors in the names of its class.
fn tensors_of_text(
    tensors: &BTreeMap<String, Tensor>,
    tower: &TextTower,
    row: &TextRow,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = tensors.clone();
    if row.folder.class.1 == "CLIPTextModelWithProjection" {
        // A model without one takes the pooled state as it is.
        if !tensors.contains_key(PROJECTION) {
            tensors.insert(PROJECTION.to_owned(), no_projection(tower)?);
        }
    } else {
        tensors.remove(PROJECTION);
    }
    let Some(translate) = row.folder.translate else { return Ok(tensors) };
    let renamed = tensors.into_iter().map(|(name, tensor)| match translate(&name, Layout::default()) {
        Some(alias) if alias.take == Take::Whole && alias.names.len() == 1 => {
            Ok((alias.names[0].clone(), tensor))
        }
        _ => Err(Error::incompatible(format!("{} has no name for the tensor {name}", row.folder.class.1))),
    });
    renamed.collect()
}

/// What torch calls the type in which a tensor is written.
fn torch_dtype(export: &Export<'_>, tensor: &Tensor) -> &'static str {
    match export.precision.map_or(tensor.dtype(), super::Precision::dtype) {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
}

fn subfolder(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    match std::fs::create_dir_all(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(Error::io(&path, &error)),
    }
}

fn write_json(path: &Path, json: &Value) -> Result<()> {
    write_whole(path, format!("{json:#}\n").as_bytes())
}
