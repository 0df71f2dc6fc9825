//! Nodes that teach a model a word, and that use what it learned.

mod concept_source;
mod contact_sheet;
mod encode_prompt;
mod export_model;
mod inspect_checkpoint;
mod inspect_embedding;
mod load_concept_images;
mod load_embedding;
mod pictures;
mod save_embedding;
mod train_textual_inversion;

use vocable_engine::embedding::Embedding;
use vocable_host_sdk::abi::{InputSpec, Inputs, NodeError, Value};

pub(crate) use contact_sheet::ContactSheet;
pub(crate) use encode_prompt::EncodePrompt;
pub(crate) use export_model::ExportModel;
pub(crate) use inspect_checkpoint::InspectCheckpoint;
pub(crate) use inspect_embedding::InspectEmbedding;
pub(crate) use load_concept_images::LoadConceptImages;
pub(crate) use load_embedding::LoadEmbedding;
pub(crate) use save_embedding::SaveEmbedding;
pub(crate) use train_textual_inversion::TrainTextualInversion;

/// Where these nodes stand in the menu.
const CATEGORY: &str = "textual inversion";

/// The socket of learned words.
const EMBEDDING: &str = "TI_EMBEDDING";

/// The input to which a node that makes a word adds it.
fn chain_input() -> InputSpec {
    InputSpec::new("embeddings", EMBEDDING)
        .optional()
        .tooltip("Other learned words, to be handed on together with this one.")
}

/// Adds a word. Two of one name could not be told apart in a prompt.
fn add(words: &mut Vec<Embedding>, word: Embedding) -> Result<(), NodeError> {
    if words.iter().any(|other| other.name == word.name) {
        return Err(NodeError::invalid_input(format!("there are two embeddings of the name {}", word.name))
            .help("Give one of them another word."));
    }
    words.push(word);
    Ok(())
}

/// What the name in the input `name` stands for; `None` if it was left out. Lists of names are checked before a graph runs, but a name may come by
/// link, and a graph by hand.
fn choice<T: Copy>(inputs: &Inputs, name: &str, options: &[(&str, T)]) -> Result<Option<T>, NodeError> {
    let Some(found) = inputs.optional_string(name)? else { return Ok(None) };
    match options.iter().find(|(option, _)| *option == found) {
        Some((_, value)) => Ok(Some(*value)),
        None => {
            let names: Vec<&str> = options.iter().map(|(option, _)| *option).collect();
            Err(NodeError::invalid_input(format!(
                "input `{name}`: `{found}` is not one of: {}",
                names.join(", ")
            ))
            .help("Choose one of these."))
        }
    }
}

/// For nodes that take lists: the first value of each input.
fn flat(inputs: &Inputs) -> Inputs {
    inputs.iter().fold(Inputs::new(), |flat, (name, value)| match value {
        Value::List(values) => flat.with(name, values.first().cloned().unwrap_or_default()),
        value => flat.with(name, value.clone()),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use candle_core::{Device, Tensor};

    use super::*;

    /// A learned word of `count` vectors.
    pub(crate) fn word(name: &str, count: usize, width: usize) -> Embedding {
        let values: Vec<f32> = (0..count * width).map(|i| i as f32 * 0.01).collect();
        let vectors = Tensor::from_vec(values, (count, width), &Device::Cpu).unwrap();
        let metadata = BTreeMap::from([("steps".to_string(), "7".to_string())]);
        Embedding::new(name, BTreeMap::from([("clip_l".to_string(), vectors)]), metadata).unwrap()
    }

    #[test]
    fn a_name_that_is_not_in_the_list_is_an_error_that_tells_the_list() {
        let options = [("centre", 1), ("none", 2)];
        let find = |value: &str| choice(&Inputs::new().with("crop", value), "crop", &options);
        assert_eq!(find("none").unwrap(), Some(2));
        assert_eq!(choice(&Inputs::new(), "crop", &options).unwrap(), None);
        let error = find("center").unwrap_err();
        assert!(error.message.contains("`crop`: `center` is not one of: centre, none"), "{error}");
    }
}
