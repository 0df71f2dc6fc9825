//! Writing `.safetensors` that every program reads.

use std::path::Path;

use super::Embedding;
use super::names::check_file_name;
use crate::files::{safetensors_header, write_whole};
use crate::{Error, Result};

impl Embedding {
    /// The file's bytes: `emb_params` for one encoder, else one tensor per encoder key, in f32, with metadata. The same embedding gives the same bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the embedding is not sound (see [`Embedding::new`]): nothing that is not finite is ever written.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut metadata = self.metadata.clone();
        metadata.insert("format".into(), "pt".into());
        metadata.insert("name".into(), self.name.clone());
        metadata.insert("vectors".into(), self.count().to_string());
        let lone = self.vectors.len() == 1;
        match self.vectors.keys().next().filter(|_| lone) {
            Some(key) => metadata.insert("encoder".into(), key.clone()),
            None => metadata.remove("encoder"),
        };
        let mut bytes = safetensors_header(
            &metadata,
            self.vectors.iter().map(|(key, tensor)| {
                let name = if lone { "emb_params" } else { key.as_str() };
                (name, "F32", tensor.dims(), 4 * tensor.elem_count())
            }),
        );
        for tensor in self.vectors.values() {
            for value in tensor.flatten_all()?.to_vec1::<f32>()? {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(bytes)
    }

    /// Write the file: to a temporary name beside it, then renamed, so that no reader ever sees half a file. An existing file is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a file name that prompts cannot spell or that does not end in `.safetensors`; those of
    /// [`Embedding::to_safetensors`]; failures of the file system.
    pub fn save(&self, path: &Path) -> Result<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        check_file_name(name)?;
        if !name.ends_with(".safetensors") {
            return Err(Error::invalid(format!("{name}: wanted a name that ends in .safetensors")));
        }
        let bytes = self.to_safetensors()?;
        write_whole(path, &bytes)
    }
}
