//! The one list of nodes.

use std::sync::Arc;

use vocable_host_sdk::abi::Node;

use crate::generation::*;
use crate::learning::*;

/// Every node of the plugin, in the order in which menus show them.
pub fn nodes() -> Vec<Arc<dyn Node>> {
    vec![
        Arc::new(LoadConceptImages),
        Arc::new(TrainTextualInversion),
        Arc::new(LoadEmbedding),
        Arc::new(SaveEmbedding),
        Arc::new(EncodePrompt),
        Arc::new(InspectEmbedding),
        Arc::new(ContactSheet),
        Arc::new(CheckpointLoaderSimple),
        Arc::new(ClipTextEncode),
        Arc::new(ClipSetLastLayer),
        Arc::new(EmptyLatentImage),
        Arc::new(KSampler),
        Arc::new(VaeEncode),
        Arc::new(VaeDecode),
        Arc::new(LoadImage),
        Arc::new(SaveImage),
        Arc::new(PreviewImage),
        Arc::new(LossGraph),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use vocable_host_sdk::abi::Presence;

    use super::*;

    #[test]
    fn every_node_is_sound_and_documented() {
        let mut ids = BTreeSet::new();
        for node in nodes() {
            let spec = node.spec();
            assert_eq!(spec.problems(), [], "{}", spec.id);
            assert_eq!(spec, node.spec(), "{}: a spec is the same at each call", spec.id);
            assert!(ids.insert(spec.id.clone()), "{} is there twice", spec.id);
            assert!(spec.description.ends_with('.') && !spec.category.is_empty(), "{}", spec.id);
            assert!(!spec.display_name.contains("Vocable"), "{}", spec.id);
            let ours = spec.category == "textual inversion";
            assert_eq!(spec.id.starts_with("Vocable"), ours, "{}", spec.id);
            for input in &spec.inputs {
                let place = format!("{}.{}", spec.id, input.name);
                assert!(input.tooltip.ends_with('.'), "{place}: {:?}", input.tooltip);
                let widget = matches!(input.type_name.as_str(), "INT" | "FLOAT" | "BOOLEAN");
                assert!(!widget || input.default.is_some(), "{place} has no default");
                assert!(
                    input.presence != Presence::Required || !input.advanced || input.default.is_some(),
                    "{place}"
                );
            }
            for output in &spec.outputs {
                assert!(output.tooltip.ends_with('.') && !output.name.is_empty(), "{}", spec.id);
            }
        }
    }

    #[test]
    fn comfyuis_nodes_have_its_inputs_in_its_order() {
        let nodes = nodes();
        let inputs = |id: &str| -> Vec<String> {
            let node = nodes.iter().map(|node| node.spec()).find(|spec| spec.id == id).unwrap();
            let required = node.inputs.into_iter().filter(|input| input.presence == Presence::Required);
            required.map(|input| input.name).collect()
        };
        for (id, names) in [
            ("CheckpointLoaderSimple", &["ckpt_name"][..]),
            ("CLIPTextEncode", &["text", "clip"]),
            ("CLIPSetLastLayer", &["clip", "stop_at_clip_layer"]),
            ("EmptyLatentImage", &["width", "height", "batch_size"]),
            (
                "KSampler",
                &[
                    "model",
                    "seed",
                    "steps",
                    "cfg",
                    "sampler_name",
                    "scheduler",
                    "positive",
                    "negative",
                    "latent_image",
                    "denoise",
                ],
            ),
            ("VAEEncode", &["pixels", "vae"]),
            ("VAEDecode", &["samples", "vae"]),
            ("LoadImage", &["image"]),
            ("SaveImage", &["images", "filename_prefix"]),
            ("PreviewImage", &["images"]),
            ("LossGraphNode", &["loss", "filename_prefix"]),
        ] {
            assert_eq!(inputs(id), names, "{id}");
        }
    }
}
