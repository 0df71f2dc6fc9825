use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::*;
use crate::tokenizer::Tokenizer;

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../../tests/golden/prompt.json")).unwrap()
}

fn tokenizer() -> Tokenizer {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizer");
    Tokenizer::from_dir(&dir).unwrap()
}

fn files() -> BTreeMap<String, usize> {
    serde_json::from_value(golden()["embeddings"].clone()).unwrap()
}

fn read(prompt: &str, words: &[Word]) -> TokenizedPrompt {
    tokenize_prompt(&tokenizer(), prompt, words, &mut files()).unwrap()
}

#[test]
fn chunks_are_comfyuis() {
    let mut rows = 0;
    for row in golden()["prompts"].as_array().unwrap() {
        let prompt = row["prompt"].as_str().unwrap();
        let t = if row["pad_with_end"].as_bool().unwrap() { tokenizer() } else { tokenizer().with_pad(0) };
        let got = tokenize_prompt(&t, prompt, &[], &mut files()).unwrap();
        let want = row["chunks"].as_array().unwrap();
        assert_eq!(got.chunks.len(), want.len(), "{prompt:?}");
        for (chunk, want) in got.chunks.iter().zip(want) {
            assert_eq!(chunk.ids.len(), 77, "{prompt:?}");
            for (at, w) in want.as_array().unwrap().iter().enumerate() {
                let same = match chunk.ids[at] {
                    PromptToken::Id(id) => w[0].as_u64() == Some(u64::from(id)),
                    PromptToken::Vector { embedding, row } => {
                        let name = got.found[embedding].name.as_str();
                        w[0][0].as_str() == Some(name) && w[0][1].as_u64() == Some(row as u64)
                    }
                };
                assert!(same, "{prompt:?} at {at}: {:?}, wanted {w}", chunk.ids[at]);
                assert!(
                    (f64::from(chunk.weights[at]) - w[1].as_f64().unwrap()).abs() < 1e-6,
                    "{prompt:?} at {at}"
                );
            }
        }
        rows += 1;
    }
    assert!(rows > 50);
}

#[test]
fn names_that_are_missing_are_told() {
    let got = read("embedding:nope cat embedding:foo, embedding:foo,dog (embedding:nope:1.2)", &[]);
    assert_eq!(got.missing, ["nope", "foo,dog"]);
    assert_eq!(got.found, [FoundEmbedding { name: "foo".into(), vectors: 2, word: None }]);
    let error = got.require_all().unwrap_err();
    assert_eq!(error.kind, crate::ErrorKind::NotFound);
    assert!(error.message.ends_with("nope, foo,dog"));
    read("a cat", &[]).require_all().unwrap();
    // ComfyUI fails here with an IndexError.
    assert_eq!(read("(embedding:)", &[]).missing, Vec::<String>::new());
}

#[test]
fn words_take_their_place() {
    let words = [Word::new("<my-cat>", 2), Word::new("sks", 1)];
    let (t, got) = (tokenizer(), read("a (<my-cat>:1.5) sks, sks embedding:foo", &words));
    let cat = |row| PromptToken::Vector { embedding: 0, row };
    let id = |text: &str| PromptToken::Id(t.encode_words(text).unwrap()[0]);
    let (sks, foo) =
        (PromptToken::Vector { embedding: 1, row: 0 }, |row| PromptToken::Vector { embedding: 2, row });
    let want = [
        PromptToken::Id(t.bos()),
        id("a"),
        cat(0),
        cat(1),
        sks,
        id(","),
        sks,
        foo(0),
        foo(1),
        PromptToken::Id(t.eos()),
    ];
    assert_eq!(got.chunks[0].ids[..10], want);
    assert_eq!(got.chunks[0].weights[..6], [1.0, 1.0, 1.5, 1.5, 1.0, 1.0]);
    assert_eq!(got.chunks[0].end_position(t.eos()), Some(9));
    assert_eq!(got.found.iter().map(|f| f.word).collect::<Vec<_>>(), [Some(0), Some(1), None]);
    // Without the word in the list the text is ordinary text.
    assert!(read("a <my-cat>", &[]).found.is_empty());
    // Already expanded, as diffusers does.
    assert_eq!(read("a <my-cat> <my-cat>_1 x", &words).chunks, read("a <my-cat> x", &words).chunks);
}

#[test]
fn weights_parse() {
    let rows: &[(&str, &[(&str, f32)])] = &[
        ("", &[]),
        ("(a:inf)", &[("a:inf", 1.1)]),
        ("(a:nan) b", &[("a:nan", 1.1), (" b", 1.0)]),
        ("((a))", &[("a", 1.21)]),
    ];
    for (prompt, want) in rows {
        let got = parse_weights(prompt);
        assert_eq!(got.len(), want.len(), "{prompt}");
        for ((text, weight), (t, w)) in got.iter().zip(*want) {
            assert_eq!(text, t);
            assert!((weight - w).abs() < 1e-6);
        }
    }
    // Deep nesting ends in finite time and without a crash.
    let deep = "(".repeat(100_000) + "a" + &")".repeat(100_000);
    assert!(!parse_weights(&deep).is_empty());
}

#[test]
fn weights_apply_at_their_positions_only() {
    let z = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((2, 3, 2)).unwrap();
    let empty = Tensor::ones((1, 3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let got = apply_weights(&z, &empty, &[vec![1.0, 2.0, 1.0], vec![1.0, 1.0, 0.5]]).unwrap();
    let want = [[[0.0, 1.0], [3.0, 5.0], [4.0, 5.0]], [[6.0, 7.0], [8.0, 9.0], [5.5, 6.0]]];
    assert_eq!(got.to_vec3::<f32>().unwrap(), want.map(|c| c.map(|r| r.to_vec()).to_vec()).to_vec());
    let same = apply_weights(&z, &empty, &[vec![1.0; 3], vec![1.0; 3]]).unwrap();
    assert_eq!(same.id(), z.id());
    assert!(apply_weights(&z, &empty, &[vec![1.0; 3]]).is_err());
    assert!(apply_weights(&z, &z, &[vec![1.0; 3], vec![1.0; 3]]).is_err());
}

#[test]
fn what_looks_like_a_word_and_is_read_as_text_is_told() {
    let words = [Word::new("<zorvo>", 2), Word::new("sks", 1)];
    for (prompt, wanted) in [
        ("a cat,embedding:foo", &["cat,embedding:foo"][..]),
        ("EMBEDDING:foo and Embedding:foo", &["EMBEDDING:foo", "Embedding:foo"]),
        ("a x<zorvo> (<zorvo>s:1.2), <zorvo>_2", &["x<zorvo>", "<zorvo>s", "<zorvo>_2"]),
        ("(embedding:)", &["embedding:"]),
        ("é\u{3000}x<zorvo>\u{3000}é", &["x<zorvo>"]),
        // Found, missing, or a word without brackets within another: nothing is overlooked.
        ("<zorvo>, (embedding:foo:1.2) embedding:nope sksy <other>", &[]),
    ] {
        let got = read(prompt, &words);
        assert_eq!(got.overlooked, wanted, "{prompt}");
        let error = got.require_none_overlooked().err();
        assert_eq!(error.is_some(), !wanted.is_empty(), "{prompt}");
        assert!(error.is_none_or(|error| error.message.contains(wanted[0])), "{prompt}");
    }
}

#[test]
fn berts_chunks_are_latent_diffusions() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/golden/bert_tokens.json")).unwrap();
    let t = Tokenizer::bert().unwrap();
    for row in golden["full"].as_array().unwrap() {
        let prompt = row["text"].as_str().unwrap();
        // Latent diffusion cuts what does not fit into one row; here it goes on in the next.
        let got = tokenize_prompt(&t, prompt, &[], &mut files()).unwrap();
        let want: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        let want: Vec<PromptToken> = want.into_iter().map(PromptToken::Id).collect();
        assert_eq!(got.chunks[0].ids, want, "{prompt:?}");
    }
    // Learned words: where BERT would cut at the brackets anyway, in another script, and in another case.
    let words = [Word::new("<zorvo>", 2), Word::new("*", 1), Word::new("ネコ", 1)];
    let got = tokenize_prompt(&t, "A photo,<zorvo>! * ネコ <Zorvo>", &words, &mut files()).unwrap();
    let vector = |embedding, row| PromptToken::Vector { embedding, row };
    let id = PromptToken::Id;
    let want = [
        id(101),
        id(1037),
        id(6302),
        id(1010),
        vector(0, 0),
        vector(0, 1),
        id(999),
        vector(1, 0),
        vector(2, 0),
        id(1026),
        id(1062),
        id(2953),
        id(6767),
        id(1028),
        id(102),
        id(0),
    ];
    assert_eq!(got.chunks[0].ids[..16], want);
    assert_eq!(got.chunks[0].end_position(t.eos()), Some(14));
}
