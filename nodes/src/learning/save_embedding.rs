//! **Save Embedding**: writes learned words into the embeddings folder, where every program that knows `embedding:name` finds them.

use std::path::{Path, PathBuf};

use vocable_engine::embedding::{Embedding, check_file_name, file_stem_for};
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::{CATEGORY, EMBEDDING, choice};
use crate::convert::{embeddings_from, node_error};
use crate::files::make_folder;

/// Writes learned words.
pub(crate) struct SaveEmbedding;

/// Whether a file of the same name is replaced, by name.
const IF_EXISTS: [(&str, bool); 2] = [("new version", false), ("overwrite", true)];

struct SaveEmbeddingInputs {
    embeddings: Vec<Embedding>,
    name: String,
    overwrite: bool,
}

impl SaveEmbeddingInputs {
    fn parse(inputs: &Inputs) -> Result<Self, NodeError> {
        let embeddings = embeddings_from(inputs, "embedding")?;
        if embeddings.is_empty() {
            return Err(NodeError::invalid_input("input `embedding`: there is no word in it"));
        }
        let name = inputs.optional_string("filename")?.unwrap_or_default().trim();
        let name = name.strip_suffix(".safetensors").unwrap_or(name).to_string();
        if !name.is_empty() {
            check_file_name(&name).map_err(node_error)?;
        }
        if embeddings.len() > 1 && !name.is_empty() {
            return Err(NodeError::invalid_input(format!(
                "input `filename`: {} words cannot be saved under the one name {name}",
                embeddings.len()
            ))
            .help("Leave the file name empty: each word is then saved under its own."));
        }
        let overwrite = choice(inputs, "if_exists", &IF_EXISTS)?.unwrap_or(false);
        Ok(Self { embeddings, name, overwrite })
    }

    /// The file's stem for a word.
    fn stem(&self, embedding: &Embedding) -> String {
        if self.name.is_empty() { file_stem_for(&embedding.name) } else { self.name.clone() }
    }
}

impl Node for SaveEmbedding {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableSaveEmbedding", "Save Embedding")
            .category(CATEGORY)
            .description("Saves learned words as .safetensors files in the embeddings folder.")
            .search_aliases(["textual inversion", "ti", "export embedding"])
            .input(InputSpec::new("embedding", EMBEDDING).tooltip("The learned words."))
            .input(InputSpec::string("filename").default("").optional().tooltip(
                "Name of the file: letters, digits, and _ . - only. Empty: made from the word.",
            ))
            .input(
                InputSpec::combo("if_exists", IF_EXISTS.map(|(name, _)| name)).default("new version").optional().tooltip(
                    "What to do when there is a file of that name with other vectors: number the new one, or replace the old one.",
                ),
            )
            .output(OutputSpec::new("path", "STRING").tooltip("Where the word was saved; several stand on a line each."))
            .output(OutputSpec::new("prompt", "STRING").tooltip("`embedding:name`, to be used in a prompt."))
            .output_node()
    }

    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        let name = inputs.optional_string("filename")?.unwrap_or_default().trim();
        if name.is_empty() { Ok(()) } else { check_file_name(name).map_err(node_error) }
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let inputs = SaveEmbeddingInputs::parse(&inputs)?;
        let root = host.folder(folder::EMBEDDINGS)?;
        make_folder(&root)?;
        let (mut paths, mut prompts) = (Vec::new(), Vec::new());
        for embedding in &inputs.embeddings {
            host.check_cancelled()?;
            let (path, stem) = free_place(&root, &inputs.stem(embedding), embedding, inputs.overwrite)?;
            embedding.save(&path).map_err(node_error)?;
            host.log(Level::Info, &format!("saved {} as {}", embedding.name, path.display()));
            paths.push(path.display().to_string());
            prompts.push(format!("embedding:{stem}"));
        }
        let (paths, prompts) = (paths.join("\n"), prompts.join(" "));
        let text = format!("{paths}\n{prompts}");
        Ok(Outputs::new().result(paths).result(prompts).ui_text(text))
    }
}

/// `stem.safetensors`, or with a number behind if there is a file of that name with other contents.
fn free_place(
    root: &Path,
    stem: &str,
    embedding: &Embedding,
    overwrite: bool,
) -> Result<(PathBuf, String), NodeError> {
    let bytes = embedding.to_safetensors().map_err(node_error)?;
    let mut number = 1;
    loop {
        let name = if number == 1 { stem.to_string() } else { format!("{stem}-{number}") };
        let path = root.join(format!("{name}.safetensors"));
        let same = || std::fs::read(&path).is_ok_and(|found| found == bytes);
        if overwrite || !path.exists() || same() {
            return Ok((path, name));
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::embeddings_into;
    use crate::learning::tests::word;
    use crate::testing::Home;

    fn save(home: &Home, words: &[Embedding], name: &str, if_exists: &str) -> Result<Vec<String>, NodeError> {
        let value = embeddings_into(words).unwrap();
        let inputs =
            Inputs::new().with("embedding", value).with("filename", name).with("if_exists", if_exists);
        let outputs = home.run(&SaveEmbedding, inputs)?;
        Ok(outputs.results.iter().map(|value| value.as_str().unwrap().to_string()).collect())
    }

    #[test]
    fn a_file_with_other_vectors_is_kept() {
        let home = Home::new();
        let prompt = |words: &[Embedding], mode: &str| save(&home, words, "", mode).unwrap()[1].clone();
        assert_eq!(prompt(&[word("<zorvo>", 1, 8)], "new version"), "embedding:zorvo");
        assert_eq!(prompt(&[word("<zorvo>", 1, 8)], "new version"), "embedding:zorvo");
        assert_eq!(prompt(&[word("<zorvo>", 2, 8)], "new version"), "embedding:zorvo-2");
        assert_eq!(prompt(&[word("<zorvo>", 3, 8)], "overwrite"), "embedding:zorvo");
        assert_eq!(Embedding::load(&home.path("embeddings/zorvo.safetensors")).unwrap().count(), 3);
        assert_eq!(Embedding::load(&home.path("embeddings/zorvo-2.safetensors")).unwrap().count(), 2);
        let several = save(&home, &[word("a", 1, 8), word("b", 1, 8)], "", "overwrite").unwrap();
        assert_eq!(several[1], "embedding:a embedding:b");
    }

    #[test]
    fn names_that_prompts_cannot_spell_are_refused() {
        let home = Home::new();
        assert!(save(&home, &[word("a", 1, 8)], "../a", "overwrite").unwrap_err().message.contains("../a"));
        assert!(SaveEmbedding.validate(&Inputs::new().with("filename", "two words")).is_err());
        assert!(save(&home, &[word("a", 1, 8), word("b", 1, 8)], "x", "overwrite").is_err());
        assert!(save(&home, &[], "x", "overwrite").is_err());
    }
}
