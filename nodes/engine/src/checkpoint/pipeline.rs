//! A diffusers pipeline folder: `model_index.json` and a folder for each part.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::Weights;
use crate::diffusion::{NoiseSchedule, ScheduleConfig};
use crate::models::{AutoencoderKL, ClipTextConfig, ClipTextModel, UNet2DConditionModel};
use crate::tokenizer::Tokenizer;
use crate::{CancelToken, Error, Result};

/// The type that weights are kept in. On the CPU they are computed with in f32 whatever they are kept in; halves need half the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// 16-bit floats.
    F16,
}

impl Precision {
    /// Candle's type.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// A folder that has been recognised as a pipeline; its parts are read when they are asked for.
#[derive(Debug, Clone)]
pub struct PipelineFolder {
    path: PathBuf,
}

impl PipelineFolder {
    /// Recognise `path`, which must hold `model_index.json` of a pipeline with the parts of Stable Diffusion.
    pub fn open(path: &Path) -> Result<Self> {
        let index = path.join("model_index.json");
        if !path.exists() {
            return Err(Error::not_found(format!("{}: no such file or folder", path.display())));
        }
        if !index.is_file() {
            return Err(Error::incompatible(format!("{}: not a diffusers pipeline: there is no model_index.json", path.display()))
                .help("give the folder that holds model_index.json, unet, text_encoder, vae, tokenizer and scheduler"));
        }
        let index_json: serde_json::Value = read_json(&index)?;
        for part in ["unet", "text_encoder", "vae", "tokenizer", "scheduler"] {
            if index_json.get(part).is_none_or(|entry| entry.is_null() || entry[1].is_null()) {
                return Err(Error::incompatible(format!(
                    "{}: the pipeline has no part {part}",
                    index.display()
                ))
                .help("Vocable reads pipelines of the structure of Stable Diffusion 1"));
            }
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The denoiser.
    pub fn unet(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<UNet2DConditionModel>> {
        let (config, weights) = self.part("unet", device, precision, cancel)?;
        Ok(Arc::new(UNet2DConditionModel::new(&config, &weights)?))
    }

    /// The text encoder.
    pub fn text_encoder(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<ClipTextModel>> {
        let (config, weights) = self.part("text_encoder", device, precision, cancel)?;
        Ok(Arc::new(ClipTextModel::new(&config, &weights)?))
    }

    /// The autoencoder.
    pub fn vae(
        &self,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<Arc<AutoencoderKL>> {
        let (config, weights) = self.part("vae", device, precision, cancel)?;
        Ok(Arc::new(AutoencoderKL::new(&config, &weights)?))
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> Result<Arc<Tokenizer>> {
        let folder = self.path.join("tokenizer");
        let tokenizer = Tokenizer::from_dir(&folder)?;
        let config: ClipTextConfig = read_json(&self.path.join("text_encoder").join("config.json"))?;
        tokenizer
            .check_fits(config.vocab_size, config.max_position_embeddings)
            .map_err(|error| error.context(folder.display()))?;
        Ok(Arc::new(tokenizer))
    }

    /// The noise schedule that the model was trained with.
    pub fn schedule(&self) -> Result<NoiseSchedule> {
        let path = self.path.join("scheduler").join("scheduler_config.json");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, &error))?;
        ScheduleConfig::from_json(&text)
            .and_then(|config| NoiseSchedule::from_config(&config))
            .map_err(|error| error.context(path.display()))
    }

    /// A short name for the contents: it changes when any part does. Large files are sampled (their head, tail, size and 64 blocks
    /// between), so that a checkpoint of several gigabytes is named in a moment.
    pub fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        for part in ["model_index.json", "unet", "text_encoder", "vae", "tokenizer", "scheduler"] {
            let path = self.path.join(part);
            let mut files = if path.is_dir() {
                let entries = std::fs::read_dir(&path).map_err(|error| Error::io(&path, &error))?;
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect()
            } else {
                vec![path]
            };
            files.sort();
            for file in files {
                hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
                sample(&file, &mut hash).map_err(|error| Error::io(&file, &error))?;
            }
        }
        Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    fn part<C: DeserializeOwned>(
        &self,
        part: &str,
        device: &Device,
        precision: Precision,
        cancel: &CancelToken,
    ) -> Result<(C, Weights)> {
        let config = read_json(&self.path.join(part).join("config.json"))?;
        let file = self.weights_file(part)?;
        Ok((config, Weights::open(&file, device, precision.dtype())?.with_cancel(cancel)))
    }

    /// The file of a part's weights: safetensors before pickles.
    pub(super) fn weights_file(&self, part: &str) -> Result<PathBuf> {
        let folder = self.path.join(part);
        let (stem, pickle) = match part {
            "text_encoder" => ("model", "pytorch_model.bin"),
            _ => ("diffusion_pytorch_model", "diffusion_pytorch_model.bin"),
        };
        let names = [format!("{stem}.safetensors"), format!("{stem}.fp16.safetensors"), pickle.to_owned()];
        names.iter().map(|name| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
            Error::not_found(format!("{}: none of {}", folder.display(), names.join(", ")))
                .help("the pipeline is incomplete: fetch or save it again")
        })
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, &error))?;
    serde_json::from_str(&text).map_err(|error| Error::incompatible(format!("{}: {error}", path.display())))
}

pub(super) fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    const BLOCK: u64 = 1 << 16;
    const BLOCKS: u64 = 64;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut block = Vec::new();
    let step = if size <= BLOCK * BLOCKS * 4 { BLOCK } else { (size - BLOCK) / BLOCKS };
    let mut start = 0;
    while start < size {
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut block)?;
        hash.update(&block);
        start += step;
    }
    Ok(())
}
