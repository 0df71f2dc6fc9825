//! **Encode Prompt with Embeddings**: a prompt in which learned words stand, and a plain answer to what was found.
//!
//! A linked word is found wherever it stands alone, and as `embedding:name`; files as `embedding:name`. What is missing, does not fit or
//! is misspelt is an error that names it all, not silence.

use std::sync::Arc;

use vocable_engine::Error;
use vocable_engine::embedding::{Embedding, file_stem_for, find_embedding};
use vocable_engine::prompt::{Word, tokenize_prompt};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{CATEGORY, EMBEDDING};
use crate::convert::{conditioning, embeddings_from};
use crate::encoding::{Library, Spelled, encode, prompt_stamp};
use crate::handles::Clip;
use crate::run::with_cancel;

/// Encodes a prompt with learned words.
pub(crate) struct EncodePrompt;

struct EncodePromptInputs {
    clip: Arc<Clip>,
    text: String,
    linked: Vec<Embedding>,
}

impl EncodePromptInputs {
    fn parse(inputs: &Inputs) -> Result<Self, NodeError> {
        Ok(Self {
            clip: Clip::from_input(inputs, "clip")?,
            text: inputs.string("text")?.to_string(),
            linked: embeddings_from(inputs, "embeddings")?,
        })
    }
}

impl Node for EncodePrompt {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableEncodePromptWithEmbeddings", "Encode Prompt with Embeddings")
            .category(CATEGORY)
            .description(
                "Encodes a prompt in which learned words stand, with ComfyUI's weights and chunks, and says what it found. \
                 A word that is missing or does not fit the model is an error.",
            )
            .search_aliases(["textual inversion", "ti", "prompt", "embedding"])
            .input(InputSpec::string("text").multiline().tooltip(
                "The prompt, with the learned word or embedding:name in it. (word) and (word:1.2) give weight.",
            ))
            .input(InputSpec::new("clip", Clip::TAG).tooltip("The text encoder of the model that the word was learned on."))
            .input(
                InputSpec::new("embeddings", EMBEDDING)
                    .optional()
                    .tooltip("Learned words. Files of the embeddings folder need no link."),
            )
            .output(OutputSpec::new("CONDITIONING", "CONDITIONING").tooltip("The encoded prompt."))
            .output(OutputSpec::new("report", "STRING").tooltip("What was found in the prompt."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        prompt_stamp(inputs, host)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let EncodePromptInputs { clip, text, linked } = EncodePromptInputs::parse(&inputs)?;
        let folders = host.folders(folder::EMBEDDINGS);
        let (encoded, report) = with_cancel(host, |cancel| {
            let mut problems = Vec::new();
            let (fitting, idle) = sort_out(&clip, &text, linked, &mut problems)?;
            let mut library = Library::new(&clip, fitting, folders.clone())?;
            let mut spelled = library.spell(&text)?;
            problems.extend(library.unusable().iter().cloned());
            // Files that are there and cannot be used are told of already; so is a linked word that does not fit.
            spelled.prompt.missing.retain(|name| {
                let linked =
                    idle.iter().find(|(word, _)| word.name == *name || file_stem_for(&word.name) == *name);
                problems.extend(linked.map(|(_, why)| why.clone()));
                linked.is_none() && find_embedding(&folders, name).is_none()
            });
            problems.extend(spelled.prompt.require_all().err());
            for bracketed in in_brackets(&text) {
                let told = problems.iter().any(|problem: &Error| problem.message.contains(&bracketed));
                problems.extend(library.require_brackets(&bracketed).err().filter(|_| !told));
            }
            match together(problems) {
                Some(problem) => Err(problem),
                None => Ok((encode(&clip, &spelled, cancel)?, report(&library, &spelled, &idle))),
            }
        })?;
        let conditioning = conditioning(&encoded)?;
        Ok(Outputs::new().result(conditioning).result(report.clone()).ui_text(report))
    }
}

/// A linked word that does not fit the text encoder, and why.
type Unfit = (Embedding, Error);

/// The linked words that fit, and those that do not and that the prompt does not ask for. Those that it asks for become `problems`, as does
/// what looks like a learned word and was read as text.
fn sort_out(
    clip: &Clip,
    text: &str,
    linked: Vec<Embedding>,
    problems: &mut Vec<Error>,
) -> vocable_engine::Result<(Vec<Embedding>, Vec<Unfit>)> {
    let words: Vec<Word> = linked.iter().map(|word| Word::new(&word.name, word.count())).collect();
    let read = tokenize_prompt(&clip.text.towers()[0].tokenizer, text, &words, &mut |_: &str| None)?;
    problems.extend(read.require_none_overlooked().err());
    let (mut fitting, mut idle) = (Vec::new(), Vec::new());
    for (index, word) in linked.into_iter().enumerate() {
        match clip.fits(&word) {
            Ok(()) => fitting.push(word),
            Err(why) if read.found.iter().any(|found| found.word == Some(index)) => problems.push(why),
            Err(why) => idle.push((word, why)),
        }
    }
    Ok((fitting, idle))
}

/// All `<…>` of a prompt, brackets included.
fn in_brackets(text: &str) -> Vec<String> {
    let names = text.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
    names.map(|(name, _)| format!("<{name}>")).collect()
}

/// All problems as one error, each said once. Its kind is that of the first.
fn together(problems: Vec<Error>) -> Option<Error> {
    let (mut messages, mut helps): (Vec<String>, Vec<String>) = Default::default();
    let kind = problems.first()?.kind;
    for Error { message, help, .. } in problems {
        for (text, texts) in [(message, &mut messages), (help, &mut helps)] {
            if !text.is_empty() && !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    Some(Error::new(kind, messages.join("; ")).help(helps.join("; ")))
}

/// What was found, and which of the linked words the prompt does not use.
fn report(library: &Library, spelled: &Spelled, idle: &[Unfit]) -> String {
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let found = spelled.prompt.found.iter().map(|found| {
        let source = if found.word.is_some() { "linked" } else { "embedding:" };
        format!("found {} ({source}, {})", found.name, plural(found.vectors, "vector"))
    });
    let mut lines: Vec<String> = found.collect();
    if lines.is_empty() {
        lines.push("no learned word in this prompt".to_string());
    }
    let used = |word: &Embedding| spelled.prompt.found.iter().any(|found| library.is_same(found, word));
    let unused: Vec<&str> =
        library.linked().iter().filter(|word| !used(word)).map(|word| word.name.as_str()).collect();
    if !unused.is_empty() {
        lines.push(format!("linked but not in the prompt: {}", unused.join(", ")));
    }
    lines.extend(idle.iter().map(|(_, why)| format!("linked but not in the prompt: {}", why.message)));
    lines.push(plural(spelled.prompt.chunks.len(), "chunk"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::tests::word;
    use crate::testing::Home;

    #[test]
    fn a_linked_text_may_mean_any_file() {
        let home = Home::new();
        let context = HostContext::new(&home.host);
        let mut linked = Inputs::new();
        linked.mark_linked("text");
        let literal = Inputs::new().with("text", "a cat");
        let stamps = || [&linked, &literal].map(|inputs| EncodePrompt.fingerprint(inputs, &context).unwrap());
        std::fs::create_dir(home.path("embeddings/more")).unwrap();
        let before = stamps();
        word("a", 1, 8).save(&home.path("embeddings/more/a.safetensors")).unwrap();
        let one = stamps();
        assert_ne!(one[0], before[0]);
        word("a", 2, 8).save(&home.path("embeddings/more/a.safetensors")).unwrap();
        assert_ne!(stamps()[0], one[0]);
        assert_eq!(stamps()[1], before[1], "a text that is known means the files that it names");
    }

    #[test]
    fn problems_are_told_together_and_once() {
        let missing = Error::not_found("no a").help("look");
        let other = Error::incompatible("b is wide").help("look");
        let all = together(vec![missing.clone(), other, missing]).unwrap();
        assert_eq!(
            (all.kind, all.message.as_str()),
            (vocable_engine::ErrorKind::NotFound, "no a; b is wide")
        );
        assert_eq!(all.help, "look");
        assert!(together(Vec::new()).is_none());
    }
}
