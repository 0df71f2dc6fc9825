//! Reading embeddings, `.safetensors` and pickles, whoever wrote them, as files that may be damaged or hostile.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::format::{ENCODER_KEYS, EmbeddingFormat};
use super::{Embedding, encoder_for_width};
use crate::checkpoint::{Item, TensorInfo, TorchFile};
use crate::{Error, Result};

/// A word of 75 vectors for every known encoder has 3 MB.
const LARGEST_FILE: u64 = 256 << 20;
/// Names and metadata of an embedding; the crate's own limit is 100 MB.
const LARGEST_HEADER: u64 = 4 << 20;

impl Embedding {
    /// Read a file. Its word is `metadata["name"]` if there is one, a diffusers file's key, else the file's stem.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), or [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for anything that is no sound
    /// embedding; the message begins with the path.
    pub fn load(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
        if size > LARGEST_FILE {
            let message = format!("{}: {size} bytes are too many for an embedding", path.display());
            return Err(Error::incompatible(message).help("this looks like a model"));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        Self::from_bytes(&bytes, &stem).map_err(|e| e.context(path.display()))
    }

    /// Read a file's bytes; `stem` is the name where the file has none.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for anything that is no sound embedding.
    pub fn from_bytes(bytes: &[u8], stem: &str) -> Result<Self> {
        let format = EmbeddingFormat::sniff(bytes)?;
        format.require_readable()?;
        if matches!(format, EmbeddingFormat::TorchZip | EmbeddingFormat::TorchLegacy) {
            return from_torch(bytes, stem);
        }
        let file = open(bytes)?;
        let metadata = metadata(bytes)?;
        let mut names: Vec<String> = file.names().into_iter().map(str::to_owned).collect();
        names.sort();
        let get = |name: &str| matrix(name, &file.tensor(name).map_err(|e| damaged(&e))?);
        let mut key_name = None;
        let vectors = match format {
            EmbeddingFormat::EncoderKeys => {
                let known = names.iter().filter(|n| ENCODER_KEYS.contains(&n.as_str()));
                // ComfyUI calls it t5xxl, OneTrainer t5.
                let key = |n: &str| if n == "t5" { "t5xxl".to_owned() } else { n.to_owned() };
                known.map(|n| Ok((key(n), get(n)?))).collect::<Result<BTreeMap<_, _>>>()?
            }
            EmbeddingFormat::EmbParams => lone(get("emb_params")?, &metadata)?,
            EmbeddingFormat::OneTrainer => lone(get("emp_params")?, &metadata)?,
            EmbeddingFormat::StringToParam => {
                let found: Vec<&String> =
                    names.iter().filter(|n| n.starts_with("string_to_param.")).collect();
                match found.as_slice() {
                    [one] => lone(get(one)?, &metadata)?,
                    several => {
                        return Err(Error::incompatible(format!(
                            "{} words in one file, wanted one",
                            several.len()
                        )));
                    }
                }
            }
            _ => {
                let rows = in_order(&names)?;
                key_name = rows.first().map(|r| (*r).clone());
                let rows = rows.into_iter().map(|n| get(n)).collect::<Result<Vec<_>>>()?;
                let widths: Vec<usize> = rows.iter().filter_map(|r| r.dims().get(1).copied()).collect();
                if widths.windows(2).any(|w| w[0] != w[1]) {
                    return Err(Error::incompatible(format!(
                        "the vectors have different widths: {widths:?}"
                    )));
                }
                lone(Tensor::cat(&rows, 0)?, &metadata)?
            }
        };
        let name = metadata.get("name").filter(|n| !n.is_empty()).cloned().or(key_name);
        Embedding::new(name.unwrap_or_else(|| stem.to_owned()), vectors, metadata)
    }
}

/// `{word: tensor}` (diffusers), or `{string_to_param: {"*": tensor}, name, …}` (A1111, and the paper's code with a `ParameterDict`).
fn from_torch(bytes: &[u8], stem: &str) -> Result<Embedding> {
    let file = TorchFile::from_bytes(bytes.to_vec())?;
    let root = file.root();
    let params = root.get("string_to_param");
    let found: Vec<(&str, &TensorInfo)> = params
        .unwrap_or(root)
        .entries()
        .into_iter()
        .filter_map(|(name, item)| Some((name, item.tensor()?)))
        .collect();
    let [(key, info)] = found.as_slice() else {
        return Err(Error::incompatible(format!("{} tensors in the pickle, wanted one word", found.len()))
            .help("this is no embedding, or it holds several words: save each in a file of its own"));
    };
    let tensor = file.tensor(info)?.to_dtype(DType::F32)?;
    let tensor = if tensor.rank() == 1 { tensor.unsqueeze(0)? } else { tensor };
    if tensor.rank() != 2 || tensor.elem_count() == 0 {
        return Err(Error::incompatible(format!("tensor {key}: shape {:?}, wanted [n, d]", tensor.dims())));
    }
    let own = |name: &str| root.get(name).and_then(Item::string).filter(|text| !text.is_empty());
    let name = if params.is_some() { own("name") } else { Some(*key) };
    let mut metadata = BTreeMap::new();
    if let Some(model) = own("sd_checkpoint_name") {
        metadata.insert("base_model".to_owned(), model.to_owned());
    }
    if let Some(step) = root.get("step").and_then(Item::int) {
        metadata.insert("steps".to_owned(), step.to_string());
    }
    let vectors = lone(tensor, &metadata)?;
    Embedding::new(name.unwrap_or(stem).to_owned(), vectors, metadata)
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::incompatible(format!("damaged safetensors file: {error}")).help("download or write the file again")
}

fn open(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    let header = bytes.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    if header > LARGEST_HEADER {
        return Err(damaged(&format!("a header of {header} bytes, wanted at most {LARGEST_HEADER}")));
    }
    SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))
}

pub(super) fn tensor_names(bytes: &[u8]) -> Result<Vec<String>> {
    let mut names: Vec<String> = open(bytes)?.names().into_iter().map(str::to_owned).collect();
    names.sort();
    Ok(names)
}

fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
    Ok(metadata.metadata().clone().unwrap_or_default().into_iter().collect())
}

/// One matrix that does not say for which encoder it is.
fn lone(tensor: Tensor, metadata: &BTreeMap<String, String>) -> Result<BTreeMap<String, Tensor>> {
    let width = tensor.dim(1)?;
    let told = metadata.get("encoder").filter(|k| ENCODER_KEYS.contains(&k.as_str()));
    let key = told.map_or_else(|| encoder_for_width(width).to_owned(), Clone::clone);
    Ok(BTreeMap::from([(key, tensor)]))
}

/// `word`, `word_1`, … `word_n`: all that diffusers writes for one word, in the order of the numbers (which is not the alphabet's).
fn in_order(names: &[String]) -> Result<Vec<&String>> {
    let Some(base) = names.iter().min_by_key(|n| n.len()) else { return Ok(Vec::new()) };
    let mut rows = vec![base];
    for i in 1..names.len() {
        let wanted = format!("{base}_{i}");
        rows.push(names.iter().find(|n| **n == wanted).ok_or_else(|| {
            let some: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            Error::incompatible(format!(
                "no embedding layout that is known: {} tensors: {}",
                names.len(),
                some.join(", ")
            ))
            .help("wanted emb_params, clip_l and clip_g, or one tensor named as the word")
        })?);
    }
    Ok(rows)
}

/// `[d]` or `[n, d]` of any float type as `[n, d]` in f32.
fn matrix(name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    let wrong = |what: String| Err(Error::incompatible(format!("tensor {name}: {what}")));
    let shape = match view.shape() {
        [d] => (1, *d),
        [n, d] => (*n, *d),
        other => return wrong(format!("shape {other:?}, wanted [n, d]")),
    };
    if shape.0 == 0 || shape.1 == 0 {
        return wrong(format!("shape {:?} is empty", view.shape()));
    }
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F64 => data.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        other => return wrong(format!("type {other:?}, wanted a float type")),
    };
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
