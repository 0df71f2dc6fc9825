use super::*;
use crate::ErrorKind;

/// The folder of the little vocabulary that `tests/golden/prompt.py` makes.
pub(crate) fn golden_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer")
}

#[test]
fn ids_are_transformers() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/golden/prompt.json")).unwrap();
    let tokenizer = Tokenizer::from_dir(&golden_dir()).unwrap();
    let rows = golden["ids"].as_array().unwrap();
    assert!(rows.len() >= 30);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let want: Vec<u32> =
            row["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode_words(text).unwrap(), want, "{text:?}");
    }
}

#[test]
fn clips_own_ids_are_transformers() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/golden/clip_tokens.json")).unwrap();
    let tokenizer = Tokenizer::clip().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (49406, 49407, 49407));
    for row in golden["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let want: Vec<u32> =
            row["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode_words(text).unwrap(), want, "{text:?}");
    }
}

#[test]
fn special_ids_and_lookups() {
    let t = Tokenizer::from_dir(&golden_dir()).unwrap();
    assert_eq!(t.max_length(), 77);
    assert_eq!((t.pad(), t.with_pad_for_test()), (t.eos(), 0));
    assert_eq!(t.vocab_size(), t.eos() as usize + 1);
    let cat = t.token_id("cat").unwrap();
    assert_eq!(t.token(cat).unwrap(), "cat</w>");
    assert_eq!(t.token_id(" Cat "), Some(cat));
    assert_eq!(t.token_id("xylophone"), None);
    assert_eq!(t.token_id(""), None);
    assert_eq!(t.token_id("<|endoftext|>"), None);
    let ids = t.encode_words("A photo of a CAT!").unwrap();
    assert_eq!(t.decode(&ids), "a photo of a cat !");
    assert_eq!(t.decode(&[t.bos(), cat, 999_999, t.eos()]), "cat");
}

impl Tokenizer {
    fn with_pad_for_test(&self) -> u32 {
        self.clone().with_pad(0).pad()
    }
}

fn folder(files: Files<'_>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// File names and their text.
type Files<'a> = &'a [(&'a str, &'a str)];

const VOCAB: &str =
    r#"{"!":0,"a":1,"b":2,"a</w>":3,"b</w>":4,"ab</w>":5,"<|startoftext|>":6,"<|endoftext|>":7}"#;

#[test]
fn padding_and_length_come_from_the_configuration() {
    let vocab = ("vocab.json", VOCAB);
    let merges = ("merges.txt", "#version: 0.2\na b</w>\n");
    let rows: [(Files<'_>, u32, usize); 5] = [
        (&[], 7, 77),
        (&[("tokenizer_config.json", r#"{"pad_token":"!","model_max_length":40}"#)], 0, 40),
        (&[("special_tokens_map.json", r#"{"pad_token":{"content":"!","lstrip":false}}"#)], 0, 77),
        (&[("tokenizer_config.json", r#"{"model_max_length":1e30}"#)], 7, 77),
        (
            &[
                ("special_tokens_map.json", r#"{"pad_token":"!"}"#),
                ("tokenizer_config.json", r#"{"pad_token":"<|endoftext|>"}"#),
            ],
            0,
            77,
        ),
    ];
    for (more, pad, length) in rows {
        let mut files = vec![vocab, merges];
        files.extend_from_slice(more);
        let dir = folder(&files);
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!((t.pad(), t.max_length()), (pad, length), "{more:?}");
        assert_eq!(t.encode_words("ab a").unwrap(), [5, 3]);
    }
}

#[test]
fn special_tokens_in_text_follow_the_configuration() {
    let files = [("vocab.json", VOCAB), ("merges.txt", "a b</w>\n")];
    let plain = folder(&files);
    let t = Tokenizer::from_dir(plain.path()).unwrap();
    assert_eq!(t.encode_words("a<|endoftext|>").unwrap(), [3, 7]);
    assert_ne!(t.encode_words("<|ENDOFTEXT|>").unwrap(), [7]);
    for (name, text) in [
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder":{"7":{"content":"<|endoftext|>","normalized":true}}}"#,
        ),
        ("special_tokens_map.json", r#"{"eos_token":{"content":"<|endoftext|>","normalized":true}}"#),
    ] {
        let dir = folder(&[files[0], files[1], (name, text)]);
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(t.encode_words("<|ENDOFTEXT|>").unwrap(), [7], "{name}");
    }
}

#[test]
fn broken_folders_say_what_is_wrong() {
    let merges = ("merges.txt", "a b</w>\n");
    let rows: [(Files<'_>, ErrorKind, &str); 7] = [
        (&[], ErrorKind::NotFound, "vocab.json"),
        (&[("vocab.json", VOCAB)], ErrorKind::NotFound, "merges.txt"),
        (&[("vocab.json", "[1]"), merges], ErrorKind::Incompatible, "vocab.json: not a table"),
        (&[("vocab.json", r#"{"a":1}"#), merges], ErrorKind::Incompatible, "<|startoftext|>"),
        (&[("vocab.json", VOCAB), ("merges.txt", "a b</w>\na b c\n")], ErrorKind::Incompatible, "line 2"),
        (&[("vocab.json", VOCAB), ("merges.txt", "a z\n")], ErrorKind::Incompatible, "out of vocabulary"),
        (
            &[("vocab.json", VOCAB), merges, ("tokenizer_config.json", r#"{"pad_token":"<pad>"}"#)],
            ErrorKind::Incompatible,
            "no token <pad> (padding)",
        ),
    ];
    for (files, kind, message) in rows {
        let dir = folder(files);
        let error = Tokenizer::from_dir(dir.path()).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}
