//! **Load Embedding**: a learned word from a file of the embeddings folder.

use std::path::PathBuf;

use vocable_engine::embedding::Embedding;
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{CATEGORY, EMBEDDING, chain_input};
use crate::convert::{embeddings_from, embeddings_into, node_error};
use crate::encoding::file_stamp;

/// Reads a learned word.
pub(crate) struct LoadEmbedding;

struct LoadEmbeddingInputs {
    path: PathBuf,
    word: String,
    chained: Vec<Embedding>,
}

impl LoadEmbeddingInputs {
    fn parse(inputs: &Inputs, host: &HostContext<'_>) -> Result<Self, NodeError> {
        Ok(Self {
            path: host.find_file(folder::EMBEDDINGS, inputs.string("embedding")?)?,
            word: inputs.optional_string("word")?.unwrap_or_default().trim().to_string(),
            chained: embeddings_from(inputs, "embeddings")?,
        })
    }
}

impl Node for LoadEmbedding {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableLoadEmbedding", "Load Embedding")
            .category(CATEGORY)
            .description("Loads a learned word from a file, to be used in Encode Prompt with Embeddings.")
            .search_aliases(["textual inversion", "ti", "embedding loader"])
            .input(
                InputSpec::files("embedding", folder::EMBEDDINGS, ["safetensors", "pt", "bin"])
                    .accepts_paths()
                    .tooltip("A file of the embeddings folder. Any layout in .safetensors is read."),
            )
            .input(
                InputSpec::string("word")
                    .default("")
                    .optional()
                    .tooltip("The word that stands for it in prompts. Empty: the word that the file names, else its file name."),
            )
            .input(chain_input())
            .output(OutputSpec::new(EMBEDDING, EMBEDDING).tooltip("The words that were linked, and this one."))
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        Ok(file_stamp(&host.find_file(folder::EMBEDDINGS, inputs.string("embedding")?)?))
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let LoadEmbeddingInputs { path, word, mut chained } = LoadEmbeddingInputs::parse(&inputs, host)?;
        let mut embedding = Embedding::load(&path).map_err(node_error)?;
        if !word.is_empty() {
            vocable_engine::prompt::check_word(&word).map_err(node_error)?;
            embedding.name = word;
        }
        let text = format!("{}: {}", embedding.name, embedding.describe());
        super::add(&mut chained, embedding)?;
        Ok(Outputs::one(embeddings_into(&chained)?).ui_text(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::tests::word;
    use crate::testing::Home;

    #[test]
    fn words_chain_and_two_of_one_name_are_refused() {
        let home = Home::new();
        word("<a>", 2, 8).save(&home.path("embeddings/a.safetensors")).unwrap();
        let load = |name: &str, chained: Option<vocable_host_sdk::abi::Value>| {
            let inputs = Inputs::new().with("embedding", "a.safetensors").with("word", name);
            let inputs = match chained {
                Some(value) => inputs.with("embeddings", value),
                None => inputs,
            };
            home.run(&LoadEmbedding, inputs).map(|mut outputs| outputs.results.remove(0))
        };
        let first = load("", None).unwrap();
        let both = load("<b>", Some(first.clone())).unwrap();
        let names: Vec<_> = embeddings_from(&Inputs::new().with("e", both), "e")
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert_eq!(names, ["<a>", "<b>"]);
        assert!(load("<a>", Some(first)).unwrap_err().message.contains("<a>"));
        assert!(load("two words", None).is_err());
    }

    #[test]
    fn the_fingerprint_follows_the_file() {
        let home = Home::new();
        let context = HostContext::new(&home.host);
        let inputs = Inputs::new().with("embedding", "a.safetensors");
        assert!(LoadEmbedding.fingerprint(&inputs, &context).is_err());
        word("a", 1, 8).save(&home.path("embeddings/a.safetensors")).unwrap();
        let before = LoadEmbedding.fingerprint(&inputs, &context).unwrap();
        word("a", 2, 8).save(&home.path("embeddings/a.safetensors")).unwrap();
        assert_ne!(LoadEmbedding.fingerprint(&inputs, &context).unwrap(), before);
    }
}
