//! BERT's word pieces; every setting is Hugging Face's (`transformers/models/bert/tokenization_bert.py`).

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::Tokenizer;
use super::files::{Files, JOINT};
use crate::{Error, Result};

/// The vocabulary of `bert-base-uncased`, one token a line in order of id (Devlin et al. 2018; see NOTICE).
const BERT_VOCAB: &str = include_str!("data/bert_vocab.txt");
/// What latent diffusion asks its tokenizer for, whatever the tokenizer's own limit is: 512 in BERT, for the encoder's 77 places.
const LENGTH: usize = 77;

pub(super) const VOCAB: &str = "vocab.txt";

/// The special tokens: begin, end, padding, what cannot be spelt, and the blank that BERT was trained to fill.
const CLS: usize = 0;
const SEP: usize = 1;
const PAD: usize = 2;
const UNK: usize = 3;
pub(super) const SPECIAL: [(&str, &str); 5] = [
    ("cls_token", "[CLS]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("unk_token", "[UNK]"),
    ("mask_token", "[MASK]"),
];

/// What a tokenizer is made of.
struct Parts {
    vocab: Vocab,
    /// In the order of [`SPECIAL`], each with whether it is looked for after lower-casing.
    special: [(String, bool); 5],
    normalizer: BertNormalizer,
    max_length: usize,
}

/// The tokenizer of `bert-base-uncased`.
pub(super) fn bert() -> Result<Tokenizer> {
    let parts = Parts {
        vocab: read_vocab(BERT_VOCAB),
        special: SPECIAL.map(|(_, token)| (token.to_owned(), false)),
        normalizer: BertNormalizer::default(),
        max_length: LENGTH,
    };
    build(parts, "BERT's vocabulary")
}

/// `joint` is the content of [`JOINT`], if that is all there is.
pub(super) fn from_files(files: Files<'_>, mut joint: Option<Value>) -> Result<Tokenizer> {
    let (vocab, place) = match &mut joint {
        None => (read_vocab(&files.read(VOCAB)?), files.place(VOCAB)),
        Some(joint) => (files.table(JOINT, joint["model"]["vocab"].take())?, files.place(JOINT)),
    };
    let tokens = files.special_tokens(joint)?;
    let special = SPECIAL.map(|(key, usual)| {
        let token = tokens.name(key).unwrap_or(usual.to_owned());
        let normalized = tokens.is_normalized(&token, key);
        (token, normalized)
    });
    let flag = |key: &str| tokens.config.get(key).and_then(Value::as_bool);
    let normalizer = BertNormalizer::new(
        true,
        flag("tokenize_chinese_chars").unwrap_or(true),
        flag("strip_accents"),
        flag("do_lower_case").unwrap_or(true),
    );
    let max_length = match tokens.config.get("model_max_length").and_then(Value::as_u64) {
        Some(n @ 3..=77) => n as usize,
        _ => LENGTH,
    };
    build(Parts { vocab, special, normalizer, max_length }, &place)
}

fn build(parts: Parts, origin: &str) -> Result<Tokenizer> {
    let Parts { vocab, special, normalizer, max_length } = parts;
    let mut ids = [0; 5];
    for (id, (token, _)) in ids.iter_mut().zip(&special) {
        *id = vocab.get(token).copied().ok_or_else(|| {
            Error::incompatible(format!("{origin}: no token {token}"))
                .help("a BERT vocabulary is needed: one token a line, the special tokens among them")
        })?;
    }
    let vocab_size = vocab.values().max().map_or(0, |id| *id as usize + 1);
    let lib = |e: &dyn std::fmt::Display| Error::incompatible(format!("{origin}: {e}"));
    let model = WordPiece::builder()
        .vocab(vocab)
        .unk_token(special[UNK].0.clone())
        .continuing_subword_prefix("##".into())
        .max_input_chars_per_word(100)
        .build()
        .map_err(|e| lib(&e))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner.with_normalizer(Some(normalizer)).map_err(|e| lib(&e))?;
    inner.with_pre_tokenizer(Some(BertPreTokenizer));
    inner.with_decoder(Some(Decoder::default()));
    inner
        .add_special_tokens(
            special.map(|(token, normalized)| AddedToken::from(token, true).normalized(normalized)),
        )
        .map_err(|e| lib(&e))?;
    Ok(Tokenizer {
        inner,
        bos: ids[CLS],
        eos: ids[SEP],
        pad: ids[PAD],
        unknown: Some(ids[UNK]),
        max_length,
        vocab_size,
    })
}

/// The number of a line is its token's id. Of a token that is there twice the last counts, as in Hugging Face's; an empty line is no token.
fn read_vocab(text: &str) -> Vocab {
    text.lines().zip(0..).filter(|(token, _)| !token.is_empty()).map(|(t, id)| (t.to_owned(), id)).collect()
}
