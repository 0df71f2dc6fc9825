//! Single-file checkpoints of every family, of true structure and tiny widths, against PyTorch (`golden/families.py`): text encoder,
//! denoiser, autoencoder, the gradient of the vectors and five steps of training.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde_json::Value as Json;
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Checkpoint, Precision, inspect, open_vae};
use vocable_engine::diffusion::TorchRng;
use vocable_engine::models::{HiddenLayer, TextEncoders, TextTower};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::training::{AdamW, AdamWConfig, MicroBatch, TrainingModels, loss_and_gradient};

use crate::support::{Goldens, norm, relative, root, tiny};

const FAMILIES: [&str; 4] = ["sd1", "sd1_inpainting", "sd2", "sd2_v"];
const VOCABULARY: u32 = 600;

fn description(family: &str) -> Json {
    let text = std::fs::read_to_string(root().join("tests/golden/families.json")).unwrap();
    serde_json::from_str::<Json>(&text).unwrap()[family].take()
}

/// The numbers of a tensor: the same as `draw` in the golden's script.
fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut rng = TorchRng::new(u64::from(crc32fast::hash(name.as_bytes())));
    let mut r: Vec<f32> = rng.randn(shape.iter().product());
    let fan: usize = shape.iter().skip(1).product();
    let (scale, shift) = match shape.len() {
        _ if name.contains("embedding") => (0.1, 0.0),
        1 if name.ends_with(".weight") => (0.2, 1.0),
        1 => (0.2, 0.0),
        _ => ((1.5 / (fan as f64).sqrt()) as f32, 0.0),
    };
    r.iter_mut().for_each(|r| *r = *r * scale + shift);
    Tensor::from_vec(r, shape, &Device::Cpu).unwrap()
}

fn tensors(family: &str) -> HashMap<String, Tensor> {
    let file = description(family);
    let shapes = file["shapes"].as_object().unwrap();
    let mut tensors: HashMap<String, Tensor> = shapes
        .iter()
        .map(|(name, shape)| {
            let shape: Vec<usize> =
                shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            (name.clone(), draw(name, &shape))
        })
        .collect();
    for (name, factor) in file["scaled"].as_object().unwrap() {
        let scaled = (&tensors[name] * factor.as_f64().unwrap()).unwrap();
        tensors.insert(name.clone(), scaled);
    }
    tensors
}

fn write(folder: &Path, family: &str, tensors: &HashMap<String, Tensor>) -> PathBuf {
    let path = folder.join(format!("{family}.safetensors"));
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

/// The checkpoint of a family, with its goldens.
struct Case {
    checkpoint: Checkpoint,
    goldens: Goldens,
    family: &'static str,
    _folder: tempfile::TempDir,
}

impl Case {
    fn new(family: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&write(folder.path(), family, &tensors(family))).unwrap();
        Self { checkpoint, goldens: Goldens::open("families.safetensors"), family, _folder: folder }
    }

    fn get(&self, name: &str) -> Tensor {
        self.goldens.get(&format!("{}.{name}", self.family))
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.goldens.ids(&format!("{}.{name}", self.family)).into_iter().map(|id| id as u32).collect()
    }

    /// The text encoders, with a tokenizer that is not used: the prompts are injected as ids.
    fn towers(&self) -> Vec<TextTower> {
        let cancel = CancelToken::new();
        let unused = Checkpoint::open(&tiny()).unwrap();
        let unused = unused.text_encoders(&Device::Cpu, Precision::F32, &cancel).unwrap();
        let tokenizer = &unused.towers()[0].tokenizer;
        let tower = |index| {
            self.checkpoint.text_tower(index, tokenizer.clone(), &Device::Cpu, Precision::F32, &cancel)
        };
        (0..2).map_while(|index| tower(index).ok()).collect()
    }

    fn assert(&self, found: &Tensor, name: &str, tolerance: f64) {
        let error = relative(found, &self.get(name));
        assert!(error < tolerance, "{} {name}: relative error {error:.1e}", self.family);
    }
}

#[test]
fn text_encoders() {
    for case in FAMILIES.map(Case::new) {
        let (text, ids) = (case.towers().remove(0).encoder, case.ids("text.ids"));
        let none: Traced = Tensor::zeros((0, 64), candle_core::DType::F32, &Device::Cpu).unwrap().into();
        let last = text.forward(&Tape::default(), &ids, 2, &none, HiddenLayer::LAST, Some(599)).unwrap();
        case.assert(last.hidden.value(), "text.last", 1e-5);
        case.assert(last.pooled.unwrap().value(), "text.pooled", 1e-5);
        let penultimate = text
            .forward(&Tape::default(), &ids, 2, &none, HiddenLayer { skip: 1, norm: true }, None)
            .unwrap();
        case.assert(penultimate.hidden.value(), "text.penultimate", 1e-5);
    }
}

#[test]
fn denoisers_and_autoencoders() {
    for case in FAMILIES.map(Case::new) {
        let cancel = CancelToken::new();
        let unet = case.checkpoint.unet(&Device::Cpu, Precision::F32, &cancel).unwrap();
        let t: Vec<f64> =
            case.get("unet.t").to_vec1::<i64>().unwrap().into_iter().map(|t| t as f64).collect();
        let context = case.get("unet.context").into();
        let y = unet.forward(&Tape::default(), &case.get("unet.x").into(), &t, &context, None).unwrap();
        case.assert(y.value(), "unet.y", 1e-4);
        let vae = case.checkpoint.vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
        let posterior = vae.encode(&case.get("vae.pixels"), &cancel).unwrap();
        case.assert(&posterior.mean, "vae.mean", 1e-4);
        case.assert(&posterior.std, "vae.std", 1e-4);
        case.assert(&vae.decode(&case.get("vae.mean"), &cancel).unwrap(), "vae.decoded", 1e-4);
    }
}

#[test]
fn autoencoders_in_files_of_their_own() {
    let case = Case::new("sd1");
    let (folder, cancel) = (tempfile::tempdir().unwrap(), CancelToken::new());
    let whole = case.checkpoint.vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
    let prefix = "first_stage_model.";
    let part = || tensors("sd1").into_iter().filter(|(name, _)| name.starts_with(prefix));
    let kinds: [(&str, HashMap<String, Tensor>); 3] = [
        ("with the prefix", part().collect()),
        ("without it", part().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()),
        ("diffusers' names", whole.state_dict().clone().into_iter().collect()),
    ];
    for (kind, tensors) in kinds {
        let path = write(folder.path(), kind, &tensors);
        let vae = open_vae(&path, &Device::Cpu, Precision::F32, &cancel).unwrap();
        let decoded = vae.decode(&case.get("vae.mean"), &cancel).unwrap();
        let error = relative(&decoded, &case.get("vae.decoded"));
        assert!(error < 1e-4, "{kind}: {error:.1e}");
    }
}

#[test]
fn gradients_and_training() {
    for case in ["sd1", "sd2", "sd2_v"].map(Case::new) {
        let cancel = CancelToken::new();
        let schedule = case.checkpoint.schedule().unwrap();
        let models = TrainingModels {
            unet: case.checkpoint.unet(&Device::Cpu, Precision::F32, &cancel).unwrap(),
            text: TextEncoders::new(case.towers()).unwrap(),
            schedule: schedule.into(),
        };
        let start = case.get("train.start");
        let mut vectors: Vec<f32> = start.flatten_all().unwrap().to_vec1().unwrap();
        let mut adam = AdamW::new(AdamWConfig { eps: 1e-2, ..AdamWConfig::default() }, vectors.len());
        for step in 0..5 {
            let part = |name: &str| case.get(name).get(step).unwrap();
            let batch = MicroBatch {
                latents: part("train.z"),
                noise: part("train.noise"),
                timesteps: part("train.t")
                    .to_vec1::<i64>()
                    .unwrap()
                    .into_iter()
                    .map(|t| t as usize)
                    .collect(),
                ids: vec![case.ids("train.ids")],
                time_ids: Vec::new(),
                weight: None,
            };
            let matrix = Tensor::from_slice(&vectors, (2, 64), &Device::Cpu).unwrap();
            let (_, gradient) = loss_and_gradient(&models, &matrix, &batch, &cancel).unwrap();
            if step == 0 {
                case.assert(&gradient, "train.gradient", 1e-4);
            }
            adam.step(&mut vectors, &gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap(), 5e-3);
            let wanted = part("train.trajectory");
            let found = Tensor::from_slice(&vectors, (2, 64), &Device::Cpu).unwrap();
            let error = norm(&(found - &wanted).unwrap()) / norm(&(&wanted - &start).unwrap());
            assert!(error < 1e-4, "{}, step {step}: {error:.1e} of the distance travelled", case.family);
        }
    }
}

#[test]
fn families_are_told_apart_and_what_is_none_is_named() {
    for (family, id, prediction) in
        [("sd1", "sd1", "Epsilon"), ("sd2", "sd2", "Epsilon"), ("sd2_v", "sd2", "VPrediction")]
    {
        let case = Case::new(family);
        assert_eq!(case.checkpoint.family().id, id);
        assert_eq!(format!("{:?}", case.checkpoint.schedule().unwrap().prediction()), prediction, "{family}");
    }
    let folder = tempfile::tempdir().unwrap();
    let report = inspect(&write(folder.path(), "sd2_v", &tensors("sd2_v"))).unwrap();
    let text = report.to_string();
    assert!(text.starts_with("Stable Diffusion 2, safetensors, v-prediction"), "{text}");
    assert_eq!(report.parts.len(), 3);
    assert!(report.parts.iter().all(|part| part.types.keys().eq(["F32"])), "{text}");

    // CLIP has more words than these tiny tables.
    let sd1 = Case::new("sd1");
    let error = sd1.checkpoint.text_encoders(&Device::Cpu, Precision::F32, &CancelToken::new()).unwrap_err();
    assert!(error.message.contains("49408") && error.message.contains("600"), "{error}");
    assert_eq!(VOCABULARY, 600);

    let folder = tempfile::tempdir().unwrap();
    let mut half = tensors("sd1");
    half.remove("model.diffusion_model.input_blocks.4.0.in_layers.2.weight");
    let error = Checkpoint::open(&write(folder.path(), "half", &half))
        .unwrap()
        .unet(&Device::Cpu, Precision::F32, &CancelToken::new())
        .unwrap_err();
    assert!(
        error.message.contains("model.diffusion_model.input_blocks.4.0.in_layers.2.weight is missing"),
        "{error}"
    );
    let lora = HashMap::from([("lora_unet_down.weight".to_owned(), draw("x", &[4]))]);
    let error = Checkpoint::open(&write(folder.path(), "lora", &lora)).err().unwrap();
    assert!(error.message.contains("a LoRA"), "{error}");
}
