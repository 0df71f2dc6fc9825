//! What kind of file an embedding is in.

use crate::checkpoint::TorchFile;
use crate::{Error, Result};

/// The containers and layouts of embeddings that people have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EmbeddingFormat {
    /// `.safetensors` with `emb_params`.
    EmbParams,
    /// `.safetensors` with a key per encoder: `clip_l`, `clip_g`, ….
    EncoderKeys,
    /// `.safetensors` whose key is the word, or whose keys are `word`, `word_1`, ….
    Diffusers,
    /// `.safetensors` with OneTrainer's `emp_params`.
    OneTrainer,
    /// `.safetensors` with `string_to_param.*`.
    StringToParam,
    /// A zip that `torch.save` wrote (`.pt`, `.bin`).
    TorchZip,
    /// A pickle from before torch 1.6.
    TorchLegacy,
    /// A picture that carries an embedding (A1111). Not read yet.
    Picture,
}

/// Keys of encoders that files use.
pub(super) const ENCODER_KEYS: &[&str] =
    &["bert", "clip_g", "clip_h", "clip_l", "gemma", "llama", "t5", "t5xxl", "umt5xxl"];

impl EmbeddingFormat {
    /// Find out from a file's bytes; the file's extension plays no part.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when it is none of these; the message tells what the bytes look like.
    pub fn sniff(bytes: &[u8]) -> Result<Self> {
        let picture = bytes.starts_with(b"\x89PNG")
            || bytes.starts_with(b"\xff\xd8\xff")
            || (bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP"));
        match bytes {
            [] => Err(Error::incompatible("the file is empty")),
            _ if picture => Ok(Self::Picture),
            [b'P', ..] if TorchFile::is_torch(bytes) => Ok(Self::TorchZip),
            _ if TorchFile::is_torch(bytes) => Ok(Self::TorchLegacy),
            [_, _, _, _, _, _, _, _, b'{', ..] => {
                let names = super::read::tensor_names(bytes)?;
                Self::of_keys(&names)
            }
            _ => Err(Error::incompatible("neither a safetensors file nor a torch pickle")),
        }
    }

    /// The layout that the names of a safetensors file show.
    pub(super) fn of_keys(names: &[String]) -> Result<Self> {
        let has = |key: &str| names.iter().any(|n| n == key);
        if names.iter().any(|n| n.starts_with("string_to_param.")) {
            return Ok(Self::StringToParam);
        }
        if ENCODER_KEYS.iter().any(|k| has(k)) {
            return Ok(Self::EncoderKeys);
        }
        if has("emb_params") {
            return Ok(Self::EmbParams);
        }
        if has("emp_params") {
            return Ok(Self::OneTrainer);
        }
        let first = names.first().ok_or_else(|| Error::incompatible("no tensors in the file"))?;
        if names.len() > super::MOST_VECTORS || first.contains("lora_") || first.starts_with("bundle_emb.") {
            return Err(Error::incompatible(format!(
                "no embedding: {} tensors such as {first}",
                names.len()
            ))
            .help("this looks like a LoRA or a model"));
        }
        Ok(Self::Diffusers)
    }

    /// The error for a format that is recognised but not read, or nothing.
    pub(super) fn require_readable(self) -> Result<()> {
        match self {
            Self::Picture => Err(Error::incompatible("embeddings in pictures are not read yet")
                .help("convert the file to .safetensors")),
            _ => Ok(()),
        }
    }
}
