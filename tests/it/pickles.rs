//! Files of the real `torch.save`, in all its layouts (`golden/pickles.py`).

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use vocable_engine::checkpoint::{TorchFile, Weights};
use vocable_engine::embedding::Embedding;

use crate::support::{Goldens, root};

fn path(name: &str) -> PathBuf {
    root().join("tests/golden/pickles").join(name)
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    let numbers =
        |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    a.dims() == b.dims() && numbers(a) == numbers(b)
}

#[test]
fn every_layout_gives_the_same_tensors() {
    let values = Goldens::open("pickles/values.safetensors");
    let names =
        ["f32", "view", "transposed", "shared", "f16", "bf16", "f64", "i64", "scalar", "empty", "parameter"];
    for file in ["plain.pt", "protocol4.pt", "legacy.pt", "legacy_protocol4.pt", "lightning.ckpt"] {
        let torch = TorchFile::open(&path(file)).unwrap();
        let dict = torch.root().get("state_dict").unwrap_or(torch.root());
        assert_eq!(dict.entries().len(), names.len(), "{file}");
        for name in names {
            let info = dict.get(name).unwrap().tensor().unwrap();
            assert!(equal(&torch.tensor(info).unwrap(), &values.get(name)), "{file}: {name}");
        }
    }
    let lightning = TorchFile::open(&path("lightning.ckpt")).unwrap();
    assert_eq!(lightning.root().get("global_step").unwrap().int(), Some(1 << 40));
    assert_eq!(lightning.root().get("text").unwrap().string(), Some("é\n"));
    let callback = lightning.root().get("callbacks").unwrap().get("x").unwrap();
    assert!(callback.kind().contains("Callback"), "{}", callback.kind());
}

#[test]
fn weights_come_from_pickles_as_from_safetensors() {
    let values = Goldens::open("pickles/values.safetensors");
    let weights = Weights::open(&path("lightning.ckpt"), &Device::Cpu, DType::F32).unwrap();
    assert!(equal(&weights.get("transposed", &[5, 6]).unwrap(), &values.get("transposed")));
    let error = weights.get("nothing.weight", &[1]).unwrap_err();
    assert!(error.message.contains("nothing.weight is missing"), "{error}");
}

#[test]
fn cut_files_say_so() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["plain.pt", "legacy.pt"] {
        let bytes = std::fs::read(path(file)).unwrap();
        for part in [10, bytes.len() / 3, bytes.len() - 40] {
            let cut = folder.path().join(file);
            std::fs::write(&cut, &bytes[..part]).unwrap();
            assert!(TorchFile::open(&cut).is_err(), "{file} cut to {part}");
        }
    }
}

#[test]
fn embeddings_of_other_tools_are_read() {
    let word = Goldens::open("pickles/values.safetensors").get("word");
    for (file, name, rows) in
        [("diffusers.bin", "<cat>", 1), ("a1111.pt", "cat", 2), ("original.pt", "original", 2)]
    {
        let embedding = Embedding::load(&path(file)).unwrap();
        assert_eq!(embedding.name, name, "{file}");
        let vectors = embedding.vectors.values().next().unwrap().clone();
        assert!(equal(&vectors, &word.narrow(0, 0, rows).unwrap()), "{file}");
    }
    let error = Embedding::load(&path("plain.pt")).unwrap_err();
    assert!(error.message.contains("plain.pt") && error.message.contains("11 tensors"), "{error}");
}
