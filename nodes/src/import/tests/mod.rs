//! Tiny models of each family, from their file and from a host that has them in memory.

mod families;
mod fingerprints;
mod refusals;
mod weights;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use vocable_engine::diffusion::TorchRng;
use vocable_host_sdk::abi::{HostContext, Inputs, NodeError, Plugin, StateKind, TensorBuf, Value};

use crate::convert::tensor_into;
use crate::generation::CheckpointLoaderSimple;
use crate::handles::{Clip, Model, Vae};
use crate::testing::Home;

type Tensors = BTreeMap<String, Tensor>;
type StateDict = Vec<(String, TensorBuf)>;

/// The tensors of a single file: those of the goldens in name and shape, but with the whole vocabulary and, for an SDXL, sizes as wide as in every SDXL.
fn file_of(family: &str) -> Tensors {
    let goldens = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/families.json");
    let goldens: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(goldens).unwrap()).unwrap();
    let goldens = &goldens[family];
    let mut rng = TorchRng::new(5);
    let tensors = goldens["shapes"].as_object().unwrap().iter().map(|(name, shape)| {
        let mut shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        match name {
            name if name.ends_with("token_embedding.weight") => shape[0] = 49408,
            name if name.ends_with("label_emb.0.0.weight") => shape[1] = 128 + 6 * 256,
            _ => {}
        }
        let fan: usize = shape.iter().skip(1).product();
        let (scale, shift) = match shape.len() {
            _ if name.contains("embedding") => (0.1, 0.0),
            1 if name.ends_with(".weight") => (0.2, 1.0),
            1 => (0.2, 0.0),
            _ => (1.5 / (fan as f64).sqrt(), 0.0),
        };
        let scale = scale * goldens["scaled"][name].as_f64().unwrap_or(1.0);
        let numbers = rng.randn(shape.iter().product());
        let numbers = Tensor::from_vec(numbers, shape.as_slice(), &Device::Cpu).unwrap();
        (name.clone(), numbers.affine(scale, shift).unwrap())
    });
    tensors.collect()
}

/// What Load Checkpoint makes of such a file: MODEL, CLIP and VAE as the inputs of these names.
fn load(home: &Home, family: &str, tensors: &Tensors) -> Inputs {
    let path = home.path(&format!("checkpoints/{family}.safetensors"));
    let tensors: std::collections::HashMap<_, _> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let inputs = Inputs::new().with("ckpt_name", path.to_str().unwrap()).with("device", "cpu");
    let results = home.run(&CheckpointLoaderSimple, inputs).unwrap().results;
    parts(results)
}

fn parts(values: impl IntoIterator<Item = Value>) -> Inputs {
    let named = ["model", "clip", "vae"].into_iter().zip(values);
    named.fold(Inputs::new(), |inputs, (name, value)| inputs.with(name, value))
}

fn model(parts: &Inputs) -> std::sync::Arc<Model> {
    Model::from_input(parts, "model").unwrap()
}

/// The part in ComfyUI's names, with what else is there, which may be anything. ComfyUI renames OpenCLIP's tensors to those of transformers, which are also ours.
fn state_dict(kind: StateKind, file: &Tensors, loaded: &Inputs) -> StateDict {
    let own = |prefix: &str, new: &str| -> Tensors {
        let all = file.iter();
        let own = all.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?, tensor.clone())));
        own.map(|(name, tensor)| (format!("{new}{name}"), tensor)).collect()
    };
    let mut tensors = match kind {
        StateKind::Model => own("model.diffusion_model.", "diffusion_model."),
        StateKind::Vae => own("first_stage_model.", ""),
        StateKind::Clip => {
            let clip = Clip::from_input(loaded, "clip").unwrap();
            let towers = clip.text.towers().iter().map(|tower| {
                let mut tensors = tower.encoder.state_dict().clone();
                if tower.key != "clip_g" {
                    let leftover = Tensor::full(f32::NAN, (tower.width(), tower.width()), &Device::Cpu);
                    tensors.insert("text_projection.weight".to_string(), leftover.unwrap());
                }
                let name = |name| format!("{}.transformer.{name}", tower.key);
                tensors.into_iter().map(|(own, tensor)| (name(own), tensor)).collect::<Vec<_>>()
            });
            towers.flatten().collect()
        }
    };
    let one = Tensor::full(f32::NAN, (), &Device::Cpu).unwrap();
    match kind {
        StateKind::Model => {
            tensors.insert("model_sampling.log_sigmas".to_string(), one.clone());
            tensors.insert("noise_augmentor.betas".to_string(), one);
        }
        StateKind::Clip => {
            let keys: Vec<String> =
                tensors.keys().filter_map(|name| Some(name.split_once('.')?.0.to_string())).collect();
            tensors.extend(keys.into_iter().map(|key| (format!("{key}.logit_scale"), one.clone())));
        }
        StateKind::Vae => {}
    }
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor_into(tensor).unwrap())).collect()
}

type SettingsMap = BTreeMap<String, Value>;

fn settings<const N: usize>(settings: [(&str, Value); N]) -> SettingsMap {
    let names = [("names", Value::from("comfyui"))];
    names.into_iter().chain(settings).map(|(name, value)| (name.to_string(), value)).collect()
}

/// What ComfyUI knows of the loaded model.
fn settings_of(model: &Model) -> SettingsMap {
    let schedule = &model.denoiser.schedule;
    let sigmas = schedule.sigmas().to_vec();
    let prediction = match format!("{:?}", schedule.prediction()).as_str() {
        "Epsilon" => "epsilon",
        _ => "v_prediction",
    };
    settings([
        ("prediction_type", prediction.into()),
        ("latent_scale", model.denoiser.scaling_factor.into()),
        ("sigmas", TensorBuf::from_vec_f32(&[sigmas.len()], sigmas).unwrap().into()),
    ])
}

fn hand_in(
    home: &Home,
    kind: StateKind,
    tensors: StateDict,
    settings: &SettingsMap,
) -> Result<Value, NodeError> {
    crate::Vocable.import_state_dict(kind, tensors, settings.clone(), &HostContext::new(&home.host))
}

/// All parts of a loaded file, handed in by a host.
fn hand_in_all(home: &Home, file: &Tensors, loaded: &Inputs) -> Inputs {
    let part = |kind, mut settings: SettingsMap| {
        settings.insert("name".to_string(), model(loaded).name.as_str().into());
        hand_in(home, kind, state_dict(kind, file, loaded), &settings).unwrap()
    };
    parts([
        part(StateKind::Model, settings_of(&model(loaded))),
        part(StateKind::Clip, settings([])),
        part(StateKind::Vae, settings([])),
    ])
}

fn vae(parts: &Inputs) -> std::sync::Arc<Vae> {
    Vae::from_input(parts, "vae").unwrap()
}
