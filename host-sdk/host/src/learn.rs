//! `vocable learn`: the graph that teaches a word and shows what it means before and after.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{Folders, Value, folder};
use vocable_host_sdk::graph::{RunReport, Workflow};

use crate::checkpoint::Checkpoint;
use crate::cli::LearnArgs;
use crate::execute::{self, Session};
use crate::failure::Failure;
use crate::places;
use crate::template::{Graph, LEARN, LEARN_PROMPT};

/// Of things: as it is, and in another place.
const OBJECT_PROMPTS: [&str; 2] = ["a photo of a {}", "a photo of a {} on a red background"];
/// Of styles: alone, and on something.
const STYLE_PROMPTS: [&str; 2] =
    ["a painting in the style of {}", "a cat in the style of {} on a red background"];

/// Ids of the template's nodes.
const SAVE_EMBEDDING: &str = "4";
const LOSS_GRAPH: &str = "5";
const FIRST_SHEET: u64 = 19;
const IDS_OF_A_PROMPT: u64 = 10;

/// Runs the command.
pub(crate) fn learn(args: &LearnArgs) -> Result<(), Failure> {
    let folders = places::folders(&args.places)?;
    let checkpoint = Checkpoint::choose(args.picture.model.as_deref(), &folders)?;
    let workflow = workflow(args, &checkpoint, &folders)?;
    if args.picture.print_workflow {
        return execute::print_workflow(workflow, &args.picture.set, &args.places);
    }
    let session = Session::open(&args.places, &args.watch, folders)?;
    let workflow = session.set(workflow, &args.picture.set)?;
    let report = session.run(&workflow)?;
    session.say(&summary(args, &session, &report));
    Ok(())
}

pub(crate) fn workflow(
    args: &LearnArgs,
    checkpoint: &Checkpoint,
    folders: &Folders,
) -> Result<Workflow, Failure> {
    let cfg = args.picture.cfg.unwrap_or_else(|| checkpoint.cfg());
    let prompts = prompts(args)?;
    let (pictures, files) = pictures(&args.pictures, folders)?;
    let results = stem(&args.word);
    let preview =
        if args.watch.preview.is_some() { with_word(&prompts[0], &args.word) } else { String::new() };
    let mut graph = Graph::default();
    let size = graph.size(args.resolution, checkpoint)?;
    graph.add(
        LEARN,
        0,
        &[
            ("model", json!(checkpoint.name)),
            ("folder", json!(pictures)),
            ("files", files),
            ("resolution", json!(size)),
            ("captions", json!(args.captions.as_deref().or(args.style.then_some("text files")))),
            ("word", json!(args.word)),
            ("init", json!(args.init)),
            ("vectors", json!(args.vectors)),
            ("preset", json!(args.preset.as_deref().unwrap_or("recommended"))),
            ("seed", json!(args.picture.seed)),
            ("cfg", json!(cfg)),
            ("preview_prompt", json!(preview)),
            ("template_set", json!(if args.style { "style" } else { "object" })),
            ("steps", json!(args.steps)),
            ("batch", json!(args.batch)),
            ("lr", json!(args.lr)),
            ("loss_prefix", json!(format!("{results}/loss"))),
        ],
    )?;
    let wanted = if args.count == 0 { &[] } else { prompts.as_slice() };
    for (prompt, shift) in wanted.iter().zip((0..).step_by(IDS_OF_A_PROMPT as usize)) {
        let (before, after) = (with_word(prompt, &args.init), with_word(prompt, &args.word));
        let labels = format!("what it learned from\nbefore: {before}\nafter: {after}");
        let values: [(&str, Json); 11] = [
            ("negative", json!(args.picture.negative)),
            ("size", json!(size)),
            ("count", json!(args.count)),
            ("before", json!(before)),
            ("after", json!(after)),
            ("labels", json!(labels)),
            ("seed", json!(args.picture.seed)),
            ("cfg", json!(cfg)),
            ("sampler", json!(args.picture.sampler)),
            ("scheduler", json!(args.picture.scheduler)),
            ("sheet_prefix", json!(format!("{results}/sheet"))),
        ];
        graph.add(LEARN_PROMPT, shift, &values)?;
    }
    graph.into_workflow()
}

/// The inputs `folder` and `files` for what was named: one folder, or pictures, which may lie in several.
///
/// The folder that all pictures share is one input and their names in it the other, so that the workflow holds no path that was not typed.
fn pictures(named: &[String], folders: &Folders) -> Result<(String, Json), Failure> {
    let is_file = |name: &str| {
        let path = folders.find(folder::INPUT, name).or_else(|| folders.whole_path(name));
        path.is_some_and(|path| path.is_file())
    };
    if let [one] = named
        && !is_file(one)
    {
        return Ok((one.clone(), Json::Null));
    }
    if let Some(wrong) = named.iter().find(|name| !is_file(name)) {
        return Err(Failure::Invalid(format!(
            "{wrong} is not the file of a picture\n  help: Name one folder, or the files of several pictures."
        )));
    }
    let shared = shared_folder(named);
    let inside = |name: &String| {
        let path = Path::new(name);
        path.strip_prefix(&shared).unwrap_or(path).display().to_string()
    };
    let files = named.iter().map(inside).collect::<Vec<_>>().join("\n");
    let folder = if shared.as_os_str().is_empty() { Path::new(".") } else { shared.as_path() };
    Ok((folder.display().to_string(), json!(files)))
}

/// The innermost folder that holds all files; empty is the current one.
fn shared_folder(files: &[String]) -> PathBuf {
    let mut folders = files.iter().filter_map(|file| Path::new(file).parent());
    let mut shared = folders.next().unwrap_or(Path::new("")).to_path_buf();
    for folder in folders {
        while !folder.starts_with(&shared) {
            if !shared.pop() {
                // Beyond a root only the empty path is left, which every path starts with.
                shared.clear();
            }
        }
    }
    shared
}

/// The prompts that were asked for, or those that suit; each has a place for the word.
fn prompts(args: &LearnArgs) -> Result<Vec<String>, Failure> {
    if let Some(prompt) = args.prompt.iter().find(|prompt| !prompt.contains("{}")) {
        return Err(Failure::Invalid(format!(
            "--prompt \"{prompt}\" has no {{}} where the word goes\n  help: For instance \"a photo of a {{}}\"."
        )));
    }
    let usual = if args.style { STYLE_PROMPTS } else { OBJECT_PROMPTS };
    let own = !args.prompt.is_empty();
    Ok(if own { args.prompt.clone() } else { usual.map(str::to_string).to_vec() })
}

fn with_word(prompt: &str, word: &str) -> String {
    prompt.replace("{}", word)
}

/// A name for a folder: the word's letters and digits.
fn stem(word: &str) -> String {
    let kept: String = word.chars().filter(|c| c.is_alphanumeric() || "_-".contains(*c)).take(60).collect();
    if kept.is_empty() { "word".to_string() } else { kept }
}

/// Where everything is, and how to go on.
fn summary(args: &LearnArgs, session: &Session, report: &RunReport) -> String {
    let mut lines = Vec::new();
    if let Some(path) = report.value(SAVE_EMBEDDING, 0).and_then(Value::as_str) {
        lines.push(format!("the word:        {path}"));
    }
    let pictures = |id: &str| -> Vec<String> {
        report.nodes.get(id).map_or(Vec::new(), |node| session.pictures(node.ui.as_ref()))
    };
    let sheets: Vec<String> =
        report.nodes.keys().filter(|id| is_sheet(id)).flat_map(|id| pictures(id)).collect();
    if !sheets.is_empty() {
        lines.push(format!("before, after:   {}", sheets.join(", ")));
    }
    lines.push(format!("the loss:        {}", pictures(LOSS_GRAPH).join(", ")));
    lines.push(format!("pictures of it:  {}", command(args)));
    lines.join("\n")
}

fn is_sheet(id: &str) -> bool {
    id.parse::<u64>().is_ok_and(|id| id >= FIRST_SHEET && (id - FIRST_SHEET).is_multiple_of(IDS_OF_A_PROMPT))
}

/// The command that uses the word.
fn command(args: &LearnArgs) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "vocable".to_string());
    let prompt = match args.style {
        false => format!("a photo of a {} on a red background", args.word),
        true => format!("a cat in the style of {} on a red background", args.word),
    };
    let mut parts = vec![quoted(&program), "generate".to_string(), quoted(&prompt)];
    let mut option = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            parts.extend([name.to_string(), quoted(&value)]);
        }
    };
    option("--model", args.picture.model.clone());
    option("--models", args.places.models.as_ref().map(|path| path.display().to_string()));
    let output = args.places.output.display().to_string();
    option("--output", Some(output).filter(|output| output != "output"));
    for plugin in &args.places.plugin {
        option("--plugin", Some(plugin.display().to_string()));
    }
    parts.join(" ")
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./\\:=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_string()
    } else if text.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        format!("\"{text}\"")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vocable_host_sdk::graph::Input;

    use super::*;
    use crate::cli::{Cli, Command};

    fn arguments(more: &[&str]) -> Box<LearnArgs> {
        let fixed = ["vocable", "learn", "some/pictures", "--word", "<zorvo>", "--init", "creature"];
        match Cli::parse_from(fixed.iter().chain(more)).command {
            Command::Learn(args) => args,
            _ => unreachable!(),
        }
    }

    fn graph(more: &[&str]) -> Result<Workflow, Failure> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("creatures")).unwrap();
        let folders = Folders::new().with(folder::CHECKPOINTS, dir.path());
        workflow(&arguments(more), &Checkpoint::choose(None, &folders)?, &folders)
    }

    fn literal(workflow: &Workflow, id: &str, input: &str) -> Option<Json> {
        workflow.get(id).unwrap().input(input).and_then(Input::literal).cloned()
    }

    #[test]
    fn what_was_not_chosen_is_left_to_the_preset() {
        let plain = graph(&[]).unwrap();
        assert_eq!(literal(&plain, "3", "steps"), None);
        assert_eq!(literal(&plain, "3", "placeholder"), Some(json!("<zorvo>")));
        assert_eq!(literal(&plain, "3", "preset"), Some(json!("recommended")));
        assert_eq!(literal(&plain, "12", "text"), Some(json!("a photo of a creature")));
        assert_eq!(literal(&plain, "25", "text"), Some(json!("a photo of a <zorvo> on a red background")));
        assert_eq!(literal(&plain, "13", "seed"), literal(&plain, "16", "seed"));
        let chosen = graph(&["--steps", "7", "--lr", "0.01", "--style", "--resolution", "64"]).unwrap();
        assert_eq!(literal(&chosen, "3", "steps"), Some(json!(7)));
        assert_eq!(literal(&chosen, "3", "learning_rate"), Some(json!(0.01)));
        assert_eq!(literal(&chosen, "3", "template_set"), Some(json!("style")));
        assert_eq!(literal(&chosen, "2", "resolution"), Some(json!(64)));
        assert_eq!(
            literal(&chosen, "2", "caption_source"),
            Some(json!("text files")),
            "the default of styles"
        );
        assert_eq!(literal(&chosen, "21", "width"), Some(json!(64)));
    }

    #[test]
    fn pictures_are_a_folder_or_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pets/old")).unwrap();
        std::fs::create_dir(dir.path().join("input")).unwrap();
        for file in ["pets/a.png", "pets/b.png", "pets/old/c.png", "d.png", "input/e.png"] {
            std::fs::write(dir.path().join(file), b"").unwrap();
        }
        let folders = Folders::new().with(folder::INPUT, dir.path().join("input")).with_base(dir.path());
        let found = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(ToString::to_string).collect();
            pictures(&named, &folders).map(|(folder, files)| (folder.replace('\\', "/"), files))
        };
        let files = |folder: &str, files: &[&str]| Ok((folder.to_string(), json!(files.join("\n"))));
        assert_eq!(found(&["pets"]), Ok(("pets".to_string(), Json::Null)));
        assert_eq!(found(&["nowhere"]), Ok(("nowhere".to_string(), Json::Null)), "the node says so");
        assert_eq!(found(&["pets/a.png"]), files("pets", &["a.png"]));
        assert_eq!(found(&["pets/a.png", "pets/b.png"]), files("pets", &["a.png", "b.png"]));
        assert_eq!(found(&["d.png", "pets/a.png"]), files(".", &["d.png", "pets/a.png"]));
        assert_eq!(found(&["e.png"]), files(".", &["e.png"]), "of the input folder");
        let whole = dir.path().join("d.png").to_str().unwrap().to_string();
        assert_eq!(found(&["pets/a.png", &whole]), files(".", &["pets/a.png", &whole]));
        assert_eq!(found(&[&whole, "pets/a.png"]), files(".", &[&whole, "pets/a.png"]));
        for wrong in [["pets", "d.png"], ["d.png", "nowhere.png"]] {
            let message = found(&wrong).unwrap_err().to_string();
            assert!(message.contains("is not the file of a picture"), "{message}");
        }
        let old = shared_folder(&["pets/b.png".to_string(), "pets/old/c.png".to_string()]);
        assert_eq!(old, Path::new("pets"));
        let plain = graph(&[]).unwrap();
        assert_eq!(literal(&plain, "2", "folder"), Some(json!("some/pictures")));
        assert_eq!(literal(&plain, "2", "files"), None);
    }

    #[test]
    fn prompts_make_sheets() {
        let sheets =
            |more: &[&str]| graph(more).unwrap().nodes().iter().filter(|node| is_sheet(&node.id)).count();
        assert_eq!(sheets(&[]), 2);
        assert_eq!(sheets(&["--prompt", "{}"]), 1);
        assert_eq!(sheets(&["--count", "0"]), 0);
        assert!(graph(&["--prompt", "a cat"]).unwrap_err().to_string().contains("no {}"));
    }

    #[test]
    fn the_command_to_go_on_with_can_be_copied() {
        let command = command(&arguments(&["--output", "my results"]));
        assert!(
            command.ends_with(r#"generate "a photo of a <zorvo> on a red background" --output "my results""#),
            "{command}"
        );
        assert_eq!(quoted("a $5 cat's"), r"'a $5 cat'\''s'");
        assert_eq!((stem("<zorvo>").as_str(), stem("<>").as_str()), ("zorvo", "word"));
    }
}
