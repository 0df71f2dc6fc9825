//! Nodes that teach a model a word, and that use what it learned.

mod contact_sheet;
mod encode_prompt;
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
}
