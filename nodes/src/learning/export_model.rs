//! **Export Model**: writes a loaded model as a checkpoint in one file or as a diffusers pipeline's folder, for other programs, and for finding out
//! whether they compute the same.

use std::sync::Arc;

use vocable_engine::checkpoint::{Export, ExportLayout, Family, Precision};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{CATEGORY, choice};
use crate::files::free_place;
use crate::generation::CHECKPOINT_ENDINGS;
use crate::handles::{Clip, Model, Vae};
use crate::run::with_cancel;

/// Writes a loaded model.
pub(crate) struct ExportModel;

/// The types of the numbers in the files, by name.
const PRECISIONS: [(&str, Option<Precision>); 4] = [
    ("as loaded", None),
    ("f32", Some(Precision::F32)),
    ("bf16", Some(Precision::Bf16)),
    ("f16", Some(Precision::F16)),
];
const PREFIX: &str = "checkpoints/vocable";
const FILE_ENDING: &str = ".safetensors";

struct ExportModelInputs {
    model: Arc<Model>,
    clip: Arc<Clip>,
    vae: Arc<Vae>,
    family: &'static Family,
    layout: ExportLayout,
    precision: Option<Precision>,
    prefix: String,
}

impl ExportModelInputs {
    fn parse(inputs: &Inputs) -> Result<Self, NodeError> {
        let model = Model::from_input(inputs, "model")?;
        let clip = Clip::from_input(inputs, "clip")?;
        let family = model.family.or_else(|| Family::of_text_encoders(&clip.text)).ok_or_else(|| {
            let keys: Vec<&str> = clip.text.towers().iter().map(|tower| tower.key.as_str()).collect();
            NodeError::incompatible(format!(
                "of which family {} is cannot be told: a CLIP with {} is that of none",
                model.name,
                keys.join(" and ")
            ))
            .help("Load the model from its file, or link the CLIP that it came with.")
        })?;
        let layout = choice(inputs, "layout", &ExportLayout::ALL)?.unwrap_or(ExportLayout::SingleFile);
        let prefix = inputs.optional_string("filename_prefix")?.unwrap_or(PREFIX).trim();
        let prefix = match layout {
            ExportLayout::SingleFile => prefix.strip_suffix(FILE_ENDING).unwrap_or(prefix),
            ExportLayout::DiffusersFolder => prefix,
        };
        Ok(Self {
            vae: Vae::from_input(inputs, "vae")?,
            family,
            layout,
            precision: choice(inputs, "precision", &PRECISIONS)?.flatten(),
            prefix: prefix.to_string(),
            model,
            clip,
        })
    }
}

impl Node for ExportModel {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableExportModel", "Export Model")
            .category(CATEGORY)
            .description("Writes a loaded model into the output folder: as a checkpoint in one file, or as a folder for diffusers.")
            .search_aliases(["save checkpoint", "convert checkpoint", "diffusers", "save model"])
            .input(InputSpec::new("model", Model::TAG).tooltip("The denoiser."))
            .input(InputSpec::new("clip", Clip::TAG).tooltip("Its text encoder with the tokenizer."))
            .input(InputSpec::new("vae", Vae::TAG).tooltip("Its autoencoder."))
            .input(InputSpec::combo("layout", ExportLayout::ALL.map(|(name, _)| name)).default("single file").tooltip(
                "A single .safetensors file, as ComfyUI reads it, or a pipeline's folder, as diffusers reads it.",
            ))
            .input(
                InputSpec::combo("precision", PRECISIONS.map(|(name, _)| name)).default("as loaded").optional().tooltip(
                    "The type of the numbers in the files. Halves need half the room; a number that f16 does not have is an error.",
                ),
            )
            .input(InputSpec::string("filename_prefix").default(PREFIX).optional().tooltip(
                "Name of the file or folder; a slash makes a subfolder. May hold %date:yyyy-MM-dd%, %year% and the like. A name that is taken gets a number.",
            ))
            .output(OutputSpec::new("path", "STRING").tooltip("Where the model was written."))
            .output_node()
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let inputs = ExportModelInputs::parse(&inputs)?;
        let ending = match inputs.layout {
            ExportLayout::SingleFile => FILE_ENDING,
            ExportLayout::DiffusersFolder => "",
        };
        let path = free_place(&host.folder(folder::OUTPUT)?, &inputs.prefix, ending)?;
        let denoiser = &inputs.model.denoiser;
        let export = Export {
            family: inputs.family,
            unet: &denoiser.unet,
            schedule: &denoiser.schedule,
            scaling_factor: denoiser.scaling_factor,
            text: &inputs.clip.text,
            vae: &inputs.vae.autoencoder,
            title: title(&inputs.model.name),
            precision: inputs.precision,
        };
        host.status("writing the model");
        let notes = with_cancel(host, |cancel| {
            let mut progress = |done: usize, total: usize| host.progress(done as u64, total as u64, None);
            export.write(inputs.layout, &path, cancel, &mut progress)
        })?;
        for note in &notes {
            host.log(Level::Warn, note);
        }
        let path = path.display().to_string();
        Ok(Outputs::one(path.clone()).ui_text(path))
    }
}

/// What the user calls a model, without the ending of its file.
fn title(name: &str) -> &str {
    let stem = |ending: &&str| name.strip_suffix(*ending)?.strip_suffix('.');
    CHECKPOINT_ENDINGS.iter().find_map(stem).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::{ErrorKind, Value};

    use super::*;
    use crate::generation::{CheckpointLoaderSimple, ClipSetLastLayer};
    use crate::graph_tests::home;
    use crate::testing::{Home, ListeningHost};

    fn inputs(parts: &[Value; 3], layout: &str, prefix: &str) -> Inputs {
        let [model, clip, vae] = parts.clone();
        let inputs = Inputs::new().with("model", model).with("clip", clip).with("vae", vae);
        inputs.with("layout", layout).with("filename_prefix", prefix)
    }

    fn files(home: &Home) -> Vec<String> {
        let entries = std::fs::read_dir(home.path("output/checkpoints")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_model_is_written_in_both_layouts_and_loaded_again() {
        let (home, parts) = home();
        let mut names = Vec::new();
        for (layout, prefix) in [
            ("single file", "checkpoints/a.safetensors"),
            ("single file", "checkpoints/a"),
            ("diffusers folder", "checkpoints/a"),
        ] {
            let listening = ListeningHost::new(&home.host);
            let outputs = listening.run(&ExportModel, inputs(&parts, layout, prefix)).unwrap();
            let path = outputs.results[0].as_str().unwrap().to_string();
            assert!(outputs.ui.unwrap().contains("checkpoints/a"));
            assert!(!listening.heard("progress 1 of").is_empty());
            // Of the tiny model a single file does not tell all.
            assert_eq!(
                !listening.heard("unet.attention_head_dim is 2 and not 8").is_empty(),
                layout == "single file"
            );
            home.run(&CheckpointLoaderSimple, Inputs::new().with("ckpt_name", path.as_str())).unwrap();
            names.push(path);
        }
        assert_eq!(files(&home), ["a", "a-2.safetensors", "a.safetensors"]);
        assert!(names[1].ends_with("a-2.safetensors"));
        let bytes = |name: &str| std::fs::read(home.path("output/checkpoints").join(name)).unwrap();
        assert!(bytes("a.safetensors") == bytes("a-2.safetensors"), "the same model gives the same bytes");
    }

    #[test]
    fn a_precision_is_chosen() {
        let (home, parts) = home();
        let size = |precision: &str| {
            let inputs = inputs(&parts, "single file", precision).with("precision", precision);
            let path = home.run(&ExportModel, inputs).unwrap().results[0].as_str().unwrap().to_string();
            std::fs::metadata(path).unwrap().len()
        };
        assert!(size("f16") < size("f32") * 3 / 5);
        let wrong = inputs(&parts, "single file", "x").with("precision", "int8");
        assert!(home.run(&ExportModel, wrong).unwrap_err().message.contains("int8"));
    }

    #[test]
    fn what_is_stopped_leaves_nothing() {
        let (home, parts) = home();
        for layout in ["single file", "diffusers folder"] {
            let host = ListeningHost::stopping_at(&home.host, "progress 20 of");
            let error = host.run(&ExportModel, inputs(&parts, layout, "checkpoints/a")).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Cancelled);
            assert!(files(&home).is_empty(), "{:?}", files(&home));
        }
    }

    #[test]
    fn a_place_outside_and_parts_of_other_models_are_refused() {
        let (home, parts) = home();
        let error = home.run(&ExportModel, inputs(&parts, "single file", "../a")).unwrap_err();
        assert!(error.message.contains("../a"), "{error}");
        let error = home.run(&ExportModel, inputs(&parts, "one file", "a")).unwrap_err();
        assert!(error.message.contains("`layout`: `one file`"), "{error}");
    }

    #[test]
    fn an_earlier_layer_is_said_to_be_the_last() {
        let (home, parts) = home();
        let [model, clip, vae] = parts;
        let earlier = Inputs::new().with("clip", clip).with("stop_at_clip_layer", -2);
        let clip = home.run(&ClipSetLastLayer, earlier).unwrap().results[0].clone();
        let listening = ListeningHost::new(&home.host);
        listening
            .run(&ExportModel, inputs(&[model, clip, vae], "diffusers folder", "checkpoints/a"))
            .unwrap();
        assert_eq!(listening.heard("stops 1 layer earlier").len(), 1);
        let config = std::fs::read_to_string(home.path("output/checkpoints/a/text_encoder/config.json"));
        assert!(config.unwrap().contains("\"num_hidden_layers\": 2"));
    }
}
