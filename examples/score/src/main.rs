//! The score table: how well learned words keep their subject and let the rest of the prompt be followed, for each preset.
//!
//! For every concept and seed, pictures of "a photo of a <word>" and of "a photo of a <word> on a … background" are painted before learning
//! (the vectors are the init word's) and after it; the judge reads subject (silhouette, both colours, texture), background and style back.
//! The same is done for words that the model was trained on: the mark to be reached.
//!
//! ```sh
//! cargo run --release -p score -- --presets recommended --seeds 3
//! ```

mod judge;
mod painter;
mod sheet;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use serde_json::{Value, json};
use vocable_engine::CancelToken;
use vocable_engine::concept::{CaptionSource, Concept, ConceptOptions, OBJECT_TEMPLATES, STYLE_TEMPLATES};
use vocable_engine::training::{
    Choices, LatentCache, LearningRateSchedule, NormControl, Preset, Trainer, angle, norm, vocabulary_rms,
    vocabulary_scales,
};

use judge::{Judge, Result};
use painter::Painter;

const WORD: &str = "<word>";
const SUBJECT: [&str; 4] = ["silhouette", "body", "second", "texture"];
const BACKGROUNDS: [&str; 8] = ["red", "yellow", "green", "cyan", "blue", "pink", "white", "black"];

#[derive(Parser)]
#[command(about = "Scores presets on the held-out concepts")]
struct Arguments {
    /// The pipeline to learn with.
    #[arg(long, default_value = "examples/models/creatures")]
    model: PathBuf,
    /// The judge's folder.
    #[arg(long, default_value = "examples/models/creatures-judge")]
    judge: PathBuf,
    /// The folder of concept folders, with concepts.json.
    #[arg(long, default_value = "examples/concepts")]
    concepts: PathBuf,
    /// Only these concepts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Presets to score.
    #[arg(long, value_delimiter = ',', default_value = "recommended")]
    presets: Vec<String>,
    /// Seeds for each concept.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Pictures of each kind.
    #[arg(long, default_value_t = 16)]
    pictures: usize,
    /// Guidance.
    #[arg(long, default_value_t = 3.0)]
    cfg: f64,
    /// Sampling steps.
    #[arg(long, default_value_t = 20)]
    sampling_steps: usize,
    /// Vectors of a word.
    #[arg(long, default_value_t = 1)]
    vectors: usize,
    /// Instead of the preset's.
    #[arg(long)]
    steps: Option<usize>,
    /// Instead of the preset's.
    #[arg(long)]
    lr: Option<f64>,
    /// Instead of the preset's.
    #[arg(long)]
    batch: Option<usize>,
    /// Instead of the preset's: `none`, `fixed:SCALE` or `pull:STRENGTH`.
    #[arg(long)]
    norm: Option<String>,
    /// Instead of the preset's: `constant`, `linear` or `cosine`.
    #[arg(long)]
    schedule: Option<String>,
    /// Vectors learned by another trainer, scored instead of training: files `<dir>/<concept>-<seed>.safetensors` with one `[n, d]` tensor,
    /// and `seconds.json`, which says how long each took (`{"<concept>-<seed>": seconds}`).
    #[arg(long)]
    learned: Option<PathBuf>,
    /// The other trainer's name in the table.
    #[arg(long, requires = "learned")]
    label: Option<String>,
    /// Where the table and the sheets go.
    #[arg(long, default_value = "output/score")]
    output: PathBuf,
}

/// Shares of right answers.
#[derive(Default, Clone, Copy)]
struct Score {
    subject: f64,
    background: f64,
    style: f64,
}

struct Truth<'a> {
    kind: &'a str,
    attributes: &'a Value,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let painter = Painter::open(&arguments.model, arguments.cfg, arguments.sampling_steps)?;
    let judge = Judge::open(&arguments.judge)?;
    let truths: Value =
        serde_json::from_str(&std::fs::read_to_string(arguments.concepts.join("concepts.json"))?)?;
    let truths = truths.as_object().ok_or("concepts.json is no object")?;
    std::fs::create_dir_all(&arguments.output)?;
    let n = arguments.pictures;

    let nothing = Tensor::zeros((0, painter.models.text.width()), DType::F32, &Device::Cpu)?;
    let trained = trained_words(&arguments.model, &painter, &judge, &nothing, n)?;
    println!(
        "words that the model was trained on: subject {:.2} · background {:.2} · drawing style {:.2}\n",
        trained.subject, trained.background, trained.style
    );
    println!(
        "| preset | concept | seed | seconds | subject before | after | background before | after | style before | after | norm | angle |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    for name in &arguments.presets {
        let preset = Preset::from_name(name).ok_or_else(|| format!("no preset is called {name}"))?;
        let name = arguments.label.as_ref().unwrap_or(name);
        for (concept_name, attributes) in truths {
            if !arguments.only.is_empty() && !arguments.only.contains(concept_name) {
                continue;
            }
            let truth = Truth { kind: attributes["kind"].as_str().unwrap_or("object"), attributes };
            for seed in 0..arguments.seeds {
                let run = learn(&arguments, &painter, preset, concept_name, &truth, seed)?;
                let before = pictures(&painter, &truth, &run.initial, n, seed)?;
                let after = pictures(&painter, &truth, &run.vectors, n, seed)?;
                let (before_score, after_score) =
                    (score(&judge, &truth, &before)?, score(&judge, &truth, &after)?);
                println!(
                    "| {name} | {concept_name} | {seed} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |",
                    run.seconds,
                    before_score.subject,
                    after_score.subject,
                    before_score.background,
                    after_score.background,
                    before_score.style,
                    after_score.style,
                    run.norm,
                    run.angle
                );
                if seed == 0 {
                    let file = arguments.output.join(format!("{name}-{concept_name}.png"));
                    sheet::save(&file, &[&run.concept, &before.plain, &after.plain, &after.changed], 8)?;
                }
                rows.push(json!({
                    "preset": name, "concept": concept_name, "kind": truth.kind, "seed": seed, "seconds": run.seconds,
                    "subject": [before_score.subject, after_score.subject],
                    "background": [before_score.background, after_score.background],
                    "style": [before_score.style, after_score.style], "norm": run.norm, "angle": run.angle,
                }));
            }
        }
    }
    let names = arguments.label.as_ref().map_or(arguments.presets.clone(), |label| vec![label.clone()]);
    summary(&rows, &names, trained);
    std::fs::write(arguments.output.join("score.json"), serde_json::to_string_pretty(&rows)?)?;
    Ok(())
}

/// What learning gave.
struct Run {
    initial: Tensor,
    vectors: Tensor,
    concept: Tensor,
    seconds: f64,
    norm: f64,
    angle: f64,
}

fn learn(
    arguments: &Arguments,
    painter: &Painter,
    preset: Preset,
    name: &str,
    truth: &Truth<'_>,
    seed: u64,
) -> Result<Run> {
    let cancel = CancelToken::new();
    let style = truth.kind == "style";
    let options = ConceptOptions {
        resolution: painter.side(),
        multiple: 8,
        captions: CaptionSource::Sidecar,
        ..ConceptOptions::default()
    };
    let concept = Concept::load_folder(&arguments.concepts.join(name), &options, &cancel)?;
    let templates = if style { STYLE_TEMPLATES } else { OBJECT_TEMPLATES };
    let rms = vocabulary_rms(&vocabulary_scales(&painter.models.text)?);
    let norm_control = arguments.norm.as_deref().map(norm_control).transpose()?;
    let schedule = arguments.schedule.as_deref().map(|name| {
        let found = LearningRateSchedule::ALL.iter().find(|(n, _)| *n == name);
        found.map(|(_, schedule)| *schedule).ok_or_else(|| format!("no schedule is called {name}"))
    });
    let choices = Choices {
        steps: arguments.steps,
        learning_rate: arguments.lr,
        batch_size: arguments.batch,
        norm_control,
        learning_rate_schedule: schedule.transpose()?,
        ..Choices::default()
    };
    let init = if style { "style" } else { "creature" };
    let templates = templates.iter().map(|t| (*t).to_owned()).collect();
    let settings = preset.settings(&choices, WORD, init, arguments.vectors, templates, seed, rms);
    let pixels = Tensor::stack(&concept.items.iter().map(|item| item.pixels.clone()).collect::<Vec<_>>(), 0)?;
    let start = Instant::now();
    let latents = LatentCache::new(&painter.vae, &concept, settings.flip, &cancel, |_, _| {})?;
    let mut trainer = Trainer::new(painter.models.clone(), latents, settings)?;
    let initial = trainer.initial_vectors()?;
    let (vectors, seconds) = match &arguments.learned {
        Some(folder) => learned_elsewhere(folder, &format!("{name}-{seed}"))?,
        None => {
            while !trainer.is_finished() {
                trainer.step(&cancel)?;
            }
            (trainer.vectors()?, start.elapsed().as_secs_f64())
        }
    };
    let row = |x: &Tensor| x.get(0)?.to_vec1::<f32>();
    let (start, end) = (row(&initial)?, row(&vectors)?);
    let (norm, angle) = (norm(&end), angle(&start, &end));
    Ok(Run { initial, vectors, concept: pixels, seconds, norm, angle })
}

/// Another trainer's vectors `[n, d]` and the seconds that they took.
fn learned_elsewhere(folder: &Path, run: &str) -> Result<(Tensor, f64)> {
    let file = candle_core::safetensors::load(folder.join(format!("{run}.safetensors")), &Device::Cpu)?;
    let vectors = file.into_values().next().ok_or("the file of learned vectors is empty")?;
    let seconds: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("seconds.json"))?)?;
    let seconds = seconds[run].as_f64().ok_or_else(|| format!("seconds.json has no {run}"))?;
    Ok((vectors, seconds))
}

fn norm_control(text: &str) -> Result<NormControl> {
    let (kind, value) = text.split_once(':').unwrap_or((text, "1"));
    let value: f64 = value.parse()?;
    Ok(match kind {
        "none" => NormControl::None,
        "fixed" => NormControl::Fixed { scale: value },
        "pull" => NormControl::Pull { strength: value },
        _ => return Err(format!("no norm control is called {kind}").into()),
    })
}

fn style_phrase(word: &str) -> String {
    format!("a creature in the style of {word}")
}

struct Pictures {
    plain: Tensor,
    changed: Tensor,
    /// The background that each of `changed` should have.
    wanted: Vec<&'static str>,
}

/// Pictures of the word alone, and with a background that is neither of the creature's colours.
fn pictures(painter: &Painter, truth: &Truth<'_>, vectors: &Tensor, n: usize, seed: u64) -> Result<Pictures> {
    let own = [truth.attributes["body"].as_str(), truth.attributes["second"].as_str()];
    let free: Vec<&'static str> = BACKGROUNDS.into_iter().filter(|c| !own.contains(&Some(*c))).collect();
    let wanted: Vec<&'static str> = (0..n).map(|i| free[i % free.len()]).collect();
    let phrase = if truth.kind == "style" { style_phrase(WORD) } else { format!("a photo of a {WORD}") };
    let plain = painter.paint(&vec![phrase.clone(); n], WORD, vectors, 1000 + seed)?;
    let prompts: Vec<String> =
        wanted.iter().map(|colour| format!("{phrase} on a {colour} background")).collect();
    let changed = painter.paint(&prompts, WORD, vectors, 2000 + seed)?;
    Ok(Pictures { plain, changed, wanted })
}

fn score(judge: &Judge, truth: &Truth<'_>, pictures: &Pictures) -> Result<Score> {
    let plain = judge.look(&pictures.plain)?;
    let changed = judge.look(&pictures.changed)?;
    let right = changed
        .iter()
        .zip(&pictures.wanted)
        .filter(|(seen, wanted)| seen.get("background").is_some_and(|b| b == *wanted));
    Ok(Score {
        subject: SUBJECT.iter().map(|a| share(&plain, truth, a)).sum::<f64>() / SUBJECT.len() as f64,
        background: right.count() as f64 / changed.len() as f64,
        style: share(&plain, truth, "style"),
    })
}

/// The share of pictures in which the judge sees the `attribute` that is true.
fn share(seen: &[HashMap<String, String>], truth: &Truth<'_>, attribute: &str) -> f64 {
    let wanted = truth.attributes[attribute].as_str().unwrap_or("none-solid");
    let right = seen.iter().filter(|seen| seen.get(attribute).is_some_and(|found| found == wanted));
    right.count() as f64 / seen.len() as f64
}

/// The score of nouns from the model's own vocabulary: of every fourth, a quarter as many pictures as of a concept.
fn trained_words(
    model: &Path,
    painter: &Painter,
    judge: &Judge,
    nothing: &Tensor,
    n: usize,
) -> Result<Score> {
    let words: Value = serde_json::from_str(&std::fs::read_to_string(model.join("nouns.json"))?)?;
    let nouns = words["nouns"].as_object().ok_or("nouns.json has no nouns")?;
    let mut sum = Score { style: trained_styles(&words, painter, judge, nothing, n)?, ..Score::default() };
    let chosen: Vec<_> = nouns.iter().step_by(4).collect();
    let n = (n / 4).max(1);
    for (i, (noun, attributes)) in chosen.iter().enumerate() {
        let truth = Truth { kind: "object", attributes };
        let own = [attributes["body"].as_str(), attributes["second"].as_str()];
        let free: Vec<&'static str> = BACKGROUNDS.into_iter().filter(|c| !own.contains(&Some(*c))).collect();
        let wanted: Vec<&'static str> = (0..n).map(|i| free[i % free.len()]).collect();
        let plain =
            painter.paint(&vec![format!("a photo of a {noun}"); n], WORD, nothing, 3000 + i as u64)?;
        let prompts: Vec<String> =
            wanted.iter().map(|c| format!("a photo of a {noun} on a {c} background")).collect();
        let changed = painter.paint(&prompts, WORD, nothing, 4000 + i as u64)?;
        let one = score(judge, &truth, &Pictures { plain, changed, wanted })?;
        let share = 1.0 / chosen.len() as f64;
        sum.subject += one.subject * share;
        sum.background += one.background * share;
    }
    Ok(sum)
}

/// How often the style words of the model's own vocabulary are drawn as they should be; `photo` is left out, which is the style of every prompt that
/// names none.
fn trained_styles(
    words: &Value,
    painter: &Painter,
    judge: &Judge,
    nothing: &Tensor,
    n: usize,
) -> Result<f64> {
    let styles = words["classes"]["style_words"].as_object().ok_or("nouns.json has no style words")?;
    let mut scores = Vec::new();
    for (i, (word, style)) in styles.iter().filter(|(word, _)| *word != "photo").enumerate() {
        let attributes = json!({ "style": style });
        let truth = Truth { kind: "style", attributes: &attributes };
        let plain = painter.paint(&vec![style_phrase(word); n], WORD, nothing, 5000 + i as u64)?;
        scores.push(share(&judge.look(&plain)?, &truth, "style"));
        println!("- style {word}: {:.2}", scores[i]);
    }
    Ok(scores.iter().sum::<f64>() / scores.len() as f64)
}

fn summary(rows: &[Value], presets: &[String], trained: Score) {
    println!(
        "\n| preset | runs | seconds | subject before | after | of trained words' | background after | of trained words' | held-out style before | after | of trained words' |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for preset in presets {
        let of = |kind: &str| {
            rows.iter()
                .filter(|row| row["preset"] == preset.as_str() && row["kind"] == kind)
                .collect::<Vec<_>>()
        };
        let mean = |rows: &[&Value], get: &dyn Fn(&Value) -> Option<f64>| {
            // From 0, since an empty sum of floats is −0.
            rows.iter().filter_map(|row| get(row)).fold(0.0, |sum, x| sum + x) / rows.len().max(1) as f64
        };
        let (objects, styles) = (of("object"), of("style"));
        let seconds = mean(&objects, &|row| row["seconds"].as_f64());
        let [subject_before, subject] = [0, 1].map(|i| mean(&objects, &|row| row["subject"][i].as_f64()));
        let background = mean(&objects, &|row| row["background"][1].as_f64());
        let [style_before, style] = [0, 1].map(|i| mean(&styles, &|row| row["style"][i].as_f64()));
        println!(
            "| {preset} | {} | {seconds:.1} | {subject_before:.2} | {subject:.2} | {:.2} | {background:.2} | {:.2} | {style_before:.2} | {style:.2} | {:.2} |",
            objects.len() + styles.len(),
            subject / trained.subject,
            background / trained.background,
            style / trained.style
        );
    }
}
