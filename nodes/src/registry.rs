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
        Arc::new(InspectCheckpoint),
        Arc::new(ExportModel),
        Arc::new(ContactSheet),
        Arc::new(CheckpointLoaderSimple),
        Arc::new(VaeLoader),
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

    use serde_json::{Value as Json, json};
    use vocable_host_sdk::abi::{Folders, Presence};

    use super::*;

    /// What is known of ComfyUI's `/object_info`: types, bounds, outputs. Written by hand; what is not here is not known for certain.
    fn comfyuis() -> Json {
        let saves = json!({"input": {"hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}}, "output_node": true});
        json!({
            "CheckpointLoaderSimple": {"output": ["MODEL", "CLIP", "VAE"]},
            "VAELoader": {"output": ["VAE"]},
            "CLIPTextEncode": {
                "input": {"required": {"text": ["STRING", {}], "clip": ["CLIP"]}},
                "output": ["CONDITIONING"],
            },
            "CLIPSetLastLayer": {
                "input": {"required": {"clip": ["CLIP"], "stop_at_clip_layer": ["INT", {"min": -24, "max": -1}]}},
                "output": ["CLIP"],
            },
            "EmptyLatentImage": {"output": ["LATENT"]},
            "KSampler": {
                "input": {"required": {
                    "model": ["MODEL"],
                    "seed": ["INT", {"default": 0, "min": 0, "max": u64::MAX, "control_after_generate": true}],
                    "sampler_name": [["euler"]],
                    "positive": ["CONDITIONING"],
                    "negative": ["CONDITIONING"],
                    "latent_image": ["LATENT"],
                }},
                "is_input_list": false,
                "output": ["LATENT"],
                "output_is_list": [false],
                "output_name": ["LATENT"],
                "name": "KSampler",
                "display_name": "KSampler",
                "category": "model/sampling",
                "output_node": false,
                "has_intermediate_output": false,
            },
            "VAEEncode": {"input": {"required": {"pixels": ["IMAGE"], "vae": ["VAE"]}}, "output": ["LATENT"]},
            "VAEDecode": {"input": {"required": {"samples": ["LATENT"], "vae": ["VAE"]}}, "output": ["IMAGE"]},
            "LoadImage": {
                "input": {"required": {"image": [[], {"image_upload": true, "image_folder": "input"}]}},
                "output": ["IMAGE", "MASK"],
            },
            "SaveImage": saves,
            "PreviewImage": saves,
            "LossGraphNode": {"input": {"required": {"loss": ["LOSS_MAP"]}}, "output_node": true, "experimental": true},
        })
    }

    /// Where `found` is not what is wanted. Objects may hold more; arrays may go on, but for lists of outputs.
    fn differences(place: &str, wanted: &Json, found: &Json) -> Vec<String> {
        match (wanted, found) {
            (Json::Object(wanted), Json::Object(found)) => {
                let inner = wanted.iter().flat_map(|(key, wanted)| {
                    differences(&format!("{place}.{key}"), wanted, found.get(key).unwrap_or(&Json::Null))
                });
                inner.collect()
            }
            (Json::Array(wanted), Json::Array(found))
                if found.len() == wanted.len()
                    || (found.len() > wanted.len() && place.contains(".input.")) =>
            {
                let pairs = wanted.iter().zip(found).enumerate();
                pairs
                    .flat_map(|(i, (wanted, found))| differences(&format!("{place}[{i}]"), wanted, found))
                    .collect()
            }
            _ if wanted == found => Vec::new(),
            _ => vec![format!("{place}: {found}, in ComfyUI {wanted}")],
        }
    }

    #[test]
    fn comfyuis_nodes_are_as_it_lists_them() {
        let ours: serde_json::Map<String, Json> = nodes()
            .iter()
            .map(|node| node.spec())
            .map(|spec| (spec.id.clone(), spec.object_info(&Folders::new(), "")))
            .collect();
        let ours = Json::Object(ours);
        let found = differences("", &comfyuis(), &ours);
        assert!(found.is_empty(), "{}", found.join("\n"));
        // The comparison itself: a type, a bound, a list that is too short or too long.
        for (pointer, wrong) in [
            ("/KSampler/input/required/model/0", json!("CLIP")),
            ("/CLIPSetLastLayer/input/required/stop_at_clip_layer/1/min", json!(-12)),
            ("/KSampler/input/required/sampler_name/0", json!([])),
            ("/VAEDecode/output", json!(["IMAGE", "MASK"])),
            ("/LossGraphNode/experimental", json!(false)),
        ] {
            let mut changed = ours.clone();
            *changed.pointer_mut(pointer).unwrap() = wrong;
            assert_eq!(differences("", &comfyuis(), &changed).len(), 1, "{pointer}");
        }
    }

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
