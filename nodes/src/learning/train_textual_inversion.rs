//! **Train Textual Inversion**: learns the vectors of a new word from pictures; the model stays as it is.
//!
//! A preset decides every value that is left alone (0, −1 or `preset`). The run has a folder among the results; the same graph queued
//! again goes on from there, and a finished run is not trained again.

use vocable_engine::concept::{OBJECT_TEMPLATES, STYLE_TEMPLATES, parse_templates};
use vocable_engine::prompt::check_word;
use vocable_engine::training::{Choices, LearningRateSchedule, NormControl, Preset, vocabulary_norm};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, Value,
};

use super::{CATEGORY, EMBEDDING, add, chain_input};
use crate::convert::{embeddings_from, embeddings_into, node_error};
use crate::handles::{Clip, ConceptPictures, Model, Vae};
use crate::previews::PreviewSettings;
use crate::training::{Learned, Run, learn};

/// Learns a word.
pub(crate) struct TrainTextualInversion;

/// What a choice says when the preset decides.
const PRESET: &str = "preset";

fn or_preset<'a>(names: &[&'a str]) -> Vec<&'a str> {
    std::iter::once(PRESET).chain(names.iter().copied()).collect()
}

/// What the user chose; 0, −1 and `preset` leave it to the preset.
fn choices(inputs: &Inputs) -> Result<Choices, NodeError> {
    let count = |name: &str| Ok::<_, NodeError>(inputs.optional_count(name)?.filter(|count| *count > 0));
    let text = |name: &str| Ok::<_, NodeError>(inputs.optional_string(name)?.filter(|text| *text != PRESET));
    let float = |name: &str, least: f64| {
        Ok::<_, NodeError>(inputs.optional_float(name)?.filter(|value| *value >= least))
    };
    let schedule = text("learning_rate_schedule")?.and_then(|name| {
        LearningRateSchedule::ALL.iter().find(|(other, _)| *other == name).map(|(_, schedule)| *schedule)
    });
    let strength = inputs.optional_float("norm_strength")?.unwrap_or(1.0);
    let norm_control = text("norm_control")?.map(|name| match name {
        "fixed" => NormControl::Fixed { scale: strength },
        "pull" => NormControl::Pull { strength: strength.min(1.0) },
        _ => NormControl::None,
    });
    Ok(Choices {
        steps: count("steps")?,
        batch_size: count("batch_size")?,
        gradient_accumulation: count("gradient_accumulation")?,
        learning_rate: float("learning_rate", f64::MIN_POSITIVE)?,
        learning_rate_schedule: schedule,
        warmup: inputs.optional_int("warmup_steps")?.and_then(|steps| usize::try_from(steps).ok()),
        weight_decay: float("weight_decay", 0.0)?,
        norm_control,
        flip: text("flip")?.map(|name| name == "yes"),
    })
}

fn templates(inputs: &Inputs) -> Result<Vec<String>, NodeError> {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    match inputs.optional_string("template_set")?.unwrap_or("object") {
        "style" => Ok(owned(STYLE_TEMPLATES)),
        "own" => parse_templates(inputs.optional_string("templates")?.unwrap_or_default())
            .map_err(|error| node_error(error).at("input `templates`")),
        _ => Ok(owned(OBJECT_TEMPLATES)),
    }
}

/// The run that the inputs ask for.
fn parse(inputs: &Inputs) -> Result<Run, NodeError> {
    let clip = Clip::from_input(inputs, "clip")?;
    let word = inputs.string("placeholder")?.trim();
    check_word(word).map_err(node_error)?;
    let preset_name = inputs.string("preset")?;
    let preset = Preset::from_name(preset_name)
        .ok_or_else(|| NodeError::invalid_input(format!("no preset is called {preset_name}")))?;
    let width = clip.encoder.config().hidden_size as f64;
    let vocabulary_rms = vocabulary_norm(&clip.encoder).map_err(node_error)? / width.sqrt();
    let settings = preset.settings(
        &choices(inputs)?,
        word,
        inputs.string("init_words")?.trim(),
        inputs.optional_count("vectors")?.unwrap_or(1),
        templates(inputs)?,
        inputs.optional_seed("seed")?.unwrap_or(0),
        vocabulary_rms,
    );
    let previews = PreviewSettings {
        prompt: inputs.optional_string("preview_prompt")?.unwrap_or_default().trim().to_string(),
        interval: inputs.optional_count("preview_interval")?.unwrap_or(0),
        count: inputs.optional_count("preview_count")?.unwrap_or(2),
        steps: inputs.optional_count("preview_steps")?.unwrap_or(12),
        cfg: inputs.optional_float("preview_cfg")?.unwrap_or(5.0),
        others: embeddings_from(inputs, "embeddings")?,
    };
    Ok(Run {
        model: Model::from_input(inputs, "model")?,
        vae: Vae::from_input(inputs, "vae")?,
        pictures: ConceptPictures::from_input(inputs, "concept")?.concept.clone(),
        clip,
        settings,
        preset: preset_name.to_string(),
        previews,
        save_interval: inputs.optional_count("save_interval")?.unwrap_or(100),
    })
}

impl Node for TrainTextualInversion {
    fn spec(&self) -> NodeSpec {
        let own = |spec: InputSpec| spec.optional().advanced();
        let count = |name: &str, max: u32| own(InputSpec::int(name).default(0).range(0, max));
        NodeSpec::new("VocableTrainTextualInversion", "Train Textual Inversion")
            .category(CATEGORY)
            .description("Learns a new word from a handful of pictures. Only the word's own vectors are trained; the model stays as it is. Stopping keeps what was learned, and the same graph goes on from there.")
            .search_aliases(["textual inversion", "ti", "train embedding", "learn"])
            .input(InputSpec::new("model", Model::TAG).tooltip("The model that learns the word."))
            .input(InputSpec::new("clip", Clip::TAG).tooltip("Its text encoder."))
            .input(InputSpec::new("vae", Vae::TAG).tooltip("Its autoencoder."))
            .input(InputSpec::new("concept", ConceptPictures::TAG).tooltip("The pictures, from Load Concept Images."))
            .input(InputSpec::string("placeholder").default("<my-word>").tooltip("The new word: one that the model does not know, such as <my-cat>."))
            .input(InputSpec::string("init_words").default("object").tooltip("What the pictures show, roughly, in words that the model knows: the vectors start there."))
            .input(InputSpec::int("vectors").default(1).range(1, 75).tooltip("How many vectors the word has. More hold more detail and follow the rest of a prompt less."))
            .input(InputSpec::combo("preset", Preset::ALL.map(|(name, _)| name)).tooltip("A set of values that belong together; it decides what is left alone below. recommended: ours. The others are those of the paper and of two known programs."))
            .input(InputSpec::seed("seed").tooltip("Decides all that is drawn: the same seed learns the same vectors."))
            .input(InputSpec::string("preview_prompt").default("a photo of {}").optional().tooltip("Prompt of the preview pictures, {} stands for the word. Empty: no previews."))
            .input(count("steps", 100_000).tooltip("Optimiser steps. 0: the preset decides."))
            .input(count("batch_size", 256).tooltip("Pictures of each pass. 0: the preset decides."))
            .input(count("gradient_accumulation", 1024).tooltip("Passes of each step, averaged. 0: the preset decides."))
            .input(own(InputSpec::float("learning_rate").default(0.0).range(0.0, 10.0).step(0.0001)).tooltip("The rate as the optimiser uses it, not scaled by the batch. 0: the preset decides."))
            .input(own(InputSpec::combo("learning_rate_schedule", or_preset(&LearningRateSchedule::ALL.map(|(name, _)| name)))).tooltip("How the rate falls over the run."))
            .input(own(InputSpec::int("warmup_steps").default(-1).range(-1, 100_000)).tooltip("Steps over which the rate rises from 0. -1: the preset decides."))
            .input(own(InputSpec::combo("optimiser", ["adamw"])).tooltip("The optimiser."))
            .input(own(InputSpec::float("weight_decay").default(-1.0).range(-1.0, 1.0).step(0.001)).tooltip("How much each step shrinks the vectors, times the rate. -1: the preset decides."))
            .input(own(InputSpec::combo("norm_control", or_preset(&["none", "fixed", "pull"]))).tooltip("What keeps the vectors as long as ordinary words. none: nothing. fixed: only their direction is learned. pull: they are drawn towards that length."))
            .input(own(InputSpec::float("norm_strength").default(1.0).range(0.0, 10.0).step(0.05)).tooltip("fixed: length in units of the vocabulary's mean. pull: 0 is nothing, 1 is all the way."))
            .input(own(InputSpec::combo("flip", or_preset(&["yes", "no"]))).tooltip("Learn from mirrored twins of the pictures, too."))
            .input(own(InputSpec::combo("template_set", ["object", "style", "own"])).tooltip("Sentences in which the word is learned, for pictures without a caption: 27 for things, 19 for styles, or your own."))
            .input(own(InputSpec::string("templates").default("").multiline()).tooltip("Own sentences, one on each line, with {} where the word goes."))
            .input(own(InputSpec::int("preview_interval").default(100).range(0, 100_000)).tooltip("Steps between two previews. 0: at the beginning and at the end only."))
            .input(own(InputSpec::int("preview_count").default(2).range(1, 16)).tooltip("Pictures of each preview."))
            .input(own(InputSpec::int("preview_steps").default(12).range(1, 1000)).tooltip("Sampling steps of the previews."))
            .input(own(InputSpec::float("preview_cfg").default(5.0).range(0.0, 100.0).step(0.1)).tooltip("How strongly the prompt guides the previews."))
            .input(own(InputSpec::int("save_interval").default(100).range(0, 100_000)).tooltip("Steps between two savings into the run's folder. 0: at the end only; stopping always saves."))
            .input(chain_input())
            .output(OutputSpec::new(EMBEDDING, EMBEDDING).tooltip("The words that were linked, and the one that was learned."))
            .output(OutputSpec::new("LOSS_MAP", "LOSS_MAP").tooltip("The loss of each step, for Plot Loss Graph."))
            .output(OutputSpec::new("previews", "IMAGE").tooltip("The preview pictures of the run, in order."))
            .output(OutputSpec::new("prompt", "STRING").tooltip("The preview prompt with the word in it."))
    }

    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        if let Some(word) = inputs.optional_string("placeholder")? {
            check_word(word.trim()).map_err(|error| node_error(error).at("input `placeholder`"))?;
        }
        let own = inputs.optional_string("template_set")? == Some("own") && !inputs.is_linked("templates");
        if own { templates(inputs).map(|_| ()) } else { Ok(()) }
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let run = parse(&inputs)?;
        let mut words = run.previews.others.clone();
        let prompt = run.previews.prompt_with(&run.settings.placeholder);
        if words.iter().any(|word| word.name == run.settings.placeholder) {
            return Err(NodeError::invalid_input(format!(
                "input `embeddings` has the word {} already",
                run.settings.placeholder
            ))
            .help("Choose another placeholder."));
        }
        let Learned { embedding, losses, previews, folder } = learn(&run, host)?;
        host.log(Level::Info, &format!("learned {} in {}", embedding.name, folder.display()));
        let report = format!("{}: {}\n{}", embedding.name, embedding.describe(), folder.display());
        add(&mut words, embedding)?;
        let losses = losses.into_iter().map(|loss| Value::Float(f64::from(loss))).collect();
        Ok(Outputs::new()
            .result(embeddings_into(&words)?)
            .result(Value::map([("loss", Value::List(losses))]))
            .result(previews.map_or(Value::None, Value::Tensor))
            .result(prompt)
            .ui_text(report))
    }
}
