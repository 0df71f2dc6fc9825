//! **Load Concept Images**: the pictures that a word is learned from, with captions and loss weights.
//!
//! From a folder, from a list of files, or by links from any other node. Takes lists, so that pictures of several sizes can be linked.

use std::path::PathBuf;

use vocable_engine::concept::{CaptionSource, Concept, ConceptOptions, Crop};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, TensorBuf, Value,
    folder,
};

use super::{CATEGORY, flat, pictures::from_images};
use crate::convert::concept_preview;
use crate::encoding::file_stamp;
use crate::handles::ConceptPictures;
use crate::run::with_cancel;

/// Reads pictures to learn from.
pub(crate) struct LoadConceptImages;

enum Source {
    Folder(PathBuf),
    Files(Vec<PathBuf>),
    Links { images: Vec<TensorBuf>, captions: Vec<String>, masks: Vec<TensorBuf> },
}

struct ConceptInputs {
    source: Source,
    options: ConceptOptions,
}

impl ConceptInputs {
    fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        let one = flat(inputs);
        let crop = match one.optional_string("crop")?.unwrap_or("centre") {
            "random" => Crop::Random {
                count: one.optional_count("crops_per_picture")?.unwrap_or(4),
                seed: one.optional_seed("crop_seed")?.unwrap_or(0),
            },
            "none" => Crop::None,
            _ => Crop::Centre,
        };
        let captions = match one.optional_string("caption_source")?.unwrap_or("templates") {
            "text files" => CaptionSource::Sidecar,
            "file names" => CaptionSource::FileName,
            _ => CaptionSource::Templates,
        };
        let plain = ConceptOptions::default();
        let resolution = one.optional_count("resolution")?.unwrap_or(plain.resolution);
        let options = ConceptOptions {
            resolution,
            crop,
            flip: one.optional_bool("flip")?.unwrap_or(false),
            captions,
            alpha_as_weight: one.optional_bool("alpha_as_weight")?.unwrap_or(false),
            multiple: one.optional_count("side_multiple")?.unwrap_or(plain.multiple).min(resolution),
        };
        Ok(Self { source: Source::parse(inputs, &one, host)?, options })
    }
}

impl Source {
    fn parse(inputs: &Inputs, one: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        let tensors = |name: &str| match inputs.get(name) {
            Some(Value::List(values)) => values.iter().filter_map(Value::as_tensor).cloned().collect(),
            Some(Value::Tensor(tensor)) => vec![tensor.clone()],
            _ => Vec::new(),
        };
        if inputs.get("images").is_some() {
            let texts = match inputs.get("captions") {
                Some(Value::List(values)) => values.iter().filter_map(Value::as_str).collect(),
                Some(Value::String(text)) => vec![text.as_str()],
                _ => Vec::new(),
            };
            let captions = texts.iter().flat_map(|text| text.lines()).map(str::to_string).collect();
            return Ok(Self::Links { images: tensors("images"), captions, masks: tensors("masks") });
        }
        let files = one.optional_string("files")?.unwrap_or_default();
        let files: Vec<&str> = files.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let folder = one.optional_string("folder")?.filter(|name| !name.is_empty());
        if files.is_empty() {
            let folder = folder.ok_or_else(|| {
                NodeError::invalid_input(
                    "there are no pictures: neither `folder` nor `files` nor `images` is given",
                )
                .help("Choose a folder of the input folder that holds a few pictures of the subject.")
            })?;
            return Ok(Self::Folder(host.find_file(folder::INPUT, folder)?));
        }
        let find = |name: &&str| {
            let beside =
                folder.and_then(|folder| host.find_file(folder::INPUT, &format!("{folder}/{name}")).ok());
            beside.map_or_else(|| host.find_file(folder::INPUT, name), Ok)
        };
        Ok(Self::Files(files.iter().map(find).collect::<Result<_, _>>()?))
    }

    /// Name, size and time of each file that may be read.
    fn stamp(&self) -> String {
        let mut files = match self {
            Self::Folder(path) => std::fs::read_dir(path)
                .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default(),
            Self::Files(files) => {
                files.iter().flat_map(|file| [file.clone(), file.with_extension("txt")]).collect()
            }
            Self::Links { .. } => Vec::new(),
        };
        files.sort();
        files.iter().map(|file| format!("{}={};", file.display(), file_stamp(file))).collect()
    }
}

impl Node for LoadConceptImages {
    fn spec(&self) -> NodeSpec {
        let plain = ConceptOptions::default();
        NodeSpec::new("VocableLoadConceptImages", "Load Concept Images")
            .category(CATEGORY)
            .description("Loads a handful of pictures of the thing or style that a new word is to mean. Pictures that cannot be used are named; the others are kept.")
            .search_aliases(["textual inversion", "ti", "dataset", "training images"])
            .input_is_list()
            .input(InputSpec::files("folder", folder::INPUT, ["/"]).accepts_paths().optional()
                .tooltip("A folder of the input folder; its pictures are taken in the order of their names. Not used when `images` is linked."))
            .input(InputSpec::int("resolution").default(plain.resolution).range(16, 4096).step(8).optional()
                .tooltip("Side of the training pictures in pixels: what the model was made for, 512 for Stable Diffusion 1."))
            .input(InputSpec::combo("crop", ["centre", "random", "none"]).default("centre").optional()
                .tooltip("centre: the largest square in the middle. random: several squares of each picture. none: all of it, in its own aspect ratio."))
            .input(InputSpec::boolean("flip").default(false).optional()
                .tooltip("Learn from mirrored twins, too. Not for subjects with letters, or with a left and a right."))
            .input(InputSpec::combo("caption_source", ["templates", "text files", "file names"]).default("templates").optional()
                .tooltip("Where each picture's caption comes from: none (the trainer's templates), a .txt file of its name, or its name."))
            .input(InputSpec::boolean("alpha_as_weight").default(false).optional()
                .tooltip("Learn nothing from transparent places: for cut-out pictures."))
            .input(InputSpec::int("crops_per_picture").default(4).range(1, 100).optional().advanced().tooltip("Squares of each picture, for random crops."))
            .input(InputSpec::seed("crop_seed").optional().advanced().tooltip("Decides the places of random crops."))
            .input(InputSpec::int("side_multiple").default(plain.multiple).range(8, 1024).step(8).optional().advanced()
                .tooltip("Without a crop, both sides become multiples of this. 64 suits every Stable Diffusion."))
            .input(InputSpec::string("files").default("").multiline().optional().advanced()
                .tooltip("Only these pictures, one on each line: names in `folder` or in the input folder, or whole paths."))
            .input(InputSpec::new("images", "IMAGE").optional().tooltip("Pictures from another node, instead of a folder."))
            .input(InputSpec::string("captions").force_input().optional().tooltip("Captions for `images`: one for all, or one for each on lines of their own."))
            .input(InputSpec::new("masks", "MASK").optional()
                .tooltip("Loss weights for `images`: 1 where the picture counts, 0 where not. Load Image gives 1 where it is transparent: invert that first."))
            .output(OutputSpec::new("concept", ConceptPictures::TAG).tooltip("The pictures, for Train Textual Inversion."))
            .output(OutputSpec::new("preview", "IMAGE").tooltip("What the trainer will see."))
            .output(OutputSpec::new("count", "INT").tooltip("How many training pictures there are, crops and twins counted."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        if inputs.is_linked("images") {
            Ok(String::new())
        } else {
            Ok(Source::parse(inputs, &flat(inputs), host)?.stamp())
        }
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let ConceptInputs { source, options } = ConceptInputs::parse(&inputs, host)?;
        let concept = match &source {
            Source::Folder(path) => with_cancel(host, |cancel| Concept::load_folder(path, &options, cancel))?,
            Source::Files(files) => with_cancel(host, |cancel| Concept::load_files(files, &options, cancel))?,
            Source::Links { images, captions, masks } => {
                from_images(images, captions, masks, &options, host)?
            }
        };
        let count = concept.items.len();
        let mut report = vec![format!("{count} training picture{}", if count == 1 { "" } else { "s" })];
        for problem in &concept.problems {
            host.log(Level::Warn, &format!("left out: {problem}"));
            report.push(format!("left out: {problem}"));
        }
        let preview = concept_preview(&concept)?;
        let outputs = Outputs::new().result(ConceptPictures { concept }.into_value()).result(preview);
        Ok(outputs.result(count as u64).ui_text(report.join("\n")))
    }
}
