//! **Empty Latent Image**: the blank canvas that a sampler fills.

use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs};

use crate::convert::empty_latent;

/// ComfyUI's largest side.
const MAX_RESOLUTION: i64 = 16384;

/// Makes latents of zeros.
pub(crate) struct EmptyLatentImage;

impl Node for EmptyLatentImage {
    fn spec(&self) -> NodeSpec {
        let side = |name: &str, what: &str| {
            InputSpec::int(name)
                .default(512)
                .range(16, MAX_RESOLUTION)
                .step(8)
                .tooltip(format!("{what} of the pictures in pixels."))
        };
        NodeSpec::new("EmptyLatentImage", "Empty Latent Image")
            .category("model/latent")
            .description("Makes a batch of blank latents for a sampler to fill.")
            .search_aliases(["blank latent", "empty", "new latent"])
            .input(side("width", "Width"))
            .input(side("height", "Height"))
            .input(
                InputSpec::int("batch_size")
                    .default(1)
                    .range(1, 4096)
                    .tooltip("How many pictures are made at once."),
            )
            .output(OutputSpec::new("LATENT", "LATENT").tooltip("The blank latents."))
    }

    fn execute(&self, inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let (width, height) = (inputs.count("width")?, inputs.count("height")?);
        let batch = inputs.optional_count("batch_size")?.unwrap_or(1);
        Ok(Outputs::one(empty_latent(batch, height, width)?))
    }
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::Value;

    use super::*;
    use crate::testing::Home;

    #[test]
    fn sides_are_an_eighth() {
        let inputs = Inputs::new().with("width", 512).with("height", 100).with("batch_size", 2);
        let outputs = Home::new().run(&EmptyLatentImage, inputs).unwrap();
        let samples = outputs.results[0].get("samples").and_then(Value::as_tensor).unwrap();
        assert_eq!(samples.dims(), [2, 4, 12, 64]);
        assert!(samples.to_vec_f32().unwrap().iter().all(|x| *x == 0.0));
    }
}
