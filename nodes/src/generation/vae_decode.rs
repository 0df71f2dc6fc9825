//! **VAE Decode**: latents to pictures.

use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs};

use crate::convert::{Latent, image_from_pixels};
use crate::handles::Vae;
use crate::run::{in_portions, with_cancel};

/// Decodes latents.
pub(crate) struct VaeDecode;

impl Node for VaeDecode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VAEDecode", "VAE Decode")
            .category("model/latent")
            .description("Turns latents into pictures.")
            .search_aliases(["decode", "latent to image"])
            .input(InputSpec::new("samples", "LATENT").tooltip("The latents."))
            .input(InputSpec::new("vae", Vae::TAG).tooltip("The autoencoder."))
            .output(OutputSpec::new("IMAGE", "IMAGE").tooltip("The pictures."))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let vae = Vae::from_input(&inputs, "vae")?;
        let latent = Latent::from_input(&inputs, "samples")?;
        let autoencoder = &vae.autoencoder;
        let pixels = with_cancel(host, |cancel| {
            in_portions(host, &latent.samples, autoencoder.factor(), |latents| {
                autoencoder.decode(latents, cancel)
            })
        })?;
        Ok(Outputs::one(image_from_pixels(&pixels)?))
    }
}
