//! The model of `learn` and `generate`, and what its configuration says about its pictures.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use vocable_host_sdk::abi::{Folders, folder};

use crate::failure::Failure;

/// The model that ships.
const SHIPPED: &str = "creatures";

/// A checkpoint that was found.
pub(crate) struct Checkpoint {
    /// What the loader calls it: a name among the checkpoints, or a path.
    pub(crate) name: String,
    path: PathBuf,
}

impl Checkpoint {
    /// The checkpoint of that name or path; the one that ships if none is named.
    pub(crate) fn choose(model: Option<&str>, folders: &Folders) -> Result<Self, Failure> {
        let name = model.unwrap_or(SHIPPED);
        if let Some(path) = folders.find(folder::CHECKPOINTS, name) {
            return Ok(Self { name: name.to_string(), path });
        }
        if let (Some(name), true) = (model, Path::new(name).exists()) {
            return Ok(Self { name: name.to_string(), path: PathBuf::from(name) });
        }
        let what = match model {
            Some(name) => format!("there is no checkpoint `{name}`"),
            None => "the model that ships, examples/models/creatures, was not found".to_string(),
        };
        let known = known(folders);
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        Err(Failure::Invalid(format!(
            "{what}; checkpoints that there are: {known}\n  help: Give --model a name of these or a path, or --models the folder that holds them."
        )))
    }

    /// Guidance that suits it: small models overdo what is usual for large ones.
    pub(crate) fn cfg(&self) -> f64 {
        if self.picture_size().is_some_and(|size| size < 256) { 4.0 } else { 7.5 }
    }

    /// The side of the pictures that the model was made for, in pixels, where a folder's configuration says it.
    pub(crate) fn picture_size(&self) -> Option<u64> {
        let unet = read(&self.path.join("unet").join("config.json"))?;
        let latent = unet.get("sample_size")?;
        let latent = latent.as_u64().or_else(|| latent.get(0)?.as_u64())?;
        let vae = read(&self.path.join("vae").join("config.json"));
        let blocks = vae.as_ref().and_then(|vae| Some(vae.get("block_out_channels")?.as_array()?.len()));
        let halvings = u32::try_from(blocks.unwrap_or(4).saturating_sub(1)).ok()?;
        latent.checked_mul(1u64.checked_shl(halvings)?)
    }
}

fn read(path: &Path) -> Option<Json> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

/// Pipeline folders and single files.
fn known(folders: &Folders) -> Vec<String> {
    folders.files(folder::CHECKPOINTS, &["/model_index.json", "safetensors", "ckpt"].map(String::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        for part in ["tiny/unet", "tiny/vae", "bare"] {
            std::fs::create_dir_all(dir.path().join(part)).unwrap();
        }
        std::fs::write(dir.path().join("tiny/model_index.json"), "{}").unwrap();
        std::fs::write(dir.path().join("tiny/unet/config.json"), r#"{"sample_size": 12}"#).unwrap();
        std::fs::write(dir.path().join("tiny/unet/weights.safetensors"), "").unwrap();
        let folders = Folders::new().with(folder::CHECKPOINTS, dir.path());
        let checkpoint = |name| Checkpoint::choose(Some(name), &folders);
        assert_eq!(checkpoint("tiny").unwrap().picture_size(), Some(96));
        assert_eq!(checkpoint("tiny").unwrap().cfg(), 4.0);
        std::fs::write(dir.path().join("tiny/vae/config.json"), r#"{"block_out_channels": [8, 8, 8]}"#)
            .unwrap();
        assert_eq!(checkpoint("tiny").unwrap().picture_size(), Some(48));
        assert_eq!(checkpoint("bare").unwrap().picture_size(), None);
        assert_eq!(checkpoint("bare").unwrap().cfg(), 7.5);
        let path = dir.path().join("tiny").display().to_string();
        assert_eq!(checkpoint(&path).unwrap().name, path);
        let message = checkpoint("other").err().unwrap().to_string();
        assert!(message.contains("`other`") && message.contains("there are: tiny\n"), "{message}");
    }
}
