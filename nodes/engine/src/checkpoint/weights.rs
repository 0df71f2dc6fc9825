//! Named weights, from a safetensors file, a torch pickle, or a host that owns the model, checked as they are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::family::TextRow;
use super::held::HeldTensors;
use super::names::{Alias, Layout, Take};
use super::pickle::{TensorInfo, TorchFile};
use crate::files::safetensors_metadata;
use crate::{CancelToken, Error, Result};

enum Source {
    File {
        path: PathBuf,
        tensors: MmapedSafetensors,
        names: Vec<String>,
        metadata: BTreeMap<String, String>,
    },
    Torch {
        file: TorchFile,
        tensors: BTreeMap<String, TensorInfo>,
    },
    Held {
        origin: String,
        tensors: Box<dyn HeldTensors>,
    },
    /// One model in several files.
    Shards(Vec<Weights>),
}

/// How the names of one part of a model are found in a file that calls them otherwise.
#[derive(Debug, Clone)]
pub(super) struct NameMap {
    /// What stands before all names of the part: `model.diffusion_model`.
    pub(super) prefix: String,
    /// From our name to theirs; `None` for a name that they do not have.
    pub(super) translate: fn(&str, Layout) -> Option<Alias>,
    pub(super) layout: Layout,
}

/// A place in a tree of weights: a source and the prefix that has been walked to, as in `unet.down_blocks.0`.
#[derive(Clone)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    names: Option<Arc<NameMap>>,
    device: Device,
    dtype: DType,
    cancel: CancelToken,
    taken: Arc<Mutex<Taken>>,
}

/// What was asked for and found.
#[derive(Default)]
struct Taken {
    /// By the source's names.
    theirs: BTreeSet<String>,
    /// By our names, with the numbers, which are shared and not copied.
    ours: BTreeMap<String, Tensor>,
}

/// The largest number that f16 has.
const LARGEST_F16: f32 = 65504.0;

/// What files hold beside the numbers of a network: ends of names.
const NO_WEIGHTS: [&str; 5] =
    ["position_ids", "logit_scale", "attn_mask", "num_batches_tracked", "text_projection"];
/// Heads and losses of the training that nothing here needs: beginnings of names.
const OTHER_HEADS: [&str; 3] = ["to_logits.", "visual.", "loss."];

impl NameMap {
    /// The names of a text encoder in a single file.
    pub(super) fn of_text(row: &TextRow) -> Self {
        Self { prefix: row.prefix.to_owned(), translate: row.translate, layout: Layout::default() }
    }
}

impl Weights {
    /// The weights of a file: safetensors, or what `torch.save` wrote, whatever its ending says.
    pub fn open(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let mut head = [0u8; 16];
        let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut head));
        let read = read.map_err(|error| Error::io(path, &error))?;
        if TorchFile::is_torch(&head[..read]) {
            Self::open_torch(path, device, dtype)
        } else {
            Self::open_safetensors(path, device, dtype)
        }
    }

    /// The tensors of a pickle: of its `state_dict`, where it has one, or of the dict that it is.
    fn open_torch(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        let file = TorchFile::open(path)?;
        let root = file.root();
        let dict = root.get("state_dict").unwrap_or(root);
        let named = |(name, item): (&str, super::Item<'_>)| Some((name.to_owned(), item.tensor()?.clone()));
        let tensors: BTreeMap<_, _> = dict.entries().into_iter().filter_map(named).collect();
        if tensors.is_empty() {
            return Err(Error::incompatible(format!(
                "{}: no tensors, but a {}",
                path.display(),
                dict.kind()
            ))
            .help("wanted is a dict of tensors, or one with a state_dict"));
        }
        Ok(Self::new(Source::Torch { file, tensors }, device, dtype))
    }

    /// The weights of a safetensors file. Its header and size are checked here, its tensors when they are taken.
    fn open_safetensors(path: &Path, device: &Device, dtype: DType) -> Result<Self> {
        std::fs::metadata(path).map_err(|error| Error::io(path, &error))?;
        // SAFETY: the mapping is only read. A file that is cut short by another program while it is mapped stops this one; the
        // same holds for every program that maps checkpoints, and reading them instead would double the memory that they need.
        let tensors = unsafe { MmapedSafetensors::new(path) }.map_err(|error| {
            Error::incompatible(format!("{}: not a whole safetensors file: {error}", path.display()))
                .help("the file may be cut short: compare its size with the place that it came from, or fetch it again")
        })?;
        let mut names: Vec<String> = tensors.tensors().into_iter().map(|(name, _)| name).collect();
        names.sort();
        let source =
            Source::File { path: path.to_owned(), tensors, names, metadata: safetensors_metadata(path)? };
        Ok(Self::new(source, device, dtype))
    }

    /// One model in several files.
    pub(super) fn open_shards(files: &[PathBuf]) -> Result<Self> {
        let shards = files.iter().map(|file| Self::open(file, &Device::Cpu, DType::F32));
        Ok(Self::new(Source::Shards(shards.collect::<Result<_>>()?), &Device::Cpu, DType::F32))
    }

    /// Weights that somebody else holds; `origin` names them in errors.
    pub fn held(origin: &str, tensors: impl HeldTensors + 'static, device: &Device, dtype: DType) -> Self {
        let tensors = Box::new(tensors);
        Self::new(Source::Held { origin: origin.to_owned(), tensors }, device, dtype)
    }

    fn new(source: Source, device: &Device, dtype: DType) -> Self {
        let cancel = CancelToken::new();
        Self {
            source: Arc::new(source),
            prefix: String::new(),
            names: None,
            device: device.clone(),
            dtype,
            cancel,
            taken: Arc::default(),
        }
    }

    /// The same weights, taken only as long as the flag is down.
    #[must_use]
    pub fn with_cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// The same weights for another device and type.
    #[must_use]
    pub(super) fn on(mut self, device: &Device, dtype: DType) -> Self {
        (self.device, self.dtype) = (device.clone(), dtype);
        self
    }

    /// The same weights under our names.
    #[must_use]
    pub(super) fn with_names(mut self, names: NameMap) -> Self {
        self.names = Some(Arc::new(names));
        self.taken = Arc::default();
        self
    }

    /// All names of the source, sorted.
    pub fn names(&self) -> Vec<&str> {
        match &*self.source {
            Source::File { names, .. } => names.iter().map(String::as_str).collect(),
            Source::Torch { tensors, .. } => tensors.keys().map(String::as_str).collect(),
            Source::Held { tensors, .. } => {
                let mut names = tensors.names();
                names.sort_unstable();
                names
            }
            Source::Shards(shards) => {
                let mut names: Vec<&str> = shards.iter().flat_map(Weights::names).collect();
                names.sort_unstable();
                names
            }
        }
    }

    /// The shape of a tensor by the source's own name.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &*self.source {
            Source::Shards(shards) => shards.iter().find_map(|shard| shard.shape(name)),
            Source::File { tensors, .. } => Some(tensors.get(name).ok()?.shape().to_vec()),
            Source::Torch { tensors, .. } => Some(tensors.get(name)?.shape.clone()),
            Source::Held { tensors, .. } => tensors.shape(name),
        }
    }

    /// The type of a tensor's numbers in the source, by its own name: `F16`.
    pub(super) fn type_name(&self, name: &str) -> String {
        let found = match &*self.source {
            Source::File { tensors, .. } => tensors.get(name).ok().map(|view| format!("{:?}", view.dtype())),
            Source::Torch { tensors, .. } => {
                tensors.get(name).map(|info| format!("{:?}", info.storage.element).to_uppercase())
            }
            Source::Held { tensors, .. } => tensors.type_name(name),
            Source::Shards(shards) => {
                shards.iter().find(|shard| shard.shape(name).is_some()).map(|shard| shard.type_name(name))
            }
        };
        found.unwrap_or_default()
    }

    /// A text that a safetensors file holds beside its tensors.
    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        match &*self.source {
            Source::File { metadata, .. } => metadata.get(key).map(String::as_str),
            _ => None,
        }
    }

    /// What kind of file this is.
    pub(super) fn container(&self) -> &'static str {
        match &*self.source {
            Source::File { .. } => "safetensors",
            Source::Torch { .. } => "torch pickle",
            Source::Held { .. } => "tensors in memory",
            Source::Shards(shards) => shards.first().map_or("no file", Weights::container),
        }
    }

    /// One step down the tree: `at("down_blocks").at(0)`.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        let prefix =
            if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    /// The shape of a tensor by our name, as much of it as is meant.
    pub(super) fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        let (name, take) = self.find(&self.full(name))?;
        let mut shape = self.shape(&name)?;
        match take {
            Take::Whole => {}
            Take::Part(_, count) => *shape.first_mut()? /= count,
            Take::Transposed => shape.reverse(),
        }
        Some(shape)
    }

    /// What the source calls a tensor of ours, or would call it.
    pub(super) fn their_name(&self, name: &str) -> String {
        let full = self.full(name);
        self.candidates(&full).map_or(full, |alias| alias.names.join(" or "))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic elsewhere leaves a set of names as good as it was.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All tensors that were taken so far, by our names: the network's state dict. They are shared with the network.
    pub(crate) fn state_dict(&self) -> BTreeMap<String, Tensor> {
        self.taken().ours.clone()
    }

    /// Refuse a part of a file that holds more than was taken of it: then it is another network than the one that was read.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) that names the first such tensors.
    pub fn refuse_unknown(&self) -> Result<()> {
        let taken = self.taken();
        let prefix = self.names.as_ref().map_or("", |map| map.prefix.as_str());
        // Names of the part, as they are below its prefix.
        let own = |name: &str| match prefix {
            "" => Some(name.to_owned()),
            prefix => Some(name.strip_prefix(prefix)?.strip_prefix('.')?.to_owned()),
        };
        let harmless = |name: &str| {
            NO_WEIGHTS.iter().any(|end| name.ends_with(end))
                || OTHER_HEADS.iter().any(|head| name.starts_with(head))
        };
        let names = self.names();
        let unknown: Vec<&str> = names
            .iter()
            .filter(|name| own(name).is_some_and(|own| !harmless(&own)) && !taken.theirs.contains(**name))
            .copied()
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let some: Vec<&str> = unknown.iter().take(3).copied().collect();
        Err(Error::incompatible(format!(
            "{}: {} tensor{} of an unknown kind: {}{}",
            self.origin(),
            unknown.len(),
            if unknown.len() == 1 { "" } else { "s" },
            some.join(", "),
            if unknown.len() > some.len() { ", …" } else { "" }
        ))
        .help("the file holds another network than its other tensors show; leaving them out would silently make another model"))
    }

    /// Whether there is a tensor of that name here.
    pub fn contains(&self, name: &str) -> bool {
        self.find(&self.full(name)).is_some()
    }

    /// The tensor `name` with the wanted shape, in this place's type and on its device. All of its numbers are finite.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.shaped(name, shape)?;
        self.taken().ours.insert(self.full(name), tensor.clone());
        Ok(tensor)
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.get_any(name)?;
        if tensor.dims() == shape {
            return Ok(tensor);
        }
        // A linear layer and a convolution of one place are the same numbers; old autoencoders have the latter.
        let without_ones = |dims: &[usize]| -> Vec<usize> {
            let end = dims.iter().rposition(|d| *d != 1).map_or(0, |last| last + 1);
            dims[..end].to_vec()
        };
        if without_ones(tensor.dims()) == without_ones(shape) {
            return Ok(tensor.reshape(shape)?);
        }
        Err(Error::incompatible(format!(
            "{}: tensor {} has shape {:?}, but the configuration wants {shape:?}",
            self.origin(),
            self.full(name),
            tensor.dims()
        ))
        .help("the weights and the configuration do not belong together"))
    }

    /// The tensor `name`, whatever its shape.
    pub fn get_any(&self, name: &str) -> Result<Tensor> {
        self.cancel.check()?;
        let full = self.full(name);
        let Some((name, take)) = self.find(&full) else {
            let theirs = self.their_name(name);
            return Err(Error::incompatible(format!("{}: tensor {theirs} is missing", self.origin()))
                .help("is this the right file for this part of the model?"));
        };
        self.taken().theirs.insert(name.clone());
        let tensor = self.load(&name)?;
        let tensor = match take {
            Take::Whole => tensor,
            Take::Part(index, count) if tensor.dims()[..].first().is_some_and(|rows| rows % count == 0) => {
                let rows = tensor.dim(0)? / count;
                tensor.narrow(0, index * rows, rows)?.contiguous()?
            }
            Take::Transposed if tensor.rank() == 2 => tensor.t()?.contiguous()?,
            Take::Part(..) | Take::Transposed => {
                return Err(Error::incompatible(format!(
                    "{}: tensor {name} has shape {:?}, of which {full} cannot be a part",
                    self.origin(),
                    tensor.dims()
                )));
            }
        };
        let wide = tensor.to_dtype(DType::F32)?.flatten_all()?;
        if tensor.device().is_cpu() && !all_finite(&wide)? {
            return Err(Error::incompatible(format!(
                "{}: tensor {name} holds numbers that are not finite (NaN or infinity)",
                self.origin()
            ))
            .help("the checkpoint is damaged, or was merged or trained to pieces: use another copy"));
        }
        if self.dtype == DType::F16 && wide.elem_count() > 0 {
            let largest = wide.abs()?.max_all()?.to_scalar::<f32>()?;
            if largest > LARGEST_F16 {
                return Err(Error::incompatible(format!(
                    "{}: tensor {name} holds {largest:e}, but f16 ends at {LARGEST_F16}",
                    self.origin()
                ))
                .help("load the checkpoint with precision bf16 or f32"));
            }
        }
        let tensor = if self.dtype == DType::F32 {
            wide.reshape(tensor.shape())?
        } else {
            tensor.to_dtype(self.dtype)?
        };
        // Where the device's memory ends, it is good to know at what.
        let there = tensor.to_device(&self.device).map_err(Error::from);
        there.map_err(|error| error.context(format!("{}: tensor {name}", self.origin())))
    }

    /// A tensor by the source's own name, in its own type on the CPU (or where its owner holds it).
    fn load(&self, name: &str) -> Result<Tensor> {
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::incompatible(format!("{}: tensor {name} cannot be read: {error}", self.origin()))
        };
        match &*self.source {
            Source::File { tensors, .. } => {
                tensors.load(name, &Device::Cpu).map_err(|error| unreadable(&error))
            }
            Source::Torch { file, tensors } => match tensors.get(name) {
                Some(info) => file.tensor(info).map_err(|error| error.context(name)),
                None => Err(unreadable(&"it is not there")),
            },
            Source::Held { tensors, .. } => tensors.read(name).map_err(|error| Error {
                message: format!("{}: tensor {name}: {}", self.origin(), error.message),
                ..error
            }),
            Source::Shards(shards) => match shards.iter().find(|shard| shard.shape(name).is_some()) {
                Some(shard) => shard.load(name),
                None => Err(unreadable(&"it is not there")),
            },
        }
    }

    /// The file, or what the owner calls these weights.
    pub fn origin(&self) -> String {
        match &*self.source {
            Source::File { path, .. } => path.display().to_string(),
            Source::Torch { file, .. } => file.path().display().to_string(),
            Source::Held { origin, .. } => origin.clone(),
            Source::Shards(shards) => shards.first().map(Weights::origin).unwrap_or_default(),
        }
    }

    /// Where the tensor of our full name `full` may be in the source.
    fn candidates(&self, full: &str) -> Option<Alias> {
        match &self.names {
            None => Some(Alias::whole(full)),
            Some(map) => {
                let mut alias = (map.translate)(full, map.layout)?;
                if !map.prefix.is_empty() {
                    alias.names.iter_mut().for_each(|name| *name = format!("{}.{name}", map.prefix));
                }
                Some(alias)
            }
        }
    }

    /// The source's name of a tensor that it has.
    fn find(&self, full: &str) -> Option<(String, Take)> {
        let alias = self.candidates(full)?;
        let found = alias.names.into_iter().find(|name| self.shape(name).is_some());
        Some((found?, alias.take))
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
