//! Prompts to encoder states, with learned words in them. Knows folders of embeddings, but no host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use candle_core::{DType, Device, Tensor};
use vocable_engine::embedding::{Embedding, encoder_for_width, file_stem_for, find_embedding};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::prompt::{
    FoundEmbedding, PromptToken, TokenizedPrompt, Word, apply_weights, tokenize_prompt,
};
use vocable_engine::{CancelToken, Error, Result};

use crate::handles::Clip;

/// An encoded prompt.
pub(crate) struct Encoded {
    /// `[1, 77·chunks, d]`
    pub(crate) hidden: Tensor,
    /// `[1, d]`: of the first chunk.
    pub(crate) pooled: Option<Tensor>,
}

/// Where the words of a prompt are looked up: embeddings that are linked, by their word, and files, as `embedding:name`.
pub(crate) struct Library {
    linked: Vec<Embedding>,
    folders: Vec<PathBuf>,
    encoder: &'static str,
    width: usize,
    /// Files that were asked for.
    files: BTreeMap<String, Embedding>,
    /// Files that exist and cannot be used.
    unusable: Vec<Error>,
}

/// A prompt in tokens, and the matrix of each embedding in it.
pub(crate) struct Spelled {
    pub(crate) prompt: TokenizedPrompt,
    matrices: Vec<Tensor>,
}

impl Library {
    /// For the text encoder of `clip`. A linked embedding of another width is refused.
    pub(crate) fn new(clip: &Clip, linked: Vec<Embedding>, folders: Vec<PathBuf>) -> Result<Self> {
        let width = clip.encoder.config().hidden_size;
        let encoder = encoder_for_width(width);
        for embedding in &linked {
            embedding.for_encoder(encoder, width)?;
        }
        Ok(Self { linked, folders, encoder, width, files: BTreeMap::new(), unusable: Vec::new() })
    }

    /// The linked embeddings.
    pub(crate) fn linked(&self) -> &[Embedding] {
        &self.linked
    }

    /// Cuts `text` into tokens. Files that are missing are in [`TokenizedPrompt::missing`], as are those that [`unusable`](Self::unusable) tells of.
    pub(crate) fn spell(&mut self, clip: &Clip, text: &str) -> Result<Spelled> {
        let words: Vec<Word> = self.linked.iter().map(|word| Word::new(&word.name, word.count())).collect();
        let prompt = tokenize_prompt(&clip.tokenizer, text, &words, &mut |name: &str| self.look_up(name))?;
        let matrices = prompt.found.iter().map(|found| {
            let embedding = match found.word {
                Some(index) => self.linked.get(index),
                None => self.files.get(&found.name),
            };
            let lost = || Error::not_found(format!("embedding {} is gone", found.name));
            embedding.ok_or_else(lost)?.for_encoder(self.encoder, self.width).cloned()
        });
        let matrices = matrices.collect::<Result<_>>()?;
        Ok(Spelled { prompt, matrices })
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
        let linked = self.linked.iter().find(|word| word.name == name || file_stem_for(&word.name) == name);
        let embedding = match linked {
            Some(word) => Ok(word.clone()),
            None => Embedding::load(&find_embedding(&self.folders, name)?),
        };
        let fitting = embedding.and_then(|embedding| {
            embedding.for_encoder(self.encoder, self.width)?;
            Ok(embedding)
        });
        match fitting {
            Ok(embedding) => {
                let count = embedding.count();
                self.files.insert(name.to_string(), embedding);
                Some(count)
            }
            Err(error) => {
                self.unusable.push(error);
                None
            }
        }
    }
}

/// Encodes a prompt: chunk by chunk, weighted against the empty prompt, as ComfyUI does.
pub(crate) fn encode(clip: &Clip, spelled: &Spelled, cancel: &CancelToken) -> Result<Encoded> {
    let (encoder, tokenizer) = (&clip.encoder, &clip.tokenizer);
    let config = encoder.config();
    let first_vector = config.vocab_size as u32;
    let mut offsets = Vec::new();
    let mut rows = 0;
    for matrix in &spelled.matrices {
        offsets.push(rows as u32);
        rows += matrix.dim(0)?;
    }
    let vectors = match spelled.matrices.as_slice() {
        [] => Tensor::zeros((1, config.hidden_size), DType::F32, &Device::Cpu)?,
        matrices => Tensor::cat(matrices, 0)?,
    };
    let vectors = Traced::constant(vectors.to_device(encoder.device())?);

    let id = |token: &PromptToken| match *token {
        PromptToken::Id(id) => id,
        PromptToken::Vector { embedding, row } => first_vector + offsets[embedding] + row as u32,
    };
    let chunks = &spelled.prompt.chunks;
    let mut ids: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.ids.iter().map(id)).collect();
    let weighted = chunks.iter().any(|chunk| chunk.weights.iter().any(|weight| *weight != 1.0));
    if weighted {
        let empty = tokenize_prompt(tokenizer, "", &[], &mut |_: &str| None)?;
        ids.extend(empty.chunks.iter().flat_map(|chunk| chunk.ids.iter().map(id)));
    }
    let batch = chunks.len() + usize::from(weighted);
    let tape = Tape::new(cancel.clone());
    let encoded = encoder.forward(&tape, &ids, batch, &vectors, clip.skip, Some(tokenizer.eos()))?;
    let states = encoded.hidden.into_value().to_dtype(DType::F32)?;
    let mut hidden = states.narrow(0, 0, chunks.len())?;
    if weighted {
        hidden = apply_weights(&hidden, &states.narrow(0, chunks.len(), 1)?, &spelled.prompt.weights())?;
    }
    let (chunks, tokens, width) = hidden.dims3()?;
    let pooled = encoded.pooled.map(|pooled| pooled.narrow(0, 0, 1)).transpose()?;
    Ok(Encoded { hidden: hidden.contiguous()?.reshape((1, chunks * tokens, width))?, pooled })
}

/// Size and time of each file that `text` may mean by `embedding:name`. Changes when such a file does; names too many do no harm.
pub(crate) fn files_stamp(folders: &[PathBuf], text: &str) -> String {
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
