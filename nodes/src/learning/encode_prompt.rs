//! **Encode Prompt with Embeddings**: a prompt in which learned words stand, and a plain answer to what was found.
//!
//! A linked word is found wherever it stands alone, and as `embedding:name`; files as `embedding:name`. What is missing or
//! does not fit is an error, not silence.

use std::sync::Arc;

use vocable_engine::embedding::Embedding;
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{CATEGORY, EMBEDDING};
use crate::convert::{conditioning, embeddings_from};
use crate::encoding::{Library, Spelled, encode, files_stamp};
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
        let text = inputs.optional_string("text")?.unwrap_or_default();
        Ok(files_stamp(&host.folders(folder::EMBEDDINGS), text))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let EncodePromptInputs { clip, text, linked } = EncodePromptInputs::parse(&inputs)?;
        let folders = host.folders(folder::EMBEDDINGS);
        let (encoded, report) = with_cancel(host, |cancel| {
            let mut library = Library::new(&clip, linked, folders)?;
            let spelled = library.spell(&clip, &text)?;
            if let Some(error) = library.unusable().first() {
                return Err(error.clone());
            }
            spelled.prompt.require_all()?;
            library.require_brackets(&text)?;
            Ok((encode(&clip, &spelled, cancel)?, report(&library, &spelled)))
        })?;
        let conditioning = conditioning(&encoded.hidden, encoded.pooled.as_ref())?;
        Ok(Outputs::new().result(conditioning).result(report.clone()).ui_text(report))
    }
}

/// What was found, and which of the linked words the prompt does not use.
fn report(library: &Library, spelled: &Spelled) -> String {
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
    let idle: Vec<&str> =
        library.linked().iter().filter(|word| !used(word)).map(|word| word.name.as_str()).collect();
    if !idle.is_empty() {
        lines.push(format!("linked but not in the prompt: {}", idle.join(", ")));
    }
    lines.push(plural(spelled.prompt.chunks.len(), "chunk"));
    lines.join("\n")
}
