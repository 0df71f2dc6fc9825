//! A tokenizer as the files that it can be read from.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokenizers::{ModelWrapper, NormalizerWrapper};

use super::{Tokenizer, bert, clip};
use crate::{Error, Result};

impl Tokenizer {
    /// The class that transformers reads the files with.
    pub fn class(&self) -> &'static str {
        match self.inner.get_model() {
            ModelWrapper::WordPiece(_) => "BertTokenizer",
            _ => "CLIPTokenizer",
        }
    }

    /// The texts of the files of a `tokenizer/` folder, by name, of which [`from_dir`](Self::from_dir) and transformers make this tokenizer.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if a special token has no name.
    pub fn files(&self) -> Result<BTreeMap<String, String>> {
        let model = value_of(self.inner.get_model())?;
        let special = self.special_tokens()?;
        let mut config = special.clone();
        config.insert("tokenizer_class".into(), self.class().into());
        config.insert("model_max_length".into(), self.max_length.into());
        let mut files = BTreeMap::new();
        if let ModelWrapper::WordPiece(_) = self.inner.get_model() {
            files.insert(bert::VOCAB.to_owned(), lines_by_id(&model["vocab"]));
            if let Some(NormalizerWrapper::BertNormalizer(normalizer)) = self.inner.get_normalizer() {
                config.insert("do_lower_case".into(), normalizer.lowercase.into());
                config.insert("strip_accents".into(), json!(normalizer.strip_accents));
                config.insert("tokenize_chinese_chars".into(), normalizer.handle_chinese_chars.into());
            }
        } else {
            files.insert(clip::VOCAB.to_owned(), model["vocab"].to_string());
            files.insert(clip::MERGES.to_owned(), merges(&model["merges"]));
            config.insert("do_lower_case".into(), true.into());
            config.insert("add_prefix_space".into(), false.into());
            config.insert("errors".into(), "replace".into());
        }
        files.insert("special_tokens_map.json".into(), format!("{:#}\n", Value::Object(special)));
        files.insert("tokenizer_config.json".into(), format!("{:#}\n", Value::Object(config)));
        Ok(files)
    }

    /// Whether every text becomes the same ids. Names of special tokens in other letters (`<|ENDOFTEXT|>`) do not count: folders differ in whether
    /// they are seen.
    pub fn is_like(&self, other: &Self) -> Result<bool> {
        let ids = |t: &Self| (t.bos, t.eos, t.pad, t.unknown, t.max_length);
        Ok(ids(self) == ids(other)
            && value_of(self.inner.get_normalizer())? == value_of(other.inner.get_normalizer())?
            && value_of(self.inner.get_model())? == value_of(other.inner.get_model())?)
    }

    /// `special_tokens_map.json`.
    fn special_tokens(&self) -> Result<Map<String, Value>> {
        let named = |id: u32| {
            let token = self.inner.id_to_token(id);
            token.ok_or_else(|| Error::incompatible(format!("the tokenizer has no token of id {id}")))
        };
        let keys = if self.class() == "CLIPTokenizer" {
            let unknown = self.eos;
            vec![
                ("bos_token", self.bos),
                ("eos_token", self.eos),
                ("unk_token", unknown),
                ("pad_token", self.pad),
            ]
        } else {
            let [cls, sep, pad, unk, mask] = bert::SPECIAL.map(|(key, _)| key);
            let mut ids = vec![
                (cls, self.bos),
                (sep, self.eos),
                (pad, self.pad),
                (unk, self.unknown.unwrap_or(self.pad)),
            ];
            // The tokenizer needs no id of the blank, so it is the special token that is none of the others.
            let special = self.inner.get_added_tokens_decoder();
            let blank = special.keys().find(|id| ids.iter().all(|(_, other)| other != *id));
            ids.extend(blank.map(|id| (mask, *id)));
            ids
        };
        let added = self.inner.get_added_tokens_decoder();
        let written = keys.into_iter().map(|(key, id)| {
            let name = named(id)?;
            // Only an object can say that a token is looked for after lower-casing.
            let token = match added.get(&id).is_some_and(|token| token.normalized) {
                true => {
                    json!({"content": name, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false})
                }
                false => Value::String(name),
            };
            Ok((key.to_owned(), token))
        });
        written.collect()
    }
}

fn value_of(part: impl Serialize) -> Result<Value> {
    serde_json::to_value(part).map_err(|error| Error::incompatible(format!("the tokenizer: {error}")))
}

/// One pair a line, in order of rank, below the line that transformers has always skipped.
fn merges(pairs: &Value) -> String {
    let pairs = pairs.as_array().into_iter().flatten();
    let line = |pair: &Value| {
        format!("{} {}\n", pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default())
    };
    std::iter::once("#version: 0.2\n".to_owned()).chain(pairs.map(line)).collect()
}

/// One token a line, in order of id; an id that no token has is an empty line.
fn lines_by_id(vocab: &Value) -> String {
    let mut tokens: Vec<(u64, &str)> = vocab
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(token, id)| Some((id.as_u64()?, token.as_str())))
        .collect();
    tokens.sort_unstable();
    let mut lines = String::new();
    let mut next = 0;
    for (id, token) in tokens {
        lines.extend((next..id).map(|_| '\n'));
        lines += token;
        lines.push('\n');
        next = id + 1;
    }
    lines
}
