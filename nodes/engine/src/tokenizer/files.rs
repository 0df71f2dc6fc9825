//! What both kinds of tokenizer read from a folder.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// The largest vocabulary file, CLIP's, has 1 MB; one of a thousand times that is no vocabulary.
const LARGEST_FILE: u64 = 64 << 20;

pub(super) fn read(path: &Path) -> Result<String> {
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

pub(super) fn optional_json(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&read(path)?).map_err(|e| Error::incompatible(format!("{}: {e}", path.display())))
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
