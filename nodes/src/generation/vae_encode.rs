//! **VAE Encode**: pictures to latents, the most probable ones (no noise is drawn).

use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs};

use crate::convert::{latent_value, pixels_from_image};
use crate::handles::Vae;
use crate::run::{in_portions, with_cancel};

/// Encodes pictures.
pub(crate) struct VaeEncode;

impl Node for VaeEncode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VAEEncode", "VAE Encode")
            .category("model/latent")
            .description("Turns pictures into latents. Sides are cropped to multiples of the autoencoder's factor, alpha is left out.")
            .search_aliases(["encode image", "image to latent"])
            .input(InputSpec::new("pixels", "IMAGE").tooltip("The pictures."))
            .input(InputSpec::new("vae", Vae::TAG).tooltip("The autoencoder."))
            .output(OutputSpec::new("LATENT", "LATENT").tooltip("The latents of the pictures."))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let vae = Vae::from_input(&inputs, "vae")?;
        let autoencoder = &vae.autoencoder;
        let pixels = pixels_from_image("pixels", inputs.tensor("pixels")?, autoencoder.factor())?;
        let latents = with_cancel(host, |cancel| {
            in_portions(host, &pixels, 1, |pixels| Ok(autoencoder.encode(pixels, cancel)?.mean))
        })?;
        Ok(Outputs::one(latent_value(&latents)?))
    }
}
