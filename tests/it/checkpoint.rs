//! Checkpoints that are missing, cut short, damaged or of another structure, each with its error.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use vocable_engine::checkpoint::{Checkpoint, Precision, open_vae};
use vocable_engine::{CancelToken, Error, ErrorKind};

use crate::support::{root, tiny};

/// A copy of the tiny pipeline that may be damaged.
fn copy() -> (tempfile::TempDir, PathBuf) {
    fn copy_all(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_all(&entry.path(), &target)
            } else {
                let _ = fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy_all(&tiny(), folder.path());
    let path = folder.path().to_owned();
    (folder, path)
}

fn unet_error(path: &Path) -> Error {
    let folder = Checkpoint::open(path).unwrap();
    folder.unet(&Device::Cpu, Precision::F32, &CancelToken::new()).unwrap_err()
}

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

#[test]
fn a_folder_that_is_no_pipeline() {
    let error = Checkpoint::open(Path::new("no/such/folder")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    let error = Checkpoint::open(&root().join("tests")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(error.message.contains("model_index.json"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let (_keep, path) = copy();
    fs::remove_file(path.join(WEIGHTS)).unwrap();
    let error = unet_error(&path);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("diffusion_pytorch_model"), "{error}");
}

#[test]
fn a_file_cut_short_is_named() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1000]).unwrap();
    let error = unet_error(&path);
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(
        error.message.contains("diffusion_pytorch_model.safetensors") && error.help.contains("cut short"),
        "{error}"
    );
}

#[test]
fn a_weight_that_is_not_a_number_is_named() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let name = "mid_block.resnets.0.conv1.bias";
    let nan = (tensors[name].zeros_like().unwrap() / 0.0).unwrap();
    tensors.insert(name.into(), nan);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let error = unet_error(&path);
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(error.message.contains(name) && error.message.contains("not finite"), "{error}");
}

#[test]
fn a_weight_that_f16_cannot_hold_is_named() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let large = (tensors["conv_in.bias"].to_dtype(DType::F32).unwrap().ones_like().unwrap() * 7e4).unwrap();
    tensors.insert("conv_in.bias".into(), large);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let load =
        |precision| Checkpoint::open(&path).unwrap().unet(&Device::Cpu, precision, &CancelToken::new());
    let error = load(Precision::F16).unwrap_err();
    assert!(error.message.contains("conv_in.bias holds 7e4") && error.help.contains("bf16"), "{error}");
    assert!(load(Precision::Bf16).is_ok());
}

#[test]
fn a_folder_that_was_converted_by_half_is_named() {
    let (_keep, path) = copy();
    fs::remove_dir_all(path.join("vae")).unwrap();
    let vae = |path: &Path| {
        Checkpoint::open(path)
            .and_then(|folder| folder.vae(&Device::Cpu, Precision::F32, &CancelToken::new()))
    };
    let error = vae(&path).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("vae"), "{error}");
    // Without its entry in the index, too.
    let index = path.join("model_index.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&index).unwrap()).unwrap();
    json["vae"] = serde_json::json!([null, null]);
    fs::write(&index, json.to_string()).unwrap();
    assert!(vae(&path).unwrap_err().message.contains("the pipeline has no part vae"));
}

#[test]
fn a_tensor_of_another_shape_and_a_missing_one_are_named() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let mut changed = tensors.clone();
    changed.insert("conv_in.bias".into(), tensors["conv_in.bias"].narrow(0, 0, 3).unwrap());
    candle_core::safetensors::save(&changed, &file).unwrap();
    let error = unet_error(&path);
    assert!(
        error.message.contains("conv_in.bias")
            && error.message.contains("[3]")
            && error.message.contains("[16]"),
        "{error}"
    );
    let mut changed = tensors;
    changed.remove("conv_in.bias");
    candle_core::safetensors::save(&changed, &file).unwrap();
    let error = unet_error(&path);
    assert!(error.message.contains("conv_in.bias is missing"), "{error}");
}

#[test]
fn a_tensor_that_the_network_does_not_have_is_named() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let extra = tensors["conv_in.bias"].clone();
    tensors.insert("mid_block.attentions.1.norm.bias".into(), extra.clone());
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let error = unet_error(&path);
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(
        error.message.contains("1 tensor of an unknown kind: mid_block.attentions.1.norm.bias"),
        "{error}"
    );

    // What old files hold beside weights is left aside.
    let file = path.join("text_encoder/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    tensors.insert("text_model.embeddings.position_ids".into(), extra);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let text =
        Checkpoint::open(&path).unwrap().text_encoders(&Device::Cpu, Precision::F32, &CancelToken::new());
    assert!(text.is_ok());
}

#[test]
fn a_part_in_several_files_is_read_by_its_index() {
    let (_keep, path) = copy();
    let file = path.join(WEIGHTS);
    let all = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    fs::remove_file(&file).unwrap();
    let shard = |i: usize| format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors");
    let which = |name: &str| 1 + usize::from(name.starts_with("up_blocks"));
    for i in [1, 2] {
        let part: HashMap<_, _> = all.clone().into_iter().filter(|(name, _)| which(name) == i).collect();
        candle_core::safetensors::save(&part, path.join("unet").join(shard(i))).unwrap();
    }
    let map: HashMap<_, _> = all.keys().map(|name| (name, shard(which(name)))).collect();
    let index = path.join("unet/diffusion_pytorch_model.safetensors.index.json");
    fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();

    let unet =
        |path: &Path| Checkpoint::open(path).unwrap().unet(&Device::Cpu, Precision::F32, &CancelToken::new());
    let (whole, shards) = (unet(&tiny()).unwrap(), unet(&path).unwrap());
    assert_eq!(shards.state_dict().len(), whole.state_dict().len());
    for (name, tensor) in whole.state_dict() {
        assert_eq!(crate::support::relative(&shards.state_dict()[name], tensor), 0.0, "{name}");
    }
    fs::remove_file(path.join("unet").join(shard(2))).unwrap();
    let error = unet(&path).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("00002-of-00002"), "{error}");
    fs::write(&index, r#"{"weight_map": {"conv_in.bias": "../elsewhere.safetensors"}}"#).unwrap();
    assert!(unet(&path).unwrap_err().message.contains("names no files of this folder"));
}

#[test]
fn an_autoencoders_folder_by_itself() {
    let goldens = crate::support::Goldens::open("tiny.safetensors");
    let cancel = CancelToken::new();
    let open = |path: &Path| open_vae(path, &Device::Cpu, Precision::F32, &cancel);
    let decoded = open(&tiny().join("vae")).unwrap().decode(&goldens.get("vae.mean"), &cancel).unwrap();
    assert!(crate::support::relative(&decoded, &goldens.get("vae.decoded")) < 2e-5);
    let error = open(&tiny().join(WEIGHTS)).unwrap_err();
    assert!(error.message.contains("no autoencoder that is known"), "{error}");
}

#[test]
fn cancelled_loading_says_so() {
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = Checkpoint::open(&tiny()).unwrap().unet(&Device::Cpu, Precision::F32, &cancel).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
}

#[test]
fn half_precision_weights_give_nearly_the_same_numbers() {
    use candle_core::Tensor;
    use vocable_engine::ops::Tape;
    let folder = Checkpoint::open(&tiny()).unwrap();
    let goldens = crate::support::Goldens::open("tiny.safetensors");
    let predict = |precision| -> Tensor {
        let unet = folder.unet(&Device::Cpu, precision, &CancelToken::new()).unwrap();
        let context = goldens.get("unet.context").into();
        unet.forward(&Tape::default(), &goldens.get("unet.x").into(), &[3.0, 977.0], &context, None)
            .unwrap()
            .into_value()
    };
    // The files hold f16, so that type loses nothing; bf16 has 8 bits.
    assert!(crate::support::relative(&predict(Precision::F16), &goldens.get("unet.y")) < 2e-5);
    let error = crate::support::relative(&predict(Precision::Bf16), &goldens.get("unet.y"));
    assert!(error > 1e-4 && error < 0.05, "{error:.1e}");
}

#[test]
fn the_fingerprint_follows_the_contents() {
    let (_keep, path) = copy();
    let fingerprint = |path: &Path| Checkpoint::open(path).unwrap().fingerprint().unwrap();
    assert_eq!(fingerprint(&path), fingerprint(&tiny()));
    let file = path.join("vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_ne!(fingerprint(&path), fingerprint(&tiny()));
}
