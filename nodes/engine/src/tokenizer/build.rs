//! From files to a tokenizer; every setting is Hugging Face's (`transformers/models/clip/tokenization_clip.py`).

use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::{Error, Result};

const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";
/// CLIP's words: contractions, letters, single digits, everything else that is no space.
const PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// CLIP's vocabulary file has 1 MB; one of a thousand times that is no vocabulary.
const LARGEST_FILE: u64 = 64 << 20;

pub(super) fn from_dir(dir: &Path) -> Result<Tokenizer> {
    let vocab_path = dir.join("vocab.json");
    let vocab = read_vocab(&vocab_path)?;
    let merges = read_merges(&dir.join("merges.txt"))?;
    let id = |token: &str, why: &str| {
        vocab.get(token).copied().ok_or_else(|| {
            Error::incompatible(format!("{}: no token {token} ({why})", vocab_path.display()))
                .help("a CLIP vocabulary is needed")
        })
    };
    let (bos, eos) = (id(BOS, "begin of text")?, id(EOS, "end of text")?);
    let config = optional_json(&dir.join("tokenizer_config.json"))?;
    let map = optional_json(&dir.join("special_tokens_map.json"))?;
    // The map is what transformers saved last; some folders have only one of the two.
    let pad = match token_name(&map, "pad_token").or_else(|| token_name(&config, "pad_token")) {
        Some(name) => id(&name, "padding")?,
        None => eos,
    };
    // Some configurations say 1e30 for "no limit"; CLIP has 77 positions.
    let max_length = match config.get("model_max_length").and_then(Value::as_u64) {
        Some(n @ 3..=4096) => n as usize,
        _ => 77,
    };
    let vocab_size = vocab.values().max().map_or(0, |id| *id as usize + 1);

    let lib = |e: &dyn std::fmt::Display| Error::incompatible(format!("{}: {e}", dir.display()));
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(EOS.into())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".into())
        .build()
        .map_err(|e| lib(&e))?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(|e| lib(&e))?;
    inner
        .with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
        .map_err(|e| lib(&e))?;
    let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Removed, true)
        .map_err(|e| lib(&e))?;
    inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        split.into(),
        ByteLevel::new(false, true, true).into(),
    ])));
    inner.with_decoder(Some(ByteLevel::default()));
    let special = |token: &str, key: &str| {
        AddedToken::from(token, true).normalized(is_normalized(&config, &map, token, key))
    };
    inner.add_special_tokens([special(BOS, "bos_token"), special(EOS, "eos_token")]).map_err(|e| lib(&e))?;
    Ok(Tokenizer { inner, bos, eos, pad, max_length, vocab_size })
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

fn read_vocab(path: &Path) -> Result<Vocab> {
    let pairs: std::collections::HashMap<String, u32> = serde_json::from_str(&read(path)?)
        .map_err(|e| Error::incompatible(format!("{}: not a table of token to id: {e}", path.display())))?;
    Ok(pairs.into_iter().collect())
}

/// One pair per line, in order of rank; a first line that begins with `#version` is no pair.
fn read_merges(path: &Path) -> Result<Merges> {
    let text = read(path)?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#version") || line.trim().is_empty() {
            continue;
        }
        match line.trim_end().split(' ').collect::<Vec<_>>().as_slice() {
            [a, b] => merges.push(((*a).to_owned(), (*b).to_owned())),
            _ => {
                let message =
                    format!("{}: line {} is {line:?}, wanted two tokens", path.display(), number + 1);
                return Err(Error::incompatible(message));
            }
        }
    }
    Ok(merges)
}

fn optional_json(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&read(path)?).map_err(|e| Error::incompatible(format!("{}: {e}", path.display())))
}

/// A token is written as a string or as an object with `content`.
fn token_name(value: &Value, key: &str) -> Option<String> {
    let token = value.get(key)?;
    Some(token.as_str().or_else(|| token.get("content")?.as_str())?.to_owned())
}

/// Whether a special token is looked for after lower-casing (`<|ENDOFTEXT|>` is then one, too): as the files say, else not, as in transformers 5.
fn is_normalized(config: &Value, map: &Value, token: &str, key: &str) -> bool {
    let listed = config.get("added_tokens_decoder").and_then(Value::as_object).and_then(|added| {
        added.values().find(|t| t.get("content").and_then(Value::as_str) == Some(token))?.get("normalized")
    });
    let named = |value: &'_ Value| value.get(key).and_then(|t| t.get("normalized")).and_then(Value::as_bool);
    listed.and_then(Value::as_bool).or_else(|| named(map)).or_else(|| named(config)).unwrap_or(false)
}
