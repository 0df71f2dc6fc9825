//! **Train Textual Inversion**: learns the vectors of a new word from pictures; the model stays as it is.
//!
//! A preset decides every value that is left alone (0, −1 or `preset`). The run has a folder among the results; the same graph queued
//! again goes on from there, and a finished run is not trained again.

use vocable_engine::concept::{OBJECT_TEMPLATES, STYLE_TEMPLATES, parse_templates};
use vocable_engine::prompt::check_word;
use vocable_engine::training::{
    Choices, LearningRateSchedule, NormControl, Optimiser, Preset, TrainingSettings, vocabulary_rms,
    vocabulary_scales,
};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, Value,
};

use super::{CATEGORY, EMBEDDING, add, chain_input, choice};
use crate::convert::{embeddings_from, embeddings_into, node_error};
use crate::handles::{Clip, ConceptPictures, Model, Vae};
use crate::previews::PreviewSettings;
use crate::training::{Learned, Run, learn};

/// Learns a word.
pub(crate) struct TrainTextualInversion;

/// What a choice says when the preset decides.
const PRESET: &str = "preset";

const FLIPS: [(&str, bool); 2] = [("yes", true), ("no", false)];

/// Lists of sentences; none is one's own.
const TEMPLATE_SETS: [(&str, Option<&[&str]>); 3] =
    [("object", Some(OBJECT_TEMPLATES)), ("style", Some(STYLE_TEMPLATES)), ("own", None)];

/// The names of a choice that may be left to the preset.
fn or_preset<T>(options: &[(&'static str, T)]) -> Vec<&'static str> {
    std::iter::once(PRESET).chain(options.iter().map(|(name, _)| *name)).collect()
}

/// Such a choice; `None` where the preset decides.
fn chosen<T: Copy>(inputs: &Inputs, name: &str, options: &[(&str, T)]) -> Result<Option<T>, NodeError> {
    let own = options.iter().map(|(name, value)| (*name, Some(*value)));
    let all: Vec<(&str, Option<T>)> = std::iter::once((PRESET, None)).chain(own).collect();
    Ok(choice(inputs, name, &all)?.flatten())
}

/// What the user chose; 0, −1 and `preset` leave it to the preset.
fn choices(inputs: &Inputs) -> Result<Choices, NodeError> {
    let count = |name: &str| Ok::<_, NodeError>(inputs.optional_count(name)?.filter(|count| *count > 0));
    let float = |name: &str, least: f64| {
        Ok::<_, NodeError>(inputs.optional_float(name)?.filter(|value| *value >= least))
    };
    let choices = Choices {
        steps: count("steps")?,
        batch_size: count("batch_size")?,
        gradient_accumulation: count("gradient_accumulation")?,
        learning_rate: float("learning_rate", f64::MIN_POSITIVE)?,
        learning_rate_schedule: chosen(inputs, "learning_rate_schedule", &LearningRateSchedule::ALL)?,
        warmup: inputs.optional_int("warmup_steps")?.and_then(|steps| usize::try_from(steps).ok()),
        optimiser: chosen(inputs, "optimiser", &Optimiser::ALL)?,
        weight_decay: float("weight_decay", 0.0)?,
        norm_control: chosen(inputs, "norm_control", &NormControl::ALL)?,
        norm_strength: float("norm_strength", 0.0)?,
        flip: chosen(inputs, "flip", &FLIPS)?,
    };
    if let Some(decay) = choices.weight_decay.filter(|decay| *decay > 0.0)
        && choices.optimiser == Some(Optimiser::Adam)
    {
        return Err(NodeError::invalid_input(format!(
            "input `weight_decay` is {decay}, but the optimiser adam has none"
        ))
        .help("Choose the optimiser adamw, or set the weight decay to 0."));
    }
    if let (Some(control), Some(strength)) = (choices.norm_control, choices.norm_strength) {
        let checked = control.with_strength(strength).check();
        checked.map_err(|error| node_error(error).at("input `norm_strength`"))?;
    }
    Ok(choices)
}

/// Choices that do something else than one might think.
fn remarks(choices: &Choices, settings: &TrainingSettings) -> Vec<String> {
    let mut remarks = Vec::new();
    if choices.norm_strength.is_some() && settings.norm_control == NormControl::None {
        remarks.push("norm_strength has no effect, since the norm control is none".to_string());
    }
    if choices.optimiser == Some(Optimiser::Sgd) && choices.learning_rate.is_none() {
        let rate = settings.learning_rate;
        remarks.push(format!(
            "the preset's rate {rate:.2e} was made for adamw, whose steps do not follow the gradient's size: give sgd a learning_rate of its own"
        ));
    }
    remarks
}

fn templates(inputs: &Inputs) -> Result<Vec<String>, NodeError> {
    match choice(inputs, "template_set", &TEMPLATE_SETS)?.unwrap_or(Some(OBJECT_TEMPLATES)) {
        Some(list) => Ok(list.iter().map(ToString::to_string).collect()),
        None => parse_templates(inputs.optional_string("templates")?.unwrap_or_default())
            .map_err(|error| node_error(error).at("input `templates`")),
    }
}

/// The run that the inputs ask for.
fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Run, NodeError> {
    let clip = Clip::from_input(inputs, "clip")?;
    let word = inputs.string("placeholder")?.trim();
    check_word(word).map_err(node_error)?;
    let preset_name = inputs.string("preset")?;
    let preset = choice(inputs, "preset", &Preset::ALL)?.unwrap_or(Preset::Recommended);
    let vocabulary_rms = vocabulary_rms(&vocabulary_scales(&clip.text).map_err(node_error)?);
    let choices = choices(inputs)?;
    let settings = preset.settings(
        &choices,
        word,
        inputs.string("init_words")?.trim(),
        inputs.optional_count("vectors")?.unwrap_or(1),
        templates(inputs)?,
        inputs.optional_seed("seed")?.unwrap_or(0),
        vocabulary_rms,
    );
    settings.check().map_err(node_error)?;
    for remark in remarks(&choices, &settings) {
        host.log(Level::Warn, &remark);
    }
    let pictures = ConceptPictures::from_input(inputs, "concept")?.concept.clone();
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
        // Twins that Load Concept Images made are learned from, unless this node was told not to.
        pictures: if choices.flip == Some(false) { pictures.without_twins() } else { pictures },
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
            .input(own(InputSpec::combo("learning_rate_schedule", or_preset(&LearningRateSchedule::ALL))).tooltip("How the rate falls over the run."))
            .input(own(InputSpec::int("warmup_steps").default(-1).range(-1, 100_000)).tooltip("Steps over which the rate rises from 0. -1: the preset decides."))
            .input(own(InputSpec::combo("optimiser", or_preset(&Optimiser::ALL))).tooltip("adamw: that of all presets. adam: without weight decay. sgd: plain descent with momentum 0.9; its steps are as long as the gradient, so it needs a learning_rate of its own."))
            .input(own(InputSpec::float("weight_decay").default(-1.0).range(-1.0, 1.0).step(0.001)).tooltip("How much each step shrinks the vectors, times the rate. adam has none. -1: the preset decides, for sgd none."))
            .input(own(InputSpec::combo("norm_control", or_preset(&NormControl::ALL))).tooltip("What keeps the vectors as long as ordinary words. none: nothing. fixed: only their direction is learned. pull: they are drawn towards that length."))
            .input(own(InputSpec::float("norm_strength").default(-1.0).range(-1.0, 10.0).step(0.05)).tooltip("Of the norm control, the preset's too. fixed: length in units of the vocabulary's mean. pull: part of the way that each step goes, 1 is all of it and the most. -1: what is usual, 1 for fixed and 0.1 for pull."))
            .input(own(InputSpec::combo("flip", or_preset(&FLIPS))).tooltip("Learn from mirrored twins of the pictures, too. no: not even from those that Load Concept Images made."))
            .input(own(InputSpec::combo("template_set", TEMPLATE_SETS.map(|(name, _)| name))).tooltip("Sentences in which the word is learned, for pictures without a caption: 27 for things, 19 for styles, or your own."))
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
        choices(inputs)?;
        choice(inputs, "preset", &Preset::ALL)?;
        choice(inputs, "template_set", &TEMPLATE_SETS)?;
        let own = inputs.optional_string("template_set")? == Some("own") && !inputs.is_linked("templates");
        if own { templates(inputs).map(|_| ()) } else { Ok(()) }
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let run = parse(&inputs, host)?;
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
