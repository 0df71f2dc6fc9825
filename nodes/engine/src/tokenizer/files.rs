//! What both kinds of tokenizer read: the files of a folder, or their texts where something else holds them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::Vocab;

use crate::{Error, Result};

/// The largest vocabulary file, CLIP's, has 1 MB; one of a thousand times that is no vocabulary.
const LARGEST_FILE: u64 = 64 << 20;

/// Where the library `tokenizers` keeps everything in one file; transformers 5 writes no other.
pub(super) const JOINT: &str = "tokenizer.json";

/// Where a tokenizer's files are.
#[derive(Clone, Copy)]
pub(super) enum Files<'a> {
    Folder(&'a Path),
    /// By name; `origin` is what holds them.
    Texts {
        origin: &'a str,
        texts: &'a BTreeMap<String, String>,
    },
}

impl Files<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(name).exists(),
            Self::Texts { texts, .. } => texts.contains_key(name),
        }
    }

    /// What errors call a file.
    pub(super) fn place(&self, name: &str) -> String {
        match self {
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Texts { .. } => format!("{self}: {name}"),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<String> {
        match self {
            Self::Folder(folder) => read(&folder.join(name)),
            Self::Texts { texts, .. } => {
                let missing = || Error::not_found(format!("{} is missing", self.place(name)));
                texts.get(name).cloned().ok_or_else(missing)
            }
        }
    }

    pub(super) fn optional_json(&self, name: &str) -> Result<Value> {
        if self.has(name) { self.json(name) } else { Ok(Value::Null) }
    }

    pub(super) fn json(&self, name: &str) -> Result<Value> {
        serde_json::from_str(&self.read(name)?)
            .map_err(|e| Error::incompatible(format!("{}: {e}", self.place(name))))
    }

    /// The tokens by id where one file is such a table: `vocab.json`, or the vocabulary inside [`JOINT`].
    pub(super) fn table(&self, name: &str, vocab: Value) -> Result<Vocab> {
        let pairs: HashMap<String, u32> = serde_json::from_value(vocab).map_err(|e| {
            Error::incompatible(format!("{}: not a table of token to id: {e}", self.place(name)))
        })?;
        Ok(pairs.into_iter().collect())
    }

    /// What the files say of special tokens; `joint` is the content of [`JOINT`], if the vocabulary came from there.
    pub(super) fn special_tokens(&self, joint: Option<Value>) -> Result<SpecialTokens> {
        Ok(SpecialTokens {
            config: self.optional_json("tokenizer_config.json")?,
            map: self.optional_json("special_tokens_map.json")?,
            added: joint.map_or(Value::Null, |mut joint| joint["added_tokens"].take()),
        })
    }
}

impl fmt::Display for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Texts { origin, .. } => f.write_str(origin),
        }
    }
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, &e))?.len();
    if size > LARGEST_FILE {
        return Err(Error::incompatible(format!(
            "{}: {size} bytes are too many for a tokenizer",
            path.display()
        )));
    }
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => Error::incompatible(format!("{}: not UTF-8 text", path.display())),
        _ => Error::io(path, &e),
    })
}

/// What a tokenizer's files say of its special tokens.
pub(super) struct SpecialTokens {
    /// `tokenizer_config.json`.
    pub(super) config: Value,
    /// `special_tokens_map.json`.
    map: Value,
    /// The list `added_tokens` of [`JOINT`].
    added: Value,
}

impl SpecialTokens {
    /// The token of that key (`pad_token`), which is written as a string or as an object with `content`. The map is what transformers 4 saved last;
    /// some folders have only one of the two.
    pub(super) fn name(&self, key: &str) -> Option<String> {
        let token = self.map.get(key).or_else(|| self.config.get(key))?;
        Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
    }

    /// Whether a special token is looked for after lower-casing (`<|ENDOFTEXT|>` is then one, too): as the files say, else not, as in transformers 5.
    pub(super) fn is_normalized(&self, token: &str, key: &str) -> bool {
        let is_it = |entry: &&Value| entry.get("content").and_then(Value::as_str) == Some(token);
        let decoder = self.config.get("added_tokens_decoder").and_then(Value::as_object);
        let listed = decoder.and_then(|added| added.values().find(is_it));
        let listed = listed.or_else(|| self.added.as_array()?.iter().find(is_it));
        let named = [&self.map, &self.config].map(|file| file.get(key));
        let said = |entry: Option<&Value>| entry?.get("normalized")?.as_bool();
        said(listed).or_else(|| said(named[0])).or_else(|| said(named[1])).unwrap_or(false)
    }
}
