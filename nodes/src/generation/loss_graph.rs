//! **Plot Loss Graph**: the losses of a training run as a picture. Unlike ComfyUI's node of this id it keeps the picture among the results.

use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, Outputs, Value, folder,
};

use crate::draw::loss_chart;
use crate::files::{graph_texts, save_pictures};

/// Draws losses.
pub(crate) struct LossGraph;

struct LossGraphInputs {
    losses: Vec<f64>,
    prefix: String,
    texts: Vec<(String, String)>,
}

impl LossGraphInputs {
    fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        let losses = inputs.map("loss")?.get("loss").and_then(Value::as_list).ok_or_else(|| {
            NodeError::invalid_input("input `loss`: a LOSS_MAP is a map with a list `loss`")
                .help("Link the output LOSS_MAP of Train Textual Inversion.")
        })?;
        Ok(Self {
            losses: losses.iter().map(|loss| loss.as_float().unwrap_or(f64::NAN)).collect(),
            prefix: inputs.optional_string("filename_prefix")?.unwrap_or("loss_graph").to_string(),
            texts: graph_texts(inputs, host),
        })
    }
}

impl Node for LossGraph {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("LossGraphNode", "Plot Loss Graph")
            .category("model/training")
            .description("Draws the losses of a training run, each step and smoothed, and saves the picture.")
            .search_aliases(["loss plot", "training chart"])
            .input(InputSpec::new("loss", "LOSS_MAP").tooltip("The losses, from a training node."))
            .input(
                InputSpec::string("filename_prefix")
                    .default("loss_graph")
                    .tooltip("Beginning of the picture's file name in the output folder."),
            )
            .input(InputSpec::hidden("prompt", "PROMPT").tooltip("The graph, kept in the file."))
            .input(
                InputSpec::hidden("extra_pnginfo", "EXTRA_PNGINFO")
                    .tooltip("The front end's graph, kept in the file."),
            )
            .output_node()
            .experimental()
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let LossGraphInputs { losses, prefix, texts } = LossGraphInputs::parse(&inputs, host)?;
        let image = loss_chart(&losses).into_image()?;
        let saved = save_pictures(host, folder::OUTPUT, &prefix, &image, &texts)?;
        Ok(saved.iter().fold(Outputs::new(), |outputs, (name, subfolder)| {
            outputs.ui_image(name, subfolder, folder::OUTPUT)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Home;

    #[test]
    fn a_run_becomes_a_picture() {
        let home = Home::new();
        // A course like a real one: noisy, falling a little.
        let mut noise = 1u32;
        let losses = (0..400).map(|step| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = f64::from(noise >> 8) / f64::from(1 << 24);
            Value::Float(0.08 + 0.05 * (-f64::from(step) / 120.0).exp() + 0.12 * random * random)
        });
        let losses = Value::map([("loss", Value::List(losses.collect()))]);
        let outputs = home.run(&LossGraph, Inputs::new().with("loss", losses)).unwrap();
        assert!(outputs.results.is_empty() && outputs.ui.unwrap().contains("loss_graph_00001_.png"));
        let file = home.path("output/loss_graph_00001_.png");
        assert_eq!(image::image_dimensions(&file).unwrap(), (800, 480));
        // VOCABLE_KEEP=folder keeps the drawings of tests, to be looked at.
        if let Some(folder) = std::env::var_os("VOCABLE_KEEP") {
            std::fs::copy(&file, std::path::Path::new(&folder).join("loss_graph.png")).unwrap();
        }
    }

    #[test]
    fn something_else_than_losses_is_refused() {
        let inputs = Inputs::new().with("loss", Value::map([("x", Value::Int(1))]));
        assert!(Home::new().run(&LossGraph, inputs).unwrap_err().message.contains("LOSS_MAP"));
    }
}
