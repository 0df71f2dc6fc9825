//! CLIP's byte pairs; every setting is Hugging Face's (`transformers/models/clip/tokenization_clip.py`).

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::Tokenizer;
use super::files::{Files, JOINT};
use crate::{Error, Result};

const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";
pub(super) const VOCAB: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
/// CLIP's words: contractions, letters, single digits, everything else that is no space.
const PATTERN: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's own merges, in order of rank (Radford et al. 2021; see NOTICE).
const CLIP_MERGES: &str = include_str!("data/clip_merges.txt");

/// What a tokenizer is made of.
struct Parts {
    vocab: Vocab,
    merges: Merges,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: usize,
    /// Whether the two special tokens are looked for after lower-casing.
    normalized: [bool; 2],
}

/// The tokenizer of CLIP, from which all vocabularies of Stable Diffusion descend.
pub(super) fn clip() -> Result<Tokenizer> {
    let merges: Merges = CLIP_MERGES
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect();
    // Ids: the bytes, the bytes at the end of a word, the merges, the two special tokens.
    let bytes = byte_characters();
    let mut tokens: Vec<String> = bytes.iter().map(char::to_string).collect();
    tokens.extend(bytes.iter().map(|c| format!("{c}</w>")));
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend([BOS.to_owned(), EOS.to_owned()]);
    let end = tokens.len() as u32;
    let vocab = tokens.into_iter().zip(0..).collect();
    let parts = Parts {
        vocab,
        merges,
        bos: end - 2,
        eos: end - 1,
        pad: end - 1,
        max_length: 77,
        normalized: [false; 2],
    };
    build(parts, "CLIP's vocabulary")
}

/// The characters that stand for the 256 bytes, in the vocabulary's order: those that can be printed, then the others as U+0100 and up.
fn byte_characters() -> Vec<char> {
    let printed: Vec<u32> = (33..127).chain(161..173).chain(174..256).collect();
    let others = (0..256u32).filter(|byte| !printed.contains(byte)).count() as u32;
    printed.iter().copied().chain(256..256 + others).filter_map(char::from_u32).collect()
}

/// `joint` is the content of [`JOINT`], if that is all there is.
pub(super) fn from_files(files: Files<'_>, mut joint: Option<Value>) -> Result<Tokenizer> {
    let (vocab, merges, place) = match joint.as_mut().map(|joint| &mut joint["model"]) {
        None => (read_vocab(files)?, read_merges(files)?, files.place(VOCAB)),
        Some(model) => {
            let merges = joint_merges(&model["merges"], files)?;
            (files.table(JOINT, model["vocab"].take())?, merges, files.place(JOINT))
        }
    };
    let id = |token: &str, why: &str| {
        vocab.get(token).copied().ok_or_else(|| {
            Error::incompatible(format!("{place}: no token {token} ({why})"))
                .help("a CLIP vocabulary is needed")
        })
    };
    let (bos, eos) = (id(BOS, "begin of text")?, id(EOS, "end of text")?);
    let special = files.special_tokens(joint)?;
    let pad = match special.name("pad_token") {
        Some(name) => id(&name, "padding")?,
        None => eos,
    };
    // Some configurations say 1e30 for "no limit"; CLIP has 77 positions.
    let max_length = match special.config.get("model_max_length").and_then(Value::as_u64) {
        Some(n @ 3..=4096) => n as usize,
        _ => 77,
    };
    let normalized =
        [(BOS, "bos_token"), (EOS, "eos_token")].map(|(token, key)| special.is_normalized(token, key));
    build(Parts { vocab, merges, bos, eos, pad, max_length, normalized }, &files.to_string())
}

fn build(parts: Parts, origin: &str) -> Result<Tokenizer> {
    let Parts { vocab, merges, bos, eos, pad, max_length, normalized } = parts;
    let vocab_size = vocab.values().max().map_or(0, |id| *id as usize + 1);
    let lib = |e: &dyn std::fmt::Display| Error::incompatible(format!("{origin}: {e}"));
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
    let special = |token: &str, normalized| AddedToken::from(token, true).normalized(normalized);
    inner
        .add_special_tokens([special(BOS, normalized[0]), special(EOS, normalized[1])])
        .map_err(|e| lib(&e))?;
    Ok(Tokenizer { inner, bos, eos, pad, unknown: None, max_length, vocab_size })
}

fn read_vocab(files: Files<'_>) -> Result<Vocab> {
    files.table(VOCAB, files.json(VOCAB)?)
}

/// The pairs in order of rank, each a list of two or, from older libraries, a text with a blank between them.
fn joint_merges(merges: &Value, files: Files<'_>) -> Result<Merges> {
    let pair = |entry: &Value| {
        let (a, b) = match entry {
            Value::String(text) => text.split_once(' ')?,
            Value::Array(two) if two.len() == 2 => (two[0].as_str()?, two[1].as_str()?),
            _ => return None,
        };
        Some((a.to_owned(), b.to_owned()))
    };
    let wanted =
        |what: String| Error::incompatible(format!("{}: {what}, wanted two tokens", files.place(JOINT)));
    let entries = merges.as_array().ok_or_else(|| wanted("no list of merges".to_owned()))?;
    entries.iter().map(|entry| pair(entry).ok_or_else(|| wanted(format!("merge {entry}")))).collect()
}

/// One pair per line, in order of rank; a first line that begins with `#version` is no pair.
fn read_merges(files: Files<'_>) -> Result<Merges> {
    let text = files.read(MERGES)?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#version") || line.trim().is_empty() {
            continue;
        }
        match line.trim_end().split(' ').collect::<Vec<_>>().as_slice() {
            [a, b] => merges.push(((*a).to_owned(), (*b).to_owned())),
            _ => {
                let message =
                    format!("{}: line {} is {line:?}, wanted two tokens", files.place(MERGES), number + 1);
                return Err(Error::incompatible(message));
            }
        }
    }
    Ok(merges)
}
