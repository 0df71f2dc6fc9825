//! **A plugin in one file.** It adds one node, *Invert Image*, to every host that loads Vocable plugins.
//!
//! ```text
//! cargo build --release -p write-a-plugin
//! ```
//!
//! makes a library that a host finds when it lies beside the host's program. Read on from the bottom: a plugin says who
//! it is and which nodes it has; a node says what it looks like ([`Node::spec`]) and does its work ([`Node::execute`]).

use std::sync::Arc;

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, Plugin, PluginInfo,
    TensorBuf,
};

/// Turns light into dark: `strength · (1 - x) + (1 - strength) · x`.
struct InvertImage;

impl Node for InvertImage {
    /// How the node looks. The id goes into users' saved graphs, so give it a prefix of your own and never change it.
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("ExampleInvertImage", "Invert Image")
            .category("example")
            .description("Turns light into dark. A strength between 0 and 1 mixes the two.")
            .input(InputSpec::new("image", "IMAGE").tooltip("One or more pictures."))
            .input(
                InputSpec::float("strength")
                    .default(1.0)
                    .range(0.0, 1.0)
                    .step(0.05)
                    .tooltip("0 leaves the picture alone, 1 inverts it."),
            )
            .output(OutputSpec::new("IMAGE", "IMAGE").tooltip("The inverted pictures."))
    }

    /// What the node does. Types and ranges were checked against the spec; what only this node knows is checked here.
    fn execute(&self, inputs: Inputs, host: &HostContext) -> Result<Outputs, NodeError> {
        let image = inputs.tensor("image")?;
        let strength = inputs.float("strength")? as f32;
        let dims = image.dims(); // [batch, height, width, channels]
        let &[batch, height, width, channels @ (1 | 3 | 4)] = dims.as_slice() else {
            return Err(NodeError::invalid_input(format!(
                "an IMAGE is [batch, height, width, channels] with 1, 3 or 4 channels, found {dims:?}"
            ))
            .help("Link the output of Load Image or VAE Decode."));
        };

        // Borrows f32 and converts anything else. Inputs are shared with other nodes: always write to a copy.
        let mut pixels = image.to_vec_f32()?;
        let per_picture = height * width * channels;
        for (index, picture) in pixels.chunks_mut(per_picture.max(1)).enumerate() {
            host.check_cancelled()?; // The user can stop between pictures.
            for (position, value) in picture.iter_mut().enumerate() {
                let is_alpha = channels == 4 && position % 4 == 3;
                if !is_alpha {
                    *value += strength * (1.0 - 2.0 * *value);
                }
            }
            host.progress(index as u64 + 1, batch as u64, None);
        }
        Ok(Outputs::one(TensorBuf::from_vec_f32(&dims, pixels)?))
    }
}

/// The plugin: its name and its nodes.
struct ExamplePlugin;

impl Plugin for ExamplePlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo::new("example", env!("CARGO_PKG_VERSION")).description("Shows how to write a plugin.")
    }

    fn nodes(&self) -> Vec<Arc<dyn Node>> {
        vec![Arc::new(InvertImage)]
    }
}

vocable_host_sdk::export_plugin!(ExamplePlugin);

/// Nodes are plain objects: test them without a host.
#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::SilentHost;

    use super::*;

    fn invert(shape: &[usize], pixels: Vec<f32>, strength: f64) -> Result<Vec<f32>, NodeError> {
        let image = TensorBuf::from_vec_f32(shape, pixels)?;
        let inputs = Inputs::new().with("image", image).with("strength", strength);
        let outputs = InvertImage.execute(inputs, &HostContext::new(&SilentHost::default()))?;
        outputs.results[0].as_tensor().expect("the node answers a tensor").to_vec_f32()
    }

    #[test]
    fn light_becomes_dark_and_alpha_stays() {
        assert_eq!(invert(&[1, 1, 1, 4], vec![0.0, 0.25, 1.0, 0.5], 1.0).unwrap(), [1.0, 0.75, 0.0, 0.5]);
        assert_eq!(invert(&[1, 1, 1, 3], vec![0.0, 0.5, 1.0], 0.0).unwrap(), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn something_else_than_a_picture_is_refused() {
        assert!(invert(&[3], vec![0.0; 3], 1.0).unwrap_err().message.contains("found [3]"));
    }

    #[test]
    fn the_spec_is_sound() {
        assert_eq!(InvertImage.spec().problems(), []);
    }
}
