//! `vocable generate`: the graph that makes pictures from a prompt.

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::folder;
use vocable_host_sdk::graph::Workflow;

use crate::checkpoint::Checkpoint;
use crate::cli::GenerateArgs;
use crate::execute::{self, Session};
use crate::failure::Failure;
use crate::places;
use crate::template::{GENERATE, Graph, LOAD_WORD};
use crate::words::{self, Word};

/// Ids of the template's nodes.
const PROMPTS: [&str; 2] = ["2", "3"];
const FIRST_WORD: u64 = 10;

/// Runs the command.
pub(crate) fn generate(args: &GenerateArgs) -> Result<(), Failure> {
    let mut folders = places::folders(&args.places)?;
    if let Some(first) = &args.embeddings {
        if !first.is_dir() {
            return Err(Failure::Invalid(format!("--embeddings: there is no folder {}", first.display())));
        }
        folders.add_first(folder::EMBEDDINGS, first);
    }
    let checkpoint = Checkpoint::choose(args.picture.model.as_deref(), &folders)?;
    let words = words::in_texts(&folders, &[&args.prompt, &args.picture.negative]);
    let saved = words::saved(&folders);
    let workflow = workflow(args, &checkpoint, &words)?;
    if args.picture.print_workflow {
        return execute::print_workflow(workflow, &args.picture.set, &args.places);
    }
    let session = Session::open(&args.places, &args.watch, folders)?;
    for word in &words {
        session.note(&format!("the word {} is read from {}", word.word, word.file));
    }
    if let Some(remark) = unknown(&[&args.prompt, &args.picture.negative], &saved) {
        session.note(&remark);
    }
    let workflow = session.set(workflow, &args.picture.set)?;
    let report = session.run(&workflow)?;
    session.say(&session.results(&workflow, &report).join("\n"));
    Ok(())
}

/// A remark on words in angle brackets that no file has, with those that there are. The node that encodes the prompt makes it an error, but does
/// not know the other words.
fn unknown(texts: &[&str], saved: &[Word]) -> Option<String> {
    let is_known = |asked: &str| saved.iter().any(|word| word.word.contains(asked));
    let asked: Vec<&str> =
        texts.iter().flat_map(|text| words::in_brackets(text)).filter(|asked| !is_known(asked)).collect();
    if asked.is_empty() {
        return None;
    }
    let saved: Vec<&str> = saved.iter().map(|word| word.word.as_str()).collect();
    let saved = if saved.is_empty() { "none".to_string() } else { saved.join(", ") };
    Some(format!("no saved word is called {}; saved words: {saved}", asked.join(" or ")))
}

/// Whether the text asks for learned words: then what is missing must be said.
fn asks_for_words(text: &str) -> bool {
    text.to_lowercase().contains("embedding:") || !words::in_brackets(text).is_empty()
}

pub(crate) fn workflow(
    args: &GenerateArgs,
    checkpoint: &Checkpoint,
    words: &[Word],
) -> Result<Workflow, Failure> {
    let mut graph = Graph::default();
    let width = graph.size(args.width, checkpoint)?;
    let height = graph.size(args.height, checkpoint)?;
    graph.add(
        GENERATE,
        0,
        &[
            ("model", json!(checkpoint.name)),
            ("prompt", json!(args.prompt)),
            ("negative", json!(args.picture.negative)),
            ("width", width),
            ("height", height),
            ("count", json!(args.count)),
            ("seed", json!(args.picture.seed)),
            ("steps", json!(args.steps)),
            ("cfg", json!(args.picture.cfg.unwrap_or_else(|| checkpoint.cfg()))),
            ("sampler", json!(args.picture.sampler)),
            ("scheduler", json!(args.picture.scheduler)),
            ("prefix", json!("picture")),
        ],
    )?;
    let mut loaded = Json::Null;
    for (word, shift) in words.iter().zip(0..) {
        graph.add(LOAD_WORD, shift, &[("file", json!(word.file)), ("others", loaded)])?;
        loaded = json!([(FIRST_WORD + shift).to_string(), 0]);
    }
    // ComfyUI's node leaves out what it does not find; ours says so.
    for (id, text) in PROMPTS.iter().zip([&args.prompt, &args.picture.negative]) {
        if !words.is_empty() || asks_for_words(text) {
            graph.change(id, "VocableEncodePromptWithEmbeddings", "embeddings", loaded.clone());
        }
    }
    graph.into_workflow()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vocable_host_sdk::abi::Folders;

    use super::*;
    use crate::cli::{Cli, Command};

    fn graph(files: &[(&str, &str)], prompt: &str) -> Workflow {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("creatures/unet")).unwrap();
        std::fs::write(dir.path().join("creatures/unet/config.json"), r#"{"sample_size": 12}"#).unwrap();
        for (file, word) in files {
            let header = format!(r#"{{"__metadata__": {{"name": "{word}"}}}}"#);
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            std::fs::write(dir.path().join(file), bytes).unwrap();
        }
        let folders =
            Folders::new().with(folder::CHECKPOINTS, dir.path()).with(folder::EMBEDDINGS, dir.path());
        let Command::Generate(args) = Cli::parse_from(["vocable", "generate", prompt]).command else {
            unreachable!()
        };
        let checkpoint = Checkpoint::choose(None, &folders).unwrap();
        workflow(&args, &checkpoint, &words::in_texts(&folders, &[prompt])).unwrap()
    }

    #[test]
    fn words_in_the_prompt_are_loaded_and_chained() {
        let files = [("a.safetensors", "<a>"), ("b.safetensors", "<b>"), ("c.safetensors", "<c>")];
        let json = graph(&files, "a <b> beside an <a>").to_json();
        assert_eq!(json["10"]["inputs"], json!({"embedding": "a.safetensors"}));
        assert_eq!(json["11"]["inputs"], json!({"embedding": "b.safetensors", "embeddings": ["10", 0]}));
        assert_eq!(json["2"]["inputs"]["embeddings"], json!(["11", 0]));
        assert_eq!(json["2"]["class_type"], "VocableEncodePromptWithEmbeddings");
        assert!(json.get("12").is_none());
    }

    #[test]
    fn without_words_the_graph_is_comfyuis() {
        let json = graph(&[], "a cat").to_json();
        assert_eq!(json["2"]["class_type"], "CLIPTextEncode");
        assert_eq!(json["4"]["inputs"], json!({"width": 96, "height": 96, "batch_size": 1}));
        assert_eq!(json["5"]["inputs"]["cfg"], 4.0);
        assert_eq!(graph(&[], "I <3 cats").to_json()["2"]["class_type"], "CLIPTextEncode");
    }

    #[test]
    fn a_word_that_is_missing_is_asked_for_all_the_same() {
        let files = [("mibbet.safetensors", "<mibbet>")];
        for prompt in ["a <mibet>", "embedding:cat", "a cat,Embedding:mibbet"] {
            let json = graph(&files, prompt).to_json();
            assert_eq!(json["2"]["class_type"], "VocableEncodePromptWithEmbeddings", "{prompt}");
            assert!(json["2"]["inputs"].get("embeddings").is_none(), "{prompt}");
            assert_eq!(json["3"]["class_type"], "CLIPTextEncode", "{prompt}");
        }
    }

    #[test]
    fn what_is_called_otherwise_is_named_with_the_words_that_there_are() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::new().with(folder::EMBEDDINGS, dir.path());
        let said = |text: &str| unknown(&[text], &words::saved(&folders));
        let none = "no saved word is called <mibet>; saved words: none".to_string();
        assert_eq!(said("a <mibet>"), Some(none));
        let header = r#"{"__metadata__": {"name": "<mibbet>"}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(dir.path().join("mibbet.safetensors"), bytes).unwrap();
        let both = "no saved word is called <mibet> or <x>; saved words: <mibbet>".to_string();
        assert_eq!(said("a <mibet> and <x> and <mibbet>"), Some(both));
        assert_eq!(said("a <mibbet>"), None);
    }
}
