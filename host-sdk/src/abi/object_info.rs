//! A node's entry in ComfyUI's `/object_info`.

use serde_json::{Map, Value as Json, json};

use super::{Choices, Folders, InputSpec, NodeSpec, Presence};

impl InputSpec {
    /// The input as ComfyUI writes it: `["INT", {"default": 20, …}]`, for choices `[["a", "b"], {…}]`.
    pub fn object_info(&self, folders: &Folders) -> Json {
        if self.presence == Presence::Hidden {
            return json!(self.type_name);
        }
        let kind = match &self.choices {
            Some(choices) => json!(choices.list(folders)),
            None => json!(self.type_name),
        };
        let mut options = Map::new();
        let values = [
            ("default", &self.default),
            ("min", &self.min),
            ("max", &self.max),
            ("step", &self.step),
            ("round", &self.round),
        ];
        for (key, value) in values {
            if let Some(value) = value {
                options.insert(key.to_string(), value.clone());
            }
        }
        if !self.tooltip.is_empty() {
            options.insert("tooltip".to_string(), json!(self.tooltip));
        }
        let switches = [
            ("multiline", self.multiline),
            ("dynamicPrompts", self.dynamic_prompts),
            ("advanced", self.advanced),
            ("control_after_generate", self.control_after_generate),
            ("image_upload", self.image_upload),
            ("forceInput", self.force_input),
        ];
        for (key, _) in switches.into_iter().filter(|(_, on)| *on) {
            options.insert(key.to_string(), json!(true));
        }
        if self.image_upload
            && let Some(Choices::Files { kind, .. }) = &self.choices
        {
            options.insert("image_folder".to_string(), json!(kind));
        }
        json!([kind, options])
    }
}

impl NodeSpec {
    /// The node's entry; `folders` fills lists of files, `python_module` tells the front end where the node comes from.
    pub fn object_info(&self, folders: &Folders, python_module: &str) -> Json {
        let (mut input, mut order) = (Map::new(), Map::new());
        let groups = [
            ("required", Presence::Required),
            ("optional", Presence::Optional),
            ("hidden", Presence::Hidden),
        ];
        for (group, presence) in groups {
            let members: Vec<_> = self.inputs.iter().filter(|input| input.presence == presence).collect();
            if members.is_empty() && presence != Presence::Required {
                continue;
            }
            let entries: Map<_, _> =
                members.iter().map(|member| (member.name.clone(), member.object_info(folders))).collect();
            order.insert(group.to_string(), members.iter().map(|member| member.name.as_str()).collect());
            input.insert(group.to_string(), Json::Object(entries));
        }
        let each =
            |read: fn(&super::OutputSpec) -> Json| self.outputs.iter().map(read).collect::<Vec<Json>>();
        json!({
            "input": input,
            "input_order": order,
            "is_input_list": self.input_is_list,
            "output": each(|output| json!(output.type_name)),
            "output_is_list": each(|output| json!(output.is_list)),
            "output_name": each(|output| json!(output.name)),
            "output_tooltips": each(|output| json!(output.tooltip)),
            "name": self.id,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": python_module,
            "category": self.category,
            "output_node": self.output_node,
            "has_intermediate_output": false,
            "search_aliases": self.search_aliases,
            "deprecated": self.deprecated,
            "experimental": self.experimental,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::OutputSpec;

    #[test]
    fn the_entry_is_what_comfyui_writes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cat.png"), b"").unwrap();
        let folders = Folders::new().with("input", dir.path());
        let spec = NodeSpec::new("KSampler", "KSampler")
            .category("sampling")
            .input(InputSpec::new("model", "MODEL").tooltip("the model"))
            .input(InputSpec::seed("seed"))
            .input(InputSpec::combo("sampler_name", ["euler", "ddim"]))
            .input(InputSpec::files("image", "input", ["png"]).image_upload())
            .input(InputSpec::float("cfg").default(8.0).step(0.1).round(0.01))
            .input(InputSpec::string("note").optional().multiline().dynamic_prompts().advanced())
            .input(InputSpec::hidden("prompt", "PROMPT"))
            .output(OutputSpec::new("LATENT", "LATENT").tooltip("denoised"));
        let info = spec.object_info(&folders, "nodes");
        assert_eq!(
            info["input"],
            json!({
                "required": {
                    "model": ["MODEL", {"tooltip": "the model"}],
                    "seed": ["INT", {"default": 0, "min": 0, "max": u64::MAX, "control_after_generate": true}],
                    "sampler_name": [["euler", "ddim"], {}],
                    "image": [["cat.png"], {"image_upload": true, "image_folder": "input"}],
                    "cfg": ["FLOAT", {"default": 8.0, "step": 0.1, "round": 0.01}],
                },
                "optional": {"note": ["STRING", {"multiline": true, "dynamicPrompts": true, "advanced": true}]},
                "hidden": {"prompt": "PROMPT"},
            })
        );
        assert_eq!(info["input_order"]["required"], json!(["model", "seed", "sampler_name", "image", "cfg"]));
        assert_eq!(info["output_tooltips"], json!(["denoised"]));
        assert_eq!(info["python_module"], "nodes");
        assert!(info.to_string().contains("18446744073709551615"));
    }
}
