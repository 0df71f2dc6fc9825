//! **Load Checkpoint**: reads the model, the text encoder and the autoencoder of a diffusers pipeline folder.
//!
//! ComfyUI's node with two inputs of ours, both optional, and one extension: `ckpt_name` may name a folder that holds
//! `model_index.json`.

use std::path::PathBuf;
use std::sync::Arc;

use vocable_engine::checkpoint::{PipelineFolder, Precision};
use vocable_engine::sampling::Denoiser;
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use crate::convert::node_error;
use crate::handles::{Clip, Model, Vae};
use crate::run::{DEVICES, PRECISIONS, open_device, precision, with_cancel};

/// Reads a checkpoint.
pub(crate) struct CheckpointLoaderSimple;

struct LoaderInputs {
    name: String,
    path: PathBuf,
    device: String,
    precision: Precision,
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
            precision: precision(inputs.optional_string("precision")?.unwrap_or("f32"))?,
        })
    }

    fn folder(&self) -> Result<PipelineFolder, NodeError> {
        if self.path.is_file() {
            return Err(NodeError::incompatible(format!(
                "{}: single-file checkpoints are not read yet, a diffusers pipeline folder is wanted",
                self.path.display()
            ))
            .help("Save the model as a diffusers pipeline (a folder with model_index.json) and choose that folder."));
        }
        PipelineFolder::open(&self.path).map_err(node_error)
    }
}

impl Node for CheckpointLoaderSimple {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("CheckpointLoaderSimple", "Load Checkpoint")
            .category("model/loaders")
            .description("Loads a diffusion model with its text encoder and its autoencoder.")
            .search_aliases(["checkpoint", "ckpt", "load model", "model"])
            .input(
                InputSpec::files(
                    "ckpt_name",
                    folder::CHECKPOINTS,
                    ["safetensors", "ckpt", "pt", "pt2", "bin", "pth", "pkl", "sft", "/model_index.json"],
                )
                .accepts_paths()
                .tooltip("The checkpoint: a diffusers pipeline folder among the checkpoints."),
            )
            .input(
                InputSpec::combo("device", DEVICES).default("auto").optional().advanced().tooltip(
                    "Where the model computes. `auto` is the GPU where there is one that this build can use.",
                ),
            )
            .input(InputSpec::combo("precision", PRECISIONS).default("f32").optional().advanced().tooltip(
                "The type that weights are kept in. Halves need half the memory; on the CPU all is computed in f32.",
            ))
            .output(OutputSpec::new("MODEL", Model::TAG).tooltip("The denoiser."))
            .output(OutputSpec::new("CLIP", Clip::TAG).tooltip("The text encoder with its tokenizer."))
            .output(OutputSpec::new("VAE", Vae::TAG).tooltip("The autoencoder between pictures and latents."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        LoaderInputs::parse(inputs, host)?.folder()?.fingerprint().map_err(node_error)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let inputs = LoaderInputs::parse(&inputs, host)?;
        let folder = inputs.folder()?;
        let device = open_device(&inputs.device)?;
        host.status("reading the checkpoint");
        let (model, clip, vae) = with_cancel(host, |cancel| {
            let fingerprint = folder.fingerprint()?;
            let tokenizer = folder.tokenizer()?;
            let schedule = folder.schedule()?;
            let encoder = folder.text_encoder(&device, inputs.precision, cancel)?;
            host.progress(1, 3, None);
            let autoencoder = folder.vae(&device, inputs.precision, cancel)?;
            host.progress(2, 3, None);
            let unet = folder.unet(&device, inputs.precision, cancel)?;
            host.progress(3, 3, None);
            let scaling_factor = autoencoder.config().scaling_factor;
            Ok((
                Model {
                    denoiser: Denoiser { unet, schedule: Arc::new(schedule), scaling_factor },
                    name: inputs.name.clone(),
                    fingerprint: fingerprint.clone(),
                },
                Clip { encoder, tokenizer, skip: 0, fingerprint: fingerprint.clone() },
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
        assert!(
            error.message.contains("sd.safetensors: single-file checkpoints are not read yet"),
            "{error}"
        );
        assert_eq!(load("nowhere").kind, ErrorKind::NotFound);
        assert!(load("empty").message.contains("model_index.json"));
    }
}
