//! **Load Checkpoint**: reads the model, the text encoder and the autoencoder of a checkpoint in one file, or of a diffusers pipeline folder.
//!
//! ComfyUI's node with two inputs of ours, both optional, and one extension: `ckpt_name` may name a folder that holds
//! `model_index.json`.

use std::path::PathBuf;
use std::sync::Arc;

use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::sampling::Denoiser;
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{device_input, precision_input};
use crate::convert::node_error;
use crate::handles::{Clip, Model, Vae};
use crate::run::{fingerprint_of, open_device, precision, with_cancel};

/// What checkpoints end in, as ComfyUI lists them; and folders that hold a diffusers pipeline.
pub(crate) const CHECKPOINT_ENDINGS: [&str; 9] =
    ["safetensors", "ckpt", "pt", "pt2", "bin", "pth", "pkl", "sft", "/model_index.json"];

/// The precision that a checkpoint is saved in: an export has to lose nothing and to need no more room.
const AS_SAVED: &str = "as saved";

/// Reads a checkpoint.
pub(crate) struct CheckpointLoaderSimple;

struct LoaderInputs {
    name: String,
    path: PathBuf,
    device: String,
    /// `None` is that of the checkpoint.
    precision: Option<Precision>,
}

impl LoaderInputs {
    fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        let name = inputs.string("ckpt_name")?;
        let path = host.find_file(folder::CHECKPOINTS, name)?;
        Ok(Self {
            // The last part only: where it lies is nobody's business.
            name: path
                .file_name()
                .map_or_else(|| name.to_string(), |name| name.to_string_lossy().into_owned()),
            path,
            device: inputs.optional_string("device")?.unwrap_or("auto").to_string(),
            precision: match inputs.optional_string("precision")? {
                Some(AS_SAVED) => None,
                name => Some(precision(name.unwrap_or("f32"))?),
            },
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint, NodeError> {
        Checkpoint::open(&self.path).map_err(node_error)
    }
}

impl Node for CheckpointLoaderSimple {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("CheckpointLoaderSimple", "Load Checkpoint")
            .category("model/loaders")
            .description("Loads a diffusion model with its text encoder and its autoencoder.")
            .search_aliases(["checkpoint", "ckpt", "load model", "model"])
            .input(
                InputSpec::files("ckpt_name", folder::CHECKPOINTS, CHECKPOINT_ENDINGS)
                    .accepts_paths()
                    .tooltip(
                        "The checkpoint: a file, or a diffusers pipeline folder, among the checkpoints.",
                    ),
            )
            .input(device_input())
            .input(precision_input(&[AS_SAVED]))
            .output(OutputSpec::new("MODEL", Model::TAG).tooltip("The denoiser."))
            .output(OutputSpec::new("CLIP", Clip::TAG).tooltip("The text encoder with its tokenizer."))
            .output(OutputSpec::new("VAE", Vae::TAG).tooltip("The autoencoder between pictures and latents."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        LoaderInputs::parse(inputs, host)?.checkpoint()?.fingerprint().map_err(node_error)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let inputs = LoaderInputs::parse(&inputs, host)?;
        let checkpoint = inputs.checkpoint()?;
        let device = open_device(&inputs.device)?;
        let precision = inputs.precision.map_or_else(|| checkpoint.precision(), Ok).map_err(node_error)?;
        host.status("reading the checkpoint");
        let (model, clip, vae) = with_cancel(host, |cancel| {
            let fingerprint = fingerprint_of(&checkpoint.fingerprint()?, precision, &device);
            let schedule = checkpoint.schedule()?;
            let text = checkpoint.text_encoders(&device, precision, cancel)?;
            host.progress(1, 3, None);
            let autoencoder = checkpoint.vae(&device, precision, cancel)?;
            host.progress(2, 3, None);
            let unet = checkpoint.unet(&device, precision, cancel)?;
            host.progress(3, 3, None);
            let scaling_factor = autoencoder.config().scaling_factor;
            Ok((
                Model {
                    denoiser: Denoiser { unet, schedule: Arc::new(schedule), scaling_factor },
                    family: Some(checkpoint.family()),
                    name: inputs.name.clone(),
                    fingerprint: fingerprint.clone(),
                },
                Clip { text, fingerprint: fingerprint.clone() },
                Vae { autoencoder, fingerprint },
            ))
        })?;
        Ok(Outputs::new().result(model.into_value()).result(clip.into_value()).result(vae.into_value()))
    }
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::ErrorKind;

    use super::*;
    use crate::testing::Home;

    #[test]
    fn what_is_no_pipeline_is_refused_by_name() {
        let home = Home::new();
        std::fs::write(home.path("checkpoints/sd.safetensors"), b"x").unwrap();
        std::fs::create_dir(home.path("checkpoints/empty")).unwrap();
        let load = |name: &str| {
            home.run(&CheckpointLoaderSimple, Inputs::new().with("ckpt_name", name)).unwrap_err()
        };
        let error = load("sd.safetensors");
        assert_eq!(error.kind, ErrorKind::Incompatible);
        assert!(error.message.contains("sd.safetensors: not a whole safetensors file"), "{error}");
        assert_eq!(load("nowhere").kind, ErrorKind::NotFound);
        assert!(load("empty").message.contains("model_index.json"));
    }

    #[test]
    fn another_precision_is_another_model() {
        let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny");
        let home = Home::new();
        let load = |precision: &str| {
            let inputs = Inputs::new()
                .with("ckpt_name", tiny.to_str().unwrap())
                .with("device", "cpu")
                .with("precision", precision);
            let results = home.run(&CheckpointLoaderSimple, inputs).unwrap().results;
            let parts = ["model", "clip", "vae"].into_iter().zip(results);
            let parts = parts.fold(Inputs::new(), |parts, (name, value)| parts.with(name, value));
            [
                Model::from_input(&parts, "model").unwrap().fingerprint.clone(),
                Clip::from_input(&parts, "clip").unwrap().fingerprint.clone(),
                Vae::from_input(&parts, "vae").unwrap().fingerprint.clone(),
            ]
        };
        let (full, half) = (load("f32"), load("bf16"));
        assert_eq!(full, load("f32"));
        assert!(full.iter().zip(&half).all(|(full, half)| full != half), "{full:?} {half:?}");
    }
}
