//! Named weights, from a safetensors file or from a host that owns the model, checked as they are taken.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{CancelToken, Error, Result};

enum Source {
    File { path: PathBuf, tensors: MmapedSafetensors, names: Vec<String> },
    Map { origin: String, tensors: HashMap<String, Tensor> },
}

/// A place in a tree of weights: a source and the prefix that has been walked to, as in `unet.down_blocks.0`.
#[derive(Clone)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    device: Device,
    dtype: DType,
    cancel: CancelToken,
}

impl Weights {
    /// The weights of a safetensors file. Its header and size are checked here, its tensors when they are taken.
    pub fn open(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
        // SAFETY: the mapping is only read. A file that is cut short by another program while it is mapped stops this one; the
        // same holds for every program that maps checkpoints, and reading them instead would double the memory that they need.
        let tensors = unsafe { MmapedSafetensors::new(path) }.map_err(|error| {
            Error::incompatible(format!("{}: not a whole safetensors file: {error}", path.display()))
                .help("the file may be cut short: compare its size with the place that it came from, or fetch it again")
        })?;
        let mut names: Vec<String> = tensors.tensors().into_iter().map(|(name, _)| name).collect();
        names.sort();
        let source = Source::File { path: path.to_owned(), tensors, names };
        Ok(Self::new(source, device, dtype))
    }

    /// Weights that somebody else holds; `origin` names them in errors.
    pub fn from_tensors(
        origin: &str,
        tensors: HashMap<String, Tensor>,
        device: &Device,
        dtype: DType,
    ) -> Self {
        Self::new(Source::Map { origin: origin.to_owned(), tensors }, device, dtype)
    }

    fn new(source: Source, device: &Device, dtype: DType) -> Self {
        let cancel = CancelToken::new();
        Self { source: Arc::new(source), prefix: String::new(), device: device.clone(), dtype, cancel }
    }

    /// The same weights, taken only as long as the flag is down.
    #[must_use]
    pub fn with_cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// One step down the tree: `at("down_blocks").at(0)`.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    /// Whether there is a tensor of that name here.
    pub fn contains(&self, name: &str) -> bool {
        let name = self.full(name);
        match &*self.source {
            Source::File { names, .. } => names.binary_search(&name).is_ok(),
            Source::Map { tensors, .. } => tensors.contains_key(&name),
        }
    }

    /// The tensor `name` with the wanted shape, in this place's type and on its device. All of its numbers are finite.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.get_any(name)?;
        if tensor.dims() != shape {
            return Err(Error::incompatible(format!(
                "{}: tensor {} has shape {:?}, but the configuration wants {shape:?}",
                self.origin(),
                self.full(name),
                tensor.dims()
            ))
            .help("the weights and the config.json beside them do not belong together"));
        }
        Ok(tensor)
    }

    /// The tensor `name`, whatever its shape.
    pub fn get_any(&self, name: &str) -> Result<Tensor> {
        self.cancel.check()?;
        let name = self.full(name);
        if !self.contains_full(&name) {
            return Err(Error::incompatible(format!("{}: tensor {name} is missing", self.origin()))
                .help("is this the right file for this part of the model?"));
        }
        let tensor = match &*self.source {
            Source::File { tensors, .. } => tensors.load(&name, &Device::Cpu).map_err(|error| {
                Error::incompatible(format!("{}: tensor {name} cannot be read: {error}", self.origin()))
            })?,
            Source::Map { tensors, .. } => tensors[&name].clone(),
        };
        let wide = tensor.to_dtype(DType::F32)?.flatten_all()?;
        if tensor.device().is_cpu() && !all_finite(&wide)? {
            return Err(Error::incompatible(format!(
                "{}: tensor {name} holds numbers that are not finite (NaN or infinity)",
                self.origin()
            ))
            .help("the checkpoint is damaged, or was merged or trained to pieces: use another copy"));
        }
        let tensor = if self.dtype == DType::F32 {
            wide.reshape(tensor.shape())?
        } else {
            tensor.to_dtype(self.dtype)?
        };
        Ok(tensor.to_device(&self.device)?)
    }

    /// The file, or what the owner calls these weights.
    pub fn origin(&self) -> String {
        match &*self.source {
            Source::File { path, .. } => path.display().to_string(),
            Source::Map { origin, .. } => origin.clone(),
        }
    }

    fn contains_full(&self, name: &str) -> bool {
        match &*self.source {
            Source::File { names, .. } => names.binary_search_by(|n| n.as_str().cmp(name)).is_ok(),
            Source::Map { tensors, .. } => tensors.contains_key(name),
        }
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}

fn all_finite(values: &Tensor) -> Result<bool> {
    let (storage, layout) = values.storage_and_layout();
    let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage else { return Ok(true) };
    let values = &values[layout.start_offset()..layout.start_offset() + layout.shape().elem_count()];
    // The exponent of NaN and infinity is all ones; a sum of such tests needs no branch.
    Ok(values.par_chunks(1 << 16).all(|chunk| {
        chunk.iter().fold(0u32, |bad, x| bad + u32::from(x.to_bits() & 0x7f80_0000 == 0x7f80_0000)) == 0
    }))
}
