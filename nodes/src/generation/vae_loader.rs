//! **Load VAE**: an autoencoder from a file of its own.
//!
//! ComfyUI's node with two inputs of ours, both optional. ComfyUI's small approximations (`taesd`) are not read.

use std::path::PathBuf;

use vocable_engine::checkpoint::{Precision, open_vae, vae_fingerprint};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{device_input, precision_input};
use crate::convert::node_error;
use crate::handles::Vae;
use crate::run::{fingerprint_of, open_device, precision, with_cancel};

/// What autoencoders end in; and folders with one of a diffusers pipeline.
const VAE_ENDINGS: [&str; 6] = ["safetensors", "ckpt", "pt", "bin", "pth", "/config.json"];

/// Reads an autoencoder.
pub(crate) struct VaeLoader;

fn path(inputs: &Inputs, host: &HostContext<'_>) -> Result<PathBuf, NodeError> {
    host.find_file(folder::VAE, inputs.string("vae_name")?)
}

impl Node for VaeLoader {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VAELoader", "Load VAE")
            .category("model/loaders")
            .description("Loads an autoencoder from a file of its own.")
            .search_aliases(["vae", "autoencoder"])
            .input(InputSpec::files("vae_name", folder::VAE, VAE_ENDINGS).accepts_paths().tooltip(
                "The autoencoder: a file, or the folder of one with its config.json, in the folder vae.",
            ))
            .input(device_input())
            .input(precision_input(&[]))
            .output(OutputSpec::new("VAE", Vae::TAG).tooltip("The autoencoder between pictures and latents."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        vae_fingerprint(&path(inputs, host)?).map_err(node_error)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let path = path(&inputs, host)?;
        let device = open_device(inputs.optional_string("device")?.unwrap_or("auto"))?;
        let precision: Precision = precision(inputs.optional_string("precision")?.unwrap_or("f32"))?;
        host.status("reading the autoencoder");
        let vae = with_cancel(host, |cancel| {
            Ok(Vae {
                autoencoder: open_vae(&path, &device, precision, cancel)?,
                fingerprint: fingerprint_of(&vae_fingerprint(&path)?, precision, &device),
            })
        })?;
        Ok(Outputs::one(vae.into_value()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::testing::Home;

    #[test]
    fn a_folder_is_read_and_what_holds_none_is_named() {
        let home = Home::new();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny");
        let load = |path: &Path| {
            let inputs = Inputs::new().with("vae_name", path.to_str().unwrap()).with("device", "cpu");
            home.run(&VaeLoader, inputs).map(|outputs| outputs.results)
        };
        let vae = Inputs::new().with("vae", load(&tiny.join("vae")).unwrap().remove(0));
        assert_eq!(Vae::from_input(&vae, "vae").unwrap().autoencoder.factor(), 8);
        let error = load(&tiny.join("unet/diffusion_pytorch_model.safetensors")).unwrap_err();
        assert!(error.message.contains("no autoencoder that is known"), "{error}");
    }
}
