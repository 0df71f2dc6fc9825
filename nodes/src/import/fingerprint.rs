//! A short name for what a host hands in: it decides whether a run is resumed, so it is the same in every process.

use std::path::Path;

use sha2::{Digest, Sha256};
use vocable_host_sdk::abi::{HostContext, NodeError, TensorBuf, Value};

use super::settings::Settings;
use crate::convert::HostTensors;

/// The settings, what the tokenizer's folder holds, and names, shapes and samples of the tensors. What the user calls the part does not count; precision and
/// device are added by [`fingerprint_of`](crate::run::fingerprint_of).
pub(super) fn of(
    tensors: &HostTensors,
    settings: &Settings,
    host: &HostContext<'_>,
) -> Result<String, NodeError> {
    let mut hash = Sha256::new();
    for (name, value) in settings.of_the_weights() {
        match value {
            Value::Tensor(tensor) => add(name, tensor, &mut hash)?,
            value => hash.update(format!("{name}={}\n", value.to_json())),
        }
    }
    if let Some(folder) = settings.text("tokenizer")? {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = files.filter(|path| is_of_tokenizer(path)).collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap_or_default().as_encoded_bytes();
            // What cannot be read is refused when the tokenizer is made.
            let contents = std::fs::read(&file).unwrap_or_default();
            for bytes in [name, &contents] {
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
    }
    for (name, tensor) in tensors.iter() {
        host.check_cancelled()?;
        add(name, &tensor, &mut hash)?;
    }
    Ok(vocable_engine::short_hex(hash))
}

fn add(name: &str, tensor: &TensorBuf, hash: &mut Sha256) -> Result<(), NodeError> {
    hash.update(format!("{name} {:?} {}\n", tensor.shape(), tensor.dtype()));
    sample(&tensor.to_bytes().map_err(|error| error.at(format!("tensor {name}")))?, hash);
    Ok(())
}

/// The files that a tokenizer is made of are text.
fn is_of_tokenizer(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "json" || extension == "txt")
}

/// Small tensors whole, large ones by blocks that are spread over them, so that gigabytes are named in a moment.
fn sample(bytes: &[u8], hash: &mut Sha256) {
    const BLOCK: usize = 1 << 12;
    const BLOCKS: usize = 64;
    let step = if bytes.len() <= 4 * BLOCK * BLOCKS { BLOCK } else { (bytes.len() - BLOCK) / BLOCKS };
    for start in (0..bytes.len()).step_by(step) {
        hash.update(&bytes[start..bytes.len().min(start + BLOCK)]);
    }
}
