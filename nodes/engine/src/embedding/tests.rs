use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

/// A safetensors file of raw parts: name, type, shape, bytes.
fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)], metadata: Option<&str>) -> Vec<u8> {
    let mut parts: Vec<String> = metadata.map(|m| format!("\"__metadata__\":{m}")).into_iter().collect();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        parts.push(format!(
            "\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{start},{}]}}",
            data.len()
        ));
    }
    let header = format!("{{{}}}", parts.join(","));
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&data);
    out
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn embedding(parts: &[(&str, usize, usize)]) -> Embedding {
    let vectors = parts
        .iter()
        .map(|(k, n, d)| {
            let t = Tensor::arange(0f32, (n * d) as f32, &Device::Cpu).unwrap().reshape((*n, *d)).unwrap();
            ((*k).to_owned(), t)
        })
        .collect();
    Embedding::new("<cat>", vectors, BTreeMap::new()).unwrap()
}

#[test]
fn layouts_that_people_have() {
    type Row<'a> = (Vec<u8>, EmbeddingFormat, &'a str, &'a str);
    let two = f32s(&[1.0, 2.0, 3.0, 4.0]);
    let rows: Vec<Row<'_>> = vec![
        (
            file(&[("emb_params", "F32", &[2, 2], two.clone())], None),
            EmbeddingFormat::EmbParams,
            "stem",
            "clip_l [2, 2]",
        ),
        (
            file(&[("emb_params", "F32", &[4], two.clone())], None),
            EmbeddingFormat::EmbParams,
            "stem",
            "clip_l [1, 4]",
        ),
        (
            file(&[("emb_params", "F32", &[1, 1024], f32s(&[0.5; 1024]))], None),
            EmbeddingFormat::EmbParams,
            "stem",
            "clip_h [1, 1024]",
        ),
        (
            file(&[("emb_params", "F32", &[1280], f32s(&[0.5; 1280]))], Some(r#"{"encoder":"bert"}"#)),
            EmbeddingFormat::EmbParams,
            "stem",
            "bert [1, 1280]",
        ),
        (
            file(
                &[
                    ("clip_l", "F32", &[1, 2], f32s(&[1.0, 2.0])),
                    ("clip_g", "F32", &[1, 3], f32s(&[1.0; 3])),
                    ("clip_l_out", "F32", &[1], f32s(&[1.0])),
                ],
                None,
            ),
            EmbeddingFormat::EncoderKeys,
            "stem",
            "clip_g [1, 3], clip_l [1, 2]",
        ),
        (
            file(&[("t5", "F32", &[1, 2], f32s(&[1.0, 2.0]))], None),
            EmbeddingFormat::EncoderKeys,
            "stem",
            "t5xxl [1, 2]",
        ),
        (
            file(&[("<tok>", "F32", &[2, 2], two.clone())], Some(r#"{"format":"pt"}"#)),
            EmbeddingFormat::Diffusers,
            "<tok>",
            "clip_l [2, 2]",
        ),
        (
            file(&[("tok_1", "F32", &[2], f32s(&[3.0, 4.0])), ("tok", "F32", &[2], f32s(&[1.0, 2.0]))], None),
            EmbeddingFormat::Diffusers,
            "tok",
            "clip_l [2, 2]",
        ),
        (
            file(
                &[("emp_params", "F32", &[2, 2], two.clone()), ("emp_params_out", "F32", &[1], f32s(&[0.0]))],
                None,
            ),
            EmbeddingFormat::OneTrainer,
            "stem",
            "clip_l [2, 2]",
        ),
        (
            file(&[("string_to_param.*", "F32", &[2, 2], two.clone())], Some(r#"{"name":"old"}"#)),
            EmbeddingFormat::StringToParam,
            "old",
            "clip_l [2, 2]",
        ),
    ];
    for (bytes, format, name, shapes) in rows {
        assert_eq!(EmbeddingFormat::sniff(&bytes).unwrap(), format);
        let e = Embedding::from_bytes(&bytes, "stem").unwrap();
        assert_eq!((e.name.as_str(), e.describe().as_str()), (name, shapes));
        if shapes == "clip_l [2, 2]" {
            assert_eq!(e.vectors["clip_l"].to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
        }
    }
}

#[test]
fn more_than_ten_diffusers_rows_keep_their_order() {
    let names: Vec<String> =
        (0..12).map(|i| if i == 0 { "<t>".into() } else { format!("<t>_{i}") }).collect();
    let parts: Vec<(&str, &str, &[usize], Vec<u8>)> = names
        .iter()
        .enumerate()
        .map(|(i, n)| (n.as_str(), "F32", &[1usize][..], f32s(&[i as f32])))
        .collect();
    let e = Embedding::from_bytes(&file(&parts, None), "x").unwrap();
    assert_eq!(
        e.vectors["clip_l"].flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        (0..12).map(|i| i as f32).collect::<Vec<_>>()
    );
}

#[test]
fn float_types() {
    let want = [1.5f32, -0.25];
    let rows: [(&str, Vec<u8>); 4] = [
        ("F32", f32s(&want)),
        ("F16", want.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        ("BF16", want.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ("F64", want.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
    ];
    for (dtype, bytes) in rows {
        let e = Embedding::from_bytes(&file(&[("emb_params", dtype, &[1, 2], bytes)], None), "x").unwrap();
        assert_eq!(e.vectors["clip_l"].to_vec2::<f32>().unwrap(), [want], "{dtype}");
    }
}

#[test]
fn hostile_and_damaged_files() {
    let good = file(&[("emb_params", "F32", &[2, 2], f32s(&[1.0; 4]))], None);
    let mut huge = good.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut long = good.clone();
    long[..8].copy_from_slice(&(90u64 << 20).to_le_bytes());
    let many: Vec<String> = (0..80).map(|i| format!("unet.{i}.lora_up.weight")).collect();
    let many: Vec<(&str, &str, &[usize], Vec<u8>)> =
        many.iter().map(|n| (n.as_str(), "F32", &[1usize][..], f32s(&[1.0]))).collect();
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", vec![], "the file is empty"),
        ("short", vec![1, 2, 3], "neither"),
        ("text", b"<html>not found</html>".to_vec(), "neither"),
        ("cut data", good[..good.len() - 1].to_vec(), "damaged"),
        ("cut header", good[..20].to_vec(), "damaged"),
        ("huge header", huge, "damaged"),
        ("long header", long, "damaged"),
        ("zip", b"PK\x03\x04rest of a torch file".to_vec(), "not a whole zip"),
        ("pickle", b"\x80\x02}q\x00X\x01\x00".to_vec(), "too short for a file of torch.save"),
        ("picture", b"\x89PNG\r\n\x1a\n........".to_vec(), "pictures are not read yet"),
        ("no tensors", file(&[], None), "no tensors"),
        ("rank 3", file(&[("emb_params", "F32", &[1, 2, 2], f32s(&[1.0; 4]))], None), "wanted [n, d]"),
        ("no rows", file(&[("emb_params", "F32", &[0, 4], vec![])], None), "is empty"),
        ("integers", file(&[("emb_params", "I32", &[1, 1], vec![0; 4])], None), "wanted a float type"),
        ("not finite", file(&[("emb_params", "F32", &[1, 2], f32s(&[1.0, f32::NAN]))], None), "emb"),
        (
            "infinite",
            file(&[("clip_l", "F32", &[2, 2], f32s(&[1.0, 1.0, 1.0, f32::INFINITY]))], None),
            "clip_l[1, 1] is inf",
        ),
        (
            "overlap",
            {
                let mut f =
                    file(&[("a", "F32", &[1], f32s(&[1.0])), ("a_1", "F32", &[1], f32s(&[1.0]))], None);
                let at = f.windows(5).position(|w| w == b"[4,8]").unwrap();
                f[at..at + 5].copy_from_slice(b"[0,4]");
                f
            },
            "damaged",
        ),
        ("lying shape", file(&[("emb_params", "F32", &[1 << 40, 1 << 40], f32s(&[1.0]))], None), "damaged"),
        ("a lora", file(&many, None), "no embedding"),
        (
            "two words",
            file(&[("cat", "F32", &[1], f32s(&[1.0])), ("dog", "F32", &[1], f32s(&[1.0]))], None),
            "2 tensors: cat, dog",
        ),
        (
            "widths",
            file(&[("a", "F32", &[1], f32s(&[1.0])), ("a_1", "F32", &[2], f32s(&[1.0; 2]))], None),
            "different widths",
        ),
        (
            "counts",
            file(
                &[("clip_l", "F32", &[1, 2], f32s(&[1.0; 2])), ("clip_g", "F32", &[2, 2], f32s(&[1.0; 4]))],
                None,
            ),
            "different numbers",
        ),
    ];
    for (what, bytes, message) in rows {
        let error = Embedding::from_bytes(&bytes, "x").unwrap_err();
        assert_eq!(error.kind, ErrorKind::Incompatible, "{what}: {error}");
        assert!(error.message.contains(message), "{what}: {error}");
    }
    // Every truncation of a good file is an error, never a panic.
    for end in 0..good.len() {
        assert!(Embedding::from_bytes(&good[..end], "x").is_err());
    }
}

#[test]
fn written_files_have_one_tensor_or_the_pair() {
    let one = embedding(&[("clip_l", 2, 768)]).to_safetensors().unwrap();
    let file = safetensors::SafeTensors::deserialize(&one).unwrap();
    assert_eq!(file.names(), ["emb_params"]);
    assert_eq!(file.tensor("emb_params").unwrap().shape(), [2, 768]);
    let pair = embedding(&[("clip_l", 1, 768), ("clip_g", 1, 1280)]).to_safetensors().unwrap();
    let mut names: Vec<String> =
        safetensors::SafeTensors::deserialize(&pair).unwrap().names().into_iter().map(Into::into).collect();
    names.sort();
    assert_eq!(names, ["clip_g", "clip_l"]);
    let header = u64::from_le_bytes(*one.first_chunk().unwrap()) as usize;
    assert_eq!(header % 8, 0);
    let text = std::str::from_utf8(&one[8..8 + header]).unwrap();
    assert!(
        text.starts_with(
            r#"{"__metadata__":{"encoder":"clip_l","format":"pt","name":"<cat>","vectors":"2"},"emb_params""#
        ),
        "{text}"
    );
}

#[test]
fn save_is_atomic_and_named_well() {
    let dir = tempfile::tempdir().unwrap();
    let e = embedding(&[("clip_l", 1, 8)]);
    let path = dir.path().join("my-cat.safetensors");
    e.save(&path).unwrap();
    e.save(&path).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let back = Embedding::load(&path).unwrap();
    assert_eq!((back.name.as_str(), back.count()), ("<cat>", 1));
    for bad in
        ["my cat.safetensors", "my-cat.pt", ".hidden.safetensors", "a,b.safetensors", "<cat>.safetensors"]
    {
        assert_eq!(e.save(&dir.path().join(bad)).unwrap_err().kind, ErrorKind::InvalidInput, "{bad}");
    }
    assert_eq!(e.save(&dir.path().join("no/such/x.safetensors")).unwrap_err().kind, ErrorKind::NotFound);
    let mut bad = e.clone();
    bad.vectors.insert("clip_l".into(), Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap());
    assert!(bad.save(&path).unwrap_err().message.contains("NaN"));
    assert_eq!(Embedding::load(&path).unwrap().count(), 1);
    assert!(
        Embedding::load(&dir.path().join("gone.safetensors"))
            .unwrap_err()
            .message
            .contains("gone.safetensors")
    );
}

#[test]
fn only_fitting_encoders() {
    let e = embedding(&[("clip_l", 2, 768)]);
    assert_eq!(e.for_encoder("clip_l", 768).unwrap().dims(), [2, 768]);
    assert_eq!(e.for_encoder("clip_x", 768).unwrap().dims(), [2, 768]);
    let error = e.for_encoder("clip_h", 1024).unwrap_err();
    assert!(
        error.message.contains("clip_l [2, 768]") && error.message.contains("clip_h with width 1024"),
        "{error}"
    );
    let pair = embedding(&[("clip_l", 1, 768), ("clip_g", 1, 1280)]);
    assert_eq!(pair.for_encoder("clip_g", 1280).unwrap().dims(), [1, 1280]);
    assert!(pair.for_encoder("clip_h", 1024).is_err());
    let half = Tensor::zeros((1, 4), DType::F16, &Device::Cpu).unwrap();
    assert!(Embedding::new("x", BTreeMap::from([("clip_l".into(), half)]), BTreeMap::new()).is_err());
    assert!(Embedding::new("x", BTreeMap::new(), BTreeMap::new()).is_err());
}

#[test]
fn file_names() {
    for (word, stem) in [
        ("<my-cat>", "my-cat"),
        ("sks", "sks"),
        ("a b", "a-b"),
        ("..x..", "x"),
        ("<<a>>", "a"),
        ("v1.5_x", "v1.5_x"),
    ] {
        assert_eq!(file_stem_for(word), stem);
    }
    for word in ["ネコ", "é", "", "*", "***", &"ab".repeat(400)] {
        let stem = file_stem_for(word);
        check_file_name(&stem).unwrap_or_else(|e| panic!("{word}: {stem}: {e}"));
    }
    assert_ne!(file_stem_for("ネコ"), file_stem_for("イヌ"));
    for bad in ["", "a b", "a/b", "../a", ".a", "-a", "é", "a,b", "a\\b", "a:b"] {
        assert!(check_file_name(bad).is_err(), "{bad}");
    }
}

#[test]
fn search_follows_comfyui() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for file in [
        "a/foo.pt",
        "a/foo.safetensors",
        "a/sub/deep/bar.bin",
        "a/z/twice.pt",
        "a/y/twice.safetensors",
        "b/only.pt",
        "b/v1.5",
        "secret.pt",
    ] {
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    let folders = [a.clone(), dir.path().join("missing"), b.clone()];
    let rows: [(&str, Option<PathBuf>); 15] = [
        ("foo", Some(a.join("foo.safetensors"))),
        ("foo.pt", Some(a.join("foo.pt"))),
        ("bar", Some(a.join("sub/deep/bar.bin"))),
        ("sub/deep/bar", Some(a.join("sub/deep/bar.bin"))),
        ("deep/bar", Some(a.join("sub/deep/bar.bin"))),
        ("twice", Some(a.join("y/twice.safetensors"))),
        ("only", Some(b.join("only.pt"))),
        ("v1.5", Some(b.join("v1.5"))),
        ("sub", None),
        ("nope", None),
        ("", None),
        ("../secret", None),
        ("sub/../foo", None),
        ("/etc/passwd", None),
        ("..\\secret", None),
    ];
    for (name, want) in rows {
        assert_eq!(find_embedding(&folders, name), want, "{name}");
    }
    assert_eq!(find_embedding(&folders, dir.path().join("secret.pt").to_str().unwrap()), None);
}

#[cfg(unix)]
#[test]
fn a_circle_of_links_ends() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    assert_eq!(find_embedding(&[dir.path().to_path_buf()], "x"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trip(
        n in 1usize..6,
        widths in proptest::collection::btree_map("clip_[lgh]", 1usize..40, 1..4),
        name in "\\PC{1,20}",
        metadata in proptest::collection::btree_map("[a-z.]{1,8}", "\\PC{0,20}", 0..5),
        seed in any::<u64>(),
    ) {
        let mut rng = crate::diffusion::TorchRng::new(seed);
        let vectors: BTreeMap<String, Tensor> = widths
            .iter()
            .map(|(k, d)| (k.clone(), Tensor::from_vec(rng.randn(n * d), (n, *d), &Device::Cpu).unwrap()))
            .collect();
        let e = Embedding::new(name, vectors, metadata).unwrap();
        let bytes = e.to_safetensors().unwrap();
        prop_assert_eq!(&bytes, &e.to_safetensors().unwrap());
        let back = Embedding::from_bytes(&bytes, "stem").unwrap();
        prop_assert_eq!(&back.name, &e.name);
        prop_assert_eq!(back.vectors.keys().collect::<Vec<_>>(), e.vectors.keys().collect::<Vec<_>>());
        for (k, t) in &e.vectors {
            prop_assert_eq!(t.to_vec2::<f32>().unwrap(), back.vectors[k].to_vec2::<f32>().unwrap());
        }
        for (k, v) in &e.metadata {
            if !["format", "name", "vectors", "encoder"].contains(&k.as_str()) {
                prop_assert_eq!(back.metadata.get(k), Some(v));
            }
        }
        prop_assert_eq!(bytes, back.to_safetensors().unwrap());
    }

    #[test]
    fn any_bytes_are_an_error_or_an_embedding(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), short in any::<bool>()) {
        if short && bytes.len() > 9 {
            let length = bytes.len() as u64 - 8;
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            bytes[8] = b'{';
        }
        let _ = Embedding::from_bytes(&bytes, "x");
    }
}
