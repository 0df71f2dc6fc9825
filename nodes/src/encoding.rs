//! Prompts to encoder states, with learned words in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use candle_core::{DType, Device, Tensor};
use vocable_engine::embedding::{Embedding, file_stem_for, find_embedding};
use vocable_engine::models::TextEncoders;
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::prompt::{
    FoundEmbedding, PromptToken, TokenizedPrompt, Word, apply_weights, tokenize_prompt,
};
use vocable_engine::sampling::Prompt;
use vocable_engine::{CancelToken, Error, Result};
use vocable_host_sdk::abi::{Folders, HostContext, Inputs, NodeError, folder};

use crate::handles::Clip;

/// Where the words of a prompt are looked up: embeddings that are linked, by their word, and files, as `embedding:name`.
pub(crate) struct Library {
    linked: Vec<Embedding>,
    folders: Vec<PathBuf>,
    text: TextEncoders,
    /// Files that were asked for.
    files: BTreeMap<String, Embedding>,
    /// Files that exist and cannot be used, and why.
    refused: BTreeSet<String>,
    unusable: Vec<Error>,
}

/// A prompt in tokens, and the matrix of each embedding in it.
pub(crate) struct Spelled {
    /// In the tokens of the first text encoder.
    pub(crate) prompt: TokenizedPrompt,
    /// In those of the others, which find the same embeddings.
    others: Vec<TokenizedPrompt>,
    /// `[n, D]` each.
    matrices: Vec<Tensor>,
}

impl Library {
    /// For the text encoders of `clip`. A linked embedding that was learned for others is refused.
    pub(crate) fn new(clip: &Clip, linked: Vec<Embedding>, folders: Vec<PathBuf>) -> Result<Self> {
        for embedding in &linked {
            clip.fits(embedding)?;
        }
        let text = clip.text.clone();
        Ok(Self {
            linked,
            folders,
            text,
            files: BTreeMap::new(),
            refused: BTreeSet::new(),
            unusable: Vec::new(),
        })
    }

    /// The linked embeddings.
    pub(crate) fn linked(&self) -> &[Embedding] {
        &self.linked
    }

    /// Cuts `text` into tokens. Files that are missing are in [`TokenizedPrompt::missing`], as are those that [`unusable`](Self::unusable) tells of.
    pub(crate) fn spell(&mut self, text: &str) -> Result<Spelled> {
        let words: Vec<Word> = self.linked.iter().map(|word| Word::new(&word.name, word.count())).collect();
        let tokenizers: Vec<_> = self.text.towers().iter().map(|tower| tower.tokenizer.clone()).collect();
        let prompts = tokenizers
            .iter()
            .map(|tokenizer| tokenize_prompt(tokenizer, text, &words, &mut |name: &str| self.look_up(name)));
        let mut others = prompts.collect::<Result<Vec<_>>>()?;
        let prompt = others.remove(0);
        let matrices = prompt.found.iter().map(|found| {
            let embedding = match found.word {
                Some(index) => self.linked.get(index),
                None => self.files.get(&found.name),
            };
            let lost = || Error::not_found(format!("embedding {} is gone", found.name));
            self.text.join(embedding.ok_or_else(lost)?)
        });
        let matrices = matrices.collect::<Result<_>>()?;
        Ok(Spelled { prompt, others, matrices })
    }

    /// Files that exist and cannot be used, with the reason.
    pub(crate) fn unusable(&self) -> &[Error] {
        &self.unusable
    }

    /// Whether what was found in a prompt is this linked word.
    pub(crate) fn is_same(&self, found: &FoundEmbedding, word: &Embedding) -> bool {
        match found.word {
            Some(index) => self.linked.get(index).is_some_and(|linked| linked.name == word.name),
            None => self.files.get(&found.name).is_some_and(|file| file.name == word.name),
        }
    }

    /// An error if `text` holds a word in angle brackets that nobody knows: almost surely a learned word that is not linked.
    pub(crate) fn require_brackets(&self, text: &str) -> Result<()> {
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c));
        let names = text.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(name, _)| name);
        for name in names.filter(|name| is_name(name)) {
            let word = format!("<{name}>");
            if !self.linked.iter().any(|linked| linked.name.contains(&word)) {
                return Err(Error::not_found(format!("no learned word is called {word}, but the prompt asks for it"))
                    .help("link the learned embedding to the input `embeddings`, or write embedding:name for a file"));
            }
        }
        Ok(())
    }

    /// How many vectors `embedding:name` has. A linked word answers to its file's name, too.
    fn look_up(&mut self, name: &str) -> Option<usize> {
        if let Some(known) = self.files.get(name) {
            return Some(known.count());
        }
        if self.refused.contains(name) {
            return None;
        }
        let linked = self.linked.iter().find(|word| word.name == name || file_stem_for(&word.name) == name);
        let embedding = match linked {
            Some(word) => Ok(word.clone()),
            None => Embedding::load(&find_embedding(&self.folders, name)?),
        };
        let fitting = embedding.and_then(|embedding| {
            self.text.join(&embedding)?;
            Ok(embedding)
        });
        match fitting {
            Ok(embedding) => {
                let count = embedding.count();
                self.files.insert(name.to_string(), embedding);
                Some(count)
            }
            Err(error) => {
                self.refused.insert(name.to_string());
                self.unusable.push(error);
                None
            }
        }
    }
}

/// Encodes a prompt: chunk by chunk, weighted against the empty prompt, as ComfyUI does. The pooled state is that of the first chunk.
pub(crate) fn encode(clip: &Clip, spelled: &Spelled, cancel: &CancelToken) -> Result<Prompt> {
    let mut offsets = Vec::new();
    let mut rows = 0;
    for matrix in &spelled.matrices {
        offsets.push(rows as u32);
        rows += matrix.dim(0)?;
    }
    let vectors = match spelled.matrices.as_slice() {
        [] => Tensor::zeros((1, clip.text.width()), DType::F32, &Device::Cpu)?,
        matrices => Tensor::cat(matrices, 0)?,
    };
    let vectors = Traced::constant(vectors.to_device(clip.text.device())?);

    let weights = spelled.prompt.weights();
    let weighted = weights.iter().flatten().any(|weight| *weight != 1.0);
    let mut ids = Vec::new();
    for (tower, prompt) in clip.text.towers().iter().zip([&spelled.prompt].into_iter().chain(&spelled.others))
    {
        let id = |token: &PromptToken| match *token {
            PromptToken::Id(id) => id,
            PromptToken::Vector { embedding, row } => tower.first_vector() + offsets[embedding] + row as u32,
        };
        let mut own: Vec<u32> = prompt.chunks.iter().flat_map(|chunk| chunk.ids.iter().map(id)).collect();
        if weighted {
            let empty = tokenize_prompt(&tower.tokenizer, "", &[], &mut |_: &str| None)?;
            own.extend(empty.chunks.iter().flat_map(|chunk| chunk.ids.iter().map(id)));
        }
        ids.push(own);
    }
    let chunks = spelled.prompt.chunks.len();
    let tape = Tape::new(cancel.clone());
    let encoded = clip.text.forward(&tape, &ids, chunks + usize::from(weighted), &vectors, true)?;
    let states = encoded.hidden.into_value().to_dtype(DType::F32)?;
    let mut hidden = states.narrow(0, 0, chunks)?;
    if weighted {
        hidden = apply_weights(&hidden, &states.narrow(0, chunks, 1)?, &weights)?;
    }
    let (chunks, tokens, width) = hidden.dims3()?;
    let pooled = encoded.pooled.map(|pooled| pooled.value().narrow(0, 0, 1)).transpose()?;
    let hidden = hidden.contiguous()?.reshape((1, chunks * tokens, width))?;
    Ok(Prompt { hidden, pooled, time_ids: None })
}

/// Changes when an embedding file does that the prompt may mean: one that the text names or, where the text comes by link and is not
/// known yet, any.
pub(crate) fn prompt_stamp(inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
    let folders = host.folders(folder::EMBEDDINGS);
    if !inputs.is_linked("text") {
        return Ok(files_stamp(&folders, inputs.optional_string("text")?.unwrap_or_default()));
    }
    let mut stamp = String::new();
    for path in folders {
        let folder_of_it = Folders::new().with(folder::EMBEDDINGS, path);
        for name in folder_of_it.files(folder::EMBEDDINGS, &[]) {
            let file = folder_of_it.find(folder::EMBEDDINGS, &name);
            stamp.push_str(&format!("{name}={};", file.as_deref().map(file_stamp).unwrap_or_default()));
        }
    }
    Ok(stamp)
}

/// Size and time of each file that `text` may mean by `embedding:name`. Changes when such a file does; names too many do no harm.
fn files_stamp(folders: &[PathBuf], text: &str) -> String {
    let mut stamp = String::new();
    for (at, keyword) in text.match_indices("embedding:") {
        let rest = &text[at + keyword.len()..];
        let word = rest.split_whitespace().next().unwrap_or_default();
        let name = word.split(['<', '[', '(', ')']).next().unwrap_or_default();
        let plain = name.trim_matches(',');
        for name in [name, plain, plain.split(':').next().unwrap_or_default()] {
            let Some(path) = find_embedding(folders, name) else { continue };
            stamp.push_str(&format!("{name}={};", file_stamp(&path)));
        }
    }
    stamp
}

/// Size and time of a file.
pub(crate) fn file_stamp(path: &std::path::Path) -> String {
    let Ok(metadata) = std::fs::metadata(path) else { return String::new() };
    let time =
        metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}@{}", metadata.len(), time.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let folders = [dir.path().to_path_buf()];
        let stamp = |text: &str| files_stamp(&folders, text);
        assert_eq!(stamp("a photo of embedding:pet"), "");
        std::fs::write(dir.path().join("pet.safetensors"), b"1").unwrap();
        let before = stamp("a photo of embedding:pet, red");
        assert!(before.starts_with("pet=1@"), "{before}");
        assert!(!stamp("(embedding:pet:1.2)").is_empty());
        std::fs::write(dir.path().join("pet.safetensors"), b"12").unwrap();
        assert_ne!(stamp("a photo of embedding:pet, red"), before);
        assert_eq!(stamp("a pet"), "");
    }
}
