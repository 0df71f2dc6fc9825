//! **Load Concept Images**: the pictures that a word is learned from, with captions and loss weights.
//!
//! From a folder, from a list of files, or by links from any other node. Takes lists, so that pictures of several sizes can be linked.

use vocable_engine::concept::{CaptionSource, ConceptOptions, Crop};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::concept_source::Source;
use super::pictures::MASK_MEANS;
use super::{CATEGORY, choice, flat};
use crate::convert::concept_preview;
use crate::handles::ConceptPictures;

/// Reads pictures to learn from.
pub(crate) struct LoadConceptImages;

const CROPS: [(&str, Crop); 3] =
    [("centre", Crop::Centre), ("random", Crop::Random { count: 4, seed: 0 }), ("none", Crop::None)];

const CAPTION_SOURCES: [(&str, CaptionSource); 3] = [
    ("templates", CaptionSource::Templates),
    ("text files", CaptionSource::Sidecar),
    ("file names", CaptionSource::FileName),
];

/// What is chosen of the pictures; `one` holds the first value of each input.
fn options(one: &Inputs) -> Result<ConceptOptions, NodeError> {
    let plain = ConceptOptions::default();
    let resolution = one.optional_count("resolution")?.unwrap_or(plain.resolution);
    let crop = match choice(one, "crop", &CROPS)?.unwrap_or(plain.crop) {
        Crop::Random { count, seed } => Crop::Random {
            count: one.optional_count("crops_per_picture")?.unwrap_or(count),
            seed: one.optional_seed("crop_seed")?.unwrap_or(seed),
        },
        crop => crop,
    };
    Ok(ConceptOptions {
        resolution,
        crop,
        flip: one.optional_bool("flip")?.unwrap_or(false),
        captions: choice(one, "caption_source", &CAPTION_SOURCES)?.unwrap_or(plain.captions),
        alpha_as_weight: one.optional_bool("alpha_as_weight")?.unwrap_or(false),
        multiple: one.optional_count("side_multiple")?.unwrap_or(plain.multiple).min(resolution),
    })
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
            .input(InputSpec::combo("crop", CROPS.map(|(name, _)| name)).default("centre").optional()
                .tooltip("centre: the largest square in the middle. random: several squares of each picture. none: all of it, in its own aspect ratio."))
            .input(InputSpec::boolean("flip").default(false).optional()
                .tooltip("Learn from mirrored twins, too. Not for subjects with letters, or with a left and a right."))
            .input(InputSpec::combo("caption_source", CAPTION_SOURCES.map(|(name, _)| name)).default("templates").optional()
                .tooltip("Where each picture's caption comes from: none (the trainer's templates), a .txt file of its name, or its name."))
            .input(InputSpec::boolean("alpha_as_weight").default(false).optional()
                .tooltip("Learn nothing from transparent places: for cut-out pictures."))
            .input(InputSpec::int("crops_per_picture").default(4).range(1, 100).optional().advanced().tooltip("Squares of each picture, for random crops."))
            .input(InputSpec::seed("crop_seed").optional().advanced().tooltip("Decides the places of random crops."))
            .input(InputSpec::int("side_multiple").default(plain.multiple).range(8, 1024).step(8).optional().advanced()
                .tooltip("Without a crop, both sides become multiples of this. Larger values make fewer different sizes; pictures of one size can share a batch."))
            .input(InputSpec::string("files").default("").multiline().optional().advanced()
                .tooltip("Only these pictures, one on each line: names in `folder` or in the input folder, or whole paths."))
            .input(InputSpec::new("images", "IMAGE").optional().tooltip("Pictures from another node, instead of a folder."))
            .input(InputSpec::string("captions").force_input().optional()
                .tooltip("Captions for `images`: a list of one for each, in which empty ones leave a picture to the templates; or one text, one for all or one on each line."))
            .input(InputSpec::new("masks", "MASK").optional().tooltip("Which places of `images` count: see `mask_means`."))
            .input(InputSpec::combo("mask_means", MASK_MEANS.map(|(name, _)| name)).default("counts").optional().advanced()
                .tooltip("What 1 means in `masks`. counts: learned from. transparent: not learned from, as in the mask of Load Image."))
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
        let one = flat(&inputs);
        let options = options(&one)?;
        let source = Source::parse(&inputs, &one, host)?;
        let concept = source.load(&options, host)?;
        let count = concept.items.len();
        let mut report = vec![format!("{count} training picture{}", if count == 1 { "" } else { "s" })];
        let unused = one
            .optional_string("folder")?
            .filter(|name| matches!(source, Source::Links(_)) && !name.is_empty());
        report.extend(unused.map(|name| format!("not used: the folder {name}, since `images` is linked")));
        let left_out = concept.problems.iter().map(|problem| format!("left out: {problem}"));
        for warning in concept.remarks.iter().cloned().chain(left_out) {
            host.log(Level::Warn, &warning);
            report.push(warning);
        }
        let preview = concept_preview(&concept)?;
        let outputs = Outputs::new().result(ConceptPictures { concept }.into_value()).result(preview);
        Ok(outputs.result(count as u64).ui_text(report.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::Value;

    use super::*;
    use crate::testing::Home;

    /// The report on a folder of three pictures, one with a text beside it.
    fn report(more: &[(&str, Value)]) -> (String, Vec<usize>) {
        let home = Home::new();
        std::fs::create_dir(home.path("input/pet")).unwrap();
        for name in ["a", "b", "c"] {
            image::RgbImage::new(48, 48).save(home.path(&format!("input/pet/{name}.png"))).unwrap();
        }
        std::fs::write(home.path("input/pet/a.txt"), "a cat").unwrap();
        let inputs =
            Inputs::new().with("folder", vec![Value::from("pet")]).with("resolution", vec![Value::Int(96)]);
        let inputs =
            more.iter().fold(inputs, |inputs, (name, value)| inputs.with(*name, vec![value.clone()]));
        let outputs = home.run(&LoadConceptImages, inputs).unwrap();
        (outputs.ui.unwrap(), outputs.results[1].as_tensor().unwrap().dims())
    }

    #[test]
    fn captions_that_are_missing_are_told() {
        let (text, _) = report(&[("caption_source", "text files".into())]);
        assert!(text.contains("2 of 3 pictures have no .txt"), "{text}");
        let (text, _) = report(&[]);
        assert!(!text.contains(".txt"), "{text}");
    }

    #[test]
    fn without_a_crop_a_square_keeps_the_resolution() {
        let (_, dims) = report(&[("crop", "none".into())]);
        assert_eq!(dims, [3, 96, 96, 3]);
    }

    #[test]
    fn a_folder_that_is_not_used_is_told() {
        let picture = vocable_host_sdk::abi::TensorBuf::from_vec_f32(&[1, 48, 48, 3], vec![0.5; 48 * 48 * 3]);
        let (text, dims) = report(&[("images", picture.unwrap().into())]);
        assert!(text.contains("not used: the folder pet"), "{text}");
        assert_eq!(dims[0], 1);
    }
}
