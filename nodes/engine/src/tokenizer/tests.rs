use serde_json::{Value, json};

use super::*;
use crate::ErrorKind;

/// The folder of the little vocabulary that `tests/golden/prompt.py` makes.
pub(crate) fn golden_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer")
}

/// What transformers made of texts, row by row, must be what `tokenizer` makes of them.
fn assert_ids(tokenizer: &Tokenizer, rows: &Value) {
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_words(text).unwrap(), ids_of(row), "{text:?}");
    }
}

fn ids_of(row: &Value) -> Vec<u32> {
    serde_json::from_value(row["ids"].clone()).unwrap()
}

#[test]
fn ids_are_transformers() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/golden/prompt.json")).unwrap();
    assert!(golden["ids"].as_array().unwrap().len() >= 30);
    assert_ids(&Tokenizer::from_dir(&golden_dir()).unwrap(), &golden["ids"]);
}

#[test]
fn clips_own_ids_are_transformers() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/clip_tokens.json")).unwrap();
    let tokenizer = Tokenizer::clip().unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (49406, 49407, 49407));
    assert_eq!(tokenizer.unknown(), None);
    assert_ids(&tokenizer, &golden["rows"]);
}

fn bert_golden() -> Value {
    serde_json::from_str(include_str!("../../../../tests/golden/bert_tokens.json")).unwrap()
}

#[test]
fn berts_own_ids_are_transformers() {
    let golden = bert_golden();
    let t = Tokenizer::bert().unwrap();
    assert_eq!((t.bos(), t.eos(), t.pad(), t.unknown()), (101, 102, 0, Some(100)));
    assert_eq!((t.max_length(), t.vocab_size()), (77, 30522));
    t.check_fits(30522, 77).unwrap();
    assert!(golden["rows"].as_array().unwrap().len() > 100);
    assert_ids(&t, &golden["rows"]);
    for row in golden["decoded"].as_array().unwrap() {
        assert_eq!(t.decode(&ids_of(row)), row["text"]);
    }
}

#[test]
fn berts_words() {
    let t = Tokenizer::bert().unwrap();
    let cat = t.token_id(" Cat ").unwrap();
    assert_eq!((cat, t.token(cat).unwrap().as_str()), (4937, "cat"));
    assert_eq!(t.token_id("*"), Some(1008));
    // Several pieces, nothing, what cannot be spelt, special tokens.
    for word in ["unaffable", "", "\u{200b}", "🙂", "[UNK]", "[MASK]", "[PAD]", "[SEP]"] {
        assert_eq!(t.token_id(word), None, "{word:?}");
    }
    let ids = t.encode_words("unaffable").unwrap();
    let pieces: Vec<String> = ids.iter().filter_map(|id| t.token(*id)).collect();
    assert_eq!(pieces, ["una", "##ffa", "##ble"]);
    assert_eq!(t.decode(&[t.bos(), cat, 999_999, t.eos(), t.pad()]), "cat");
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

const BERT: &str = include_str!("data/bert_vocab.txt");

#[test]
fn berts_folders_are_recognised() {
    let vocab = ("vocab.txt", BERT);
    // As transformers 4 writes it beside the model: the limit is BERT's own, and the text encoder has 77 places.
    let config = (
        "tokenizer_config.json",
        r#"{"do_lower_case":true,"model_max_length":512,"strip_accents":null,"tokenizer_class":"BertTokenizer"}"#,
    );
    let golden = bert_golden();
    for files in [&[vocab][..], &[vocab, config], &[("vocab.txt", &BERT.replace('\n', "\r\n"))]] {
        let t = Tokenizer::from_dir(folder(files).path()).unwrap();
        assert_eq!((t.bos(), t.eos(), t.pad(), t.max_length(), t.vocab_size()), (101, 102, 0, 77, 30522));
        assert_ids(&t, &golden["rows"]);
    }
    let cased = r#"{"do_lower_case":false,"tokenize_chinese_chars":false,"model_max_length":32}"#;
    let t = Tokenizer::from_dir(folder(&[vocab, ("tokenizer_config.json", cased)]).path()).unwrap();
    assert_eq!(t.max_length(), 32);
    assert_ids(&t, &golden["cased"]);
}

#[test]
fn berts_special_tokens_come_from_the_files() {
    let vocab = ("vocab.txt", "<pad>\n<s>\n</s>\n?\n[MASK]\n\na\n##b\n");
    let map = (
        "special_tokens_map.json",
        r#"{"cls_token":"<s>","sep_token":{"content":"</s>","normalized":true},"pad_token":"<pad>"}"#,
    );
    let config = ("tokenizer_config.json", r#"{"unk_token":"?","cls_token":"a"}"#);
    let t = Tokenizer::from_dir(folder(&[vocab, map, config]).path()).unwrap();
    // The empty line has an id, and no token.
    assert_eq!((t.bos(), t.eos(), t.pad(), t.unknown(), t.vocab_size()), (1, 2, 0, Some(3), 8));
    assert_eq!(t.encode_words("AB é<s>b</S>ab").unwrap(), [6, 7, 3, 1, 3, 2, 6, 7]);
}

#[test]
fn folders_of_one_file_are_read() {
    // As transformers 5 writes it; `merges` were texts before.
    let golden = golden_dir();
    let vocab: Value =
        serde_json::from_str(&std::fs::read_to_string(golden.join("vocab.json")).unwrap()).unwrap();
    let merges = std::fs::read_to_string(golden.join("merges.txt")).unwrap();
    let merges: Vec<&str> = merges.lines().filter(|line| !line.starts_with("#version")).collect();
    let pairs: Vec<Vec<&str>> = merges.iter().map(|line| line.split(' ').collect()).collect();
    let expected = Tokenizer::from_dir(&golden).unwrap();
    for merges in [json!(merges), json!(pairs)] {
        let end = json!([{"id": 1, "content": "<|endoftext|>", "normalized": true}]);
        let joint = json!({"added_tokens": end, "model": {"type": "BPE", "vocab": vocab, "merges": merges}})
            .to_string();
        let dir = folder(&[("tokenizer.json", &joint), ("tokenizer_config.json", r#"{"pad_token":"!"}"#)]);
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        for text in ["a photo of a cat", "Don't, a\u{301} dog!", "<|startoftext|>"] {
            assert_eq!(t.encode_words(text).unwrap(), expected.encode_words(text).unwrap());
        }
        assert_eq!((t.eos(), t.pad()), (expected.eos(), 0));
        assert_eq!(t.encode_words("<|ENDOFTEXT|>").unwrap(), [t.eos()], "as the list of added tokens says");
    }
    let vocab: serde_json::Map<String, Value> =
        BERT.lines().zip(0..).map(|(token, id)| (token.into(), json!(id))).collect();
    let joint = json!({"model": {"type": "WordPiece", "vocab": vocab}}).to_string();
    assert_ids(
        &Tokenizer::from_dir(folder(&[("tokenizer.json", &joint)]).path()).unwrap(),
        &bert_golden()["rows"],
    );
}

#[test]
fn broken_folders_say_what_is_wrong() {
    let merges = ("merges.txt", "a b</w>\n");
    let rows: [(Files<'_>, ErrorKind, &str); 14] = [
        (&[], ErrorKind::NotFound, "neither vocab.json (CLIP) nor vocab.txt (BERT) nor tokenizer.json"),
        (&[("vocab.txt", "[CLS]\n[PAD]\n")], ErrorKind::Incompatible, "vocab.txt: no token [SEP]"),
        (
            &[("vocab.txt", BERT), ("tokenizer_config.json", r#"{"pad_token":"<pad>"}"#)],
            ErrorKind::Incompatible,
            "vocab.txt: no token <pad>",
        ),
        (
            &[("vocab.txt", BERT), ("tokenizer_config.json", "{")],
            ErrorKind::Incompatible,
            "tokenizer_config.json",
        ),
        (&[("vocab.json", VOCAB)], ErrorKind::NotFound, "merges.txt"),
        (
            &[("tokenizer.json", r#"{"model":{"type":"Unigram"}}"#)],
            ErrorKind::Incompatible,
            "of type Unigram",
        ),
        (&[("tokenizer.json", r#"{"model":{"type":"BPE"}}"#)], ErrorKind::Incompatible, "no list of merges"),
        (
            &[("tokenizer.json", r#"{"model":{"type":"BPE","merges":["a"],"vocab":{}}}"#)],
            ErrorKind::Incompatible,
            "merge \"a\"",
        ),
        (
            &[("tokenizer.json", r#"{"model":{"type":"WordPiece","vocab":{"[PAD]":0}}}"#)],
            ErrorKind::Incompatible,
            "tokenizer.json: no token [CLS]",
        ),
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

#[test]
fn what_is_written_is_read_as_the_same_tokenizer() {
    let own = |text: &str| Tokenizer::from_texts("x", &serde_json::from_str(text).unwrap()).unwrap();
    let sparse = own(
        r#"{"vocab.txt": "[PAD]\n\n[CLS]\n[SEP]\n[UNK]\nKatze\n[BLANK]\n", "tokenizer_config.json":
            "{\"do_lower_case\": false, \"mask_token\": \"[BLANK]\", \"cls_token\": {\"content\": \"[CLS]\", \"normalized\": true}}"}"#,
    );
    let golden = Tokenizer::from_dir(&golden_dir()).unwrap();
    let clip = Tokenizer::clip().unwrap();
    for tokenizer in [&clip, &Tokenizer::bert().unwrap(), &clip.clone().with_pad(0), &golden, &sparse] {
        let dir = tempfile::tempdir().unwrap();
        let files = tokenizer.files().unwrap();
        for (name, text) in &files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let read = Tokenizer::from_dir(dir.path()).unwrap();
        assert!(read.is_like(tokenizer).unwrap(), "{tokenizer:?}");
        assert_eq!(read.files().unwrap(), files);
    }
    assert!(!clip.is_like(&golden).unwrap() && !clip.is_like(&clip.clone().with_pad(0)).unwrap());
    assert!(!clip.is_like(&Tokenizer::bert().unwrap()).unwrap());
    assert_eq!(sparse.token_id("Katze"), Some(5));
}
