//! A diffusers pipeline folder: `model_index.json` and a folder for each part.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::Sha256;

use super::family::{FAMILIES, Family, TextRow};
use super::names::Layout;
use super::weights::NameMap;
use super::{Part, Source, Weights, family, layout};
use crate::diffusion::ScheduleConfig;
use crate::files::sample_all;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// A folder that has been recognised as a pipeline.
pub(super) struct PipelineFolder {
    path: PathBuf,
    family: &'static Family,
}

impl PipelineFolder {
    /// Recognise `path`, which must hold `model_index.json` of a pipeline with the parts of Stable Diffusion.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let index = path.join("model_index.json");
        if !path.exists() {
            return Err(Error::not_found(format!("{}: no such file or folder", path.display())));
        }
        if !index.is_file() {
            return Err(Error::incompatible(format!("{}: not a diffusers pipeline: there is no model_index.json", path.display()))
                .help("give the folder that holds model_index.json, unet, text_encoder, vae, tokenizer and scheduler"));
        }
        let index_json: Value = read_json(&index)?;
        let has =
            |part: &str| index_json.get(part).is_some_and(|entry| !entry.is_null() && !entry[1].is_null());
        // The family with the most text encoders of those whose text encoders are all here.
        let family = FAMILIES
            .iter()
            .filter(|family| family.text.iter().all(|row| has(row.folder.name) && row.folder_fits(path)))
            .max_by_key(|family| family.text.len());
        let Some(family) = family else {
            return Err(missing(&index, "text_encoder"));
        };
        for part in ["unet", family.pipeline.vae, "tokenizer", "scheduler"] {
            if !has(part) {
                return Err(missing(&index, part));
            }
        }
        Ok(Self { path: path.to_owned(), family })
    }

    fn weights(&self, part: &str) -> Result<Weights> {
        let stem = match part {
            "unet" | "vae" | "vqvae" => "diffusion_pytorch_model",
            _ => "model",
        };
        weights_in(&self.path.join(part), stem)
    }

    fn config(&self, part: &str) -> Result<Value> {
        read_json(&self.path.join(part).join("config.json"))
    }

    /// The parts that hold weights, with what reports call them.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let text = self.family.text.iter().map(|row| (row.folder.name, "text encoder"));
        [("unet", "UNet"), (self.family.pipeline.vae, "VAE")].into_iter().chain(text)
    }
}

impl Source for PipelineFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn container(&self) -> &'static str {
        "diffusers pipeline"
    }

    fn family(&self) -> &'static Family {
        self.family
    }

    fn unet(&self) -> Result<Part> {
        Ok(Part { config: self.config("unet")?, weights: self.weights("unet")? })
    }

    fn vae(&self) -> Result<Part> {
        let part = self.family.pipeline.vae;
        Ok(Part { config: self.config(part)?, weights: self.weights(part)? })
    }

    fn text(&self, row: &'static TextRow) -> Result<Part> {
        let weights = self.weights(row.folder.name)?;
        let Some(translate) = row.folder.translate else {
            return Ok(Part { config: self.config(row.folder.name)?, weights });
        };
        let map = NameMap { prefix: String::new(), translate, layout: Layout::default() };
        let weights = weights.with_names(map);
        Ok(Part { config: layout::text(&weights, row)?, weights })
    }

    fn tokenizer(&self, row: &'static TextRow) -> Result<Tokenizer> {
        Tokenizer::from_dir(&self.path.join(row.folder.tokenizer))
    }

    fn skipped_layers(&self, row: &'static TextRow) -> usize {
        row.folder.skip
    }

    fn schedule(&self) -> Result<ScheduleConfig> {
        let path = self.path.join("scheduler").join("scheduler_config.json");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, &error))?;
        ScheduleConfig::from_json(&text).map_err(|error| error.context(path.display()))
    }

    fn sample(&self, hash: &mut Sha256) -> Result<()> {
        let parts = ["model_index.json", "unet", "tokenizer", "tokenizer_2", "scheduler"];
        let text = self.family.text.iter().map(|row| row.folder.name);
        for part in parts.into_iter().chain([self.family.pipeline.vae]).chain(text) {
            sample_all(&self.path.join(part), hash)?;
        }
        Ok(())
    }

    fn for_each_tensor(&self, tell: &mut dyn FnMut(&'static str, &Weights, &str)) -> Result<()> {
        for (part, name) in self.parts() {
            let weights = self.weights(part)?;
            weights.names().into_iter().for_each(|tensor| tell(name, &weights, tensor));
        }
        Ok(())
    }
}

impl TextRow {
    /// Whether a pipeline's text encoder computes as this row says: SD 1 and 2 differ in their activation only, as far as a folder tells.
    fn folder_fits(&self, pipeline: &Path) -> bool {
        let config: Result<Value> = read_json(&pipeline.join(self.folder.name).join("config.json"));
        match config {
            Ok(config) => config["hidden_act"].as_str().is_none_or(|act| act == self.hidden_act),
            // Told of by whoever reads it.
            Err(_) => true,
        }
    }
}

fn missing(index: &Path, part: &str) -> Error {
    Error::incompatible(format!("{}: the pipeline has no part {part}", index.display()))
        .help(format!("known are pipelines of {}", family::names()))
}

/// The weights of a part's folder, in one file or in several: safetensors before pickles, full before half precision.
pub(super) fn weights_in(folder: &Path, stem: &str) -> Result<Weights> {
    let pickle = if stem == "model" { "pytorch_model" } else { stem };
    let names = [
        format!("{stem}.safetensors"),
        format!("{stem}.safetensors.index.json"),
        format!("{stem}.fp16.safetensors"),
        format!("{stem}.safetensors.index.fp16.json"),
        format!("{pickle}.bin"),
        format!("{pickle}.bin.index.json"),
        format!("{pickle}.fp16.bin"),
    ];
    let found = names.iter().map(|name| folder.join(name)).find(|file| file.is_file());
    let found = found.ok_or_else(|| {
        Error::not_found(format!("{}: none of {}", folder.display(), names.join(", ")))
            .help("the pipeline is incomplete: fetch or save it again")
    })?;
    if found.extension().is_some_and(|extension| extension == "json") {
        Weights::open_shards(&shards(&found)?)
    } else {
        Weights::open(&found, &Device::Cpu, DType::F32)
    }
}

/// The files that an index names, in its folder.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let json: Value = read_json(index)?;
    let wrong = |what: &str| Error::incompatible(format!("{}: {what}", index.display()));
    let map = json["weight_map"].as_object().ok_or_else(|| wrong("there is no weight_map"))?;
    let mut files: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    if files.iter().any(|name| name.contains(['/', '\\'])) || files.is_empty() {
        return Err(wrong("the weight_map names no files of this folder"));
    }
    Ok(files.into_iter().map(|name| index.with_file_name(name)).collect())
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    serde_json::from_str(&text).map_err(|error| Error::incompatible(format!("{}: {error}", path.display())))
}
