//! What both kinds of tokenizer read: the files of a folder, or their texts where something else holds them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The largest vocabulary file, CLIP's, has 1 MB; one of a thousand times that is no vocabulary.
const LARGEST_FILE: u64 = 64 << 20;

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
        if !self.has(name) {
            return Ok(Value::Null);
        }
        serde_json::from_str(&self.read(name)?)
            .map_err(|e| Error::incompatible(format!("{}: {e}", self.place(name))))
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

/// A token is written as a string or as an object with `content`.
pub(super) fn token_name(value: &Value, key: &str) -> Option<String> {
    let token = value.get(key)?;
    Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
}

/// Whether a special token is looked for after lower-casing (`<|ENDOFTEXT|>` is then one, too): as the files say, else not, as in transformers 5.
pub(super) fn is_normalized(config: &Value, map: &Value, token: &str, key: &str) -> bool {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object).and_then(|added| {
        added.values().find(|t| t.get("content").and_then(Value::as_str) == Some(token))?.get("normalized")
    });
    let named = |value: &'_ Value| value.get(key).and_then(|t| t.get("normalized")).and_then(Value::as_bool);
    listed.and_then(Value::as_bool).or_else(|| named(map)).or_else(|| named(config)).unwrap_or(false)
}
