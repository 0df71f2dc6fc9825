//! Single-file checkpoints of every family, of true structure and tiny widths, against PyTorch (`golden/families.py`): text encoder,
//! denoiser, autoencoder, the gradient of the vectors and five steps of training.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Checkpoint, Precision, inspect, open_vae};
use vocable_engine::diffusion::TorchRng;
use vocable_engine::models::{AddedConditioning, HiddenLayer, TextEncoders, TimeIds, UNet2DConditionModel};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::sampling::{Denoiser, Guidance, Prompt, Sampling};
use vocable_engine::tokenizer::Tokenizer;
use vocable_engine::training::{AdamW, AdamWConfig, MicroBatch, TrainingModels, loss_and_gradient};

use crate::support::{Goldens, norm, relative, root};

pub(crate) const FAMILIES: [&str; 6] = ["sd1", "sd1_inpainting", "sd2", "sd2_v", "sdxl", "ldm"];
const VOCABULARY: u32 = 600;

pub(crate) fn description(family: &str) -> Json {
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

pub(crate) fn tensors(family: &str) -> HashMap<String, Tensor> {
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

pub(crate) fn write(folder: &Path, family: &str, tensors: &HashMap<String, Tensor>) -> PathBuf {
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

    fn has(&self, name: &str) -> bool {
        self.goldens.has(&format!("{}.{name}", self.family))
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.goldens.ids(&format!("{}.{name}", self.family)).into_iter().map(|id| id as u32).collect()
    }

    /// What stands before the names of each text encoder's goldens.
    fn encoders(&self) -> &'static [&'static str] {
        if self.family == "sdxl" { &["l.", "g."] } else { &[""] }
    }

    /// The token ids of each text encoder.
    fn all_ids(&self, part: &str) -> Vec<Vec<u32>> {
        self.encoders().iter().map(|encoder| self.ids(&format!("{part}.{encoder}ids"))).collect()
    }

    /// The parts of each text encoder, side by side.
    fn joined(&self, part: &str, name: &str) -> Tensor {
        let parts: Vec<Tensor> =
            self.encoders().iter().map(|encoder| self.get(&format!("{part}.{encoder}{name}"))).collect();
        Tensor::cat(&parts, candle_core::D::Minus1).unwrap()
    }

    fn time_ids(&self, sizes: &Tensor) -> Vec<TimeIds> {
        let rows = sizes.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
        rows.into_iter().map(|row| row.try_into().unwrap()).collect()
    }

    /// The text encoders, with a tokenizer of which only the end token is used: the prompts are injected as ids.
    fn text(&self) -> TextEncoders {
        let cancel = CancelToken::new();
        let tokenizer = Arc::new(tokenizer_ending_at(599));
        let tower = |index| {
            self.checkpoint.text_tower(index, tokenizer.clone(), &Device::Cpu, Precision::F32, &cancel)
        };
        TextEncoders::new((0..2).map_while(|index| tower(index).ok()).collect()).unwrap()
    }

    fn unet(&self) -> Arc<UNet2DConditionModel> {
        self.checkpoint.unet(&Device::Cpu, Precision::F32, &CancelToken::new()).unwrap()
    }

    fn assert(&self, found: &Tensor, name: &str, tolerance: f64) {
        let error = relative(found, &self.get(name));
        assert!(error < tolerance, "{} {name}: relative error {error:.1e}", self.family);
    }
}

/// A tokenizer of 600 tokens without merges, whose texts begin with the one before the last and end with `end`.
pub(crate) fn tokenizer_ending_at(end: u32) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let word = |id: u32| match id {
        id if id == end => "<|endoftext|>".to_owned(),
        id if id + 1 == end => "<|startoftext|>".to_owned(),
        id => format!("w{id}</w>"),
    };
    let vocabulary: HashMap<String, u32> = (0..VOCABULARY).map(|id| (word(id), id)).collect();
    std::fs::write(folder.path().join("vocab.json"), serde_json::to_string(&vocabulary).unwrap()).unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    Tokenizer::from_dir(folder.path()).unwrap()
}

#[test]
fn text_encoders() {
    for case in FAMILIES.map(Case::new) {
        let (text, tape) = (case.text(), Tape::default());
        assert_eq!(text.towers().len(), case.encoders().len(), "{}", case.family);
        for (tower, encoder) in text.towers().iter().zip(case.encoders()) {
            let ids = case.ids(&format!("text.{encoder}ids"));
            let none: Traced = Tensor::zeros((0, tower.width()), DType::F32, &Device::Cpu).unwrap().into();
            let run = |layer| tower.encoder.forward(&tape, &ids, 2, &none, layer, Some(599)).unwrap();
            let last = run(HiddenLayer::LAST);
            case.assert(last.hidden.value(), &format!("text.{encoder}last"), 1e-5);
            // As ComfyUI has it: the norm counts for the last layer, too, and who leaves out all layers leaves out none.
            let far = run(HiddenLayer { skip: 99, norm: false });
            assert_eq!(relative(far.hidden.value(), last.hidden.value()), 0.0);
            let plain = run(HiddenLayer { skip: 0, norm: false });
            assert!(relative(plain.hidden.value(), last.hidden.value()) > 0.01);
            let pooled = last.pooled.unwrap();
            for (name, layer) in [
                ("penultimate", HiddenLayer { skip: 1, norm: true }),
                ("hidden", HiddenLayer { skip: 1, norm: false }),
            ] {
                if case.has(&format!("text.{encoder}{name}")) {
                    case.assert(run(layer).hidden.value(), &format!("text.{encoder}{name}"), 1e-5);
                }
            }
            let golden = format!("text.{encoder}pooled");
            if case.has(&golden) {
                let projected = tower.encoder.project(&tape, &pooled).unwrap();
                let found = if case.family == "sdxl" { projected } else { pooled };
                case.assert(found.value(), &golden, 1e-5);
            }
        }
        // What the UNet of each family is given: the rows of the family table say which layer, with or without the norm.
        let given = match case.family {
            "sd1" | "sd1_inpainting" | "ldm" => "text.last",
            "sd2" | "sd2_v" => "text.penultimate",
            _ => "text.context",
        };
        let none: Traced = Tensor::zeros((0, text.width()), DType::F32, &Device::Cpu).unwrap().into();
        let all = text.forward(&tape, &case.all_ids("text"), 2, &none, true).unwrap();
        case.assert(all.hidden.value(), given, 1e-5);
        if case.family == "sdxl" {
            case.assert(all.pooled.unwrap().value(), "text.g.pooled", 1e-5);
        }
    }
}

#[test]
fn a_placeholder_with_an_ordinary_words_vector_is_that_word() {
    for case in FAMILIES.map(Case::new) {
        let text = case.text();
        let mut ids = case.all_ids("text");
        let plain = |ids: &[Vec<u32>], vectors: &Traced| {
            text.forward(&Tape::default(), ids, 2, vectors, true).unwrap()
        };
        let none: Traced = Tensor::zeros((0, text.width()), DType::F32, &Device::Cpu).unwrap().into();
        let wanted = plain(&ids, &none);
        let rows = text.towers().iter().zip(&mut ids).map(|(tower, ids)| {
            let word = std::mem::replace(&mut ids[4], tower.first_vector());
            tower.encoder.token_embedding().narrow(0, word as usize, 1).unwrap()
        });
        let vector: Traced = Tensor::cat(&rows.collect::<Vec<_>>(), 1).unwrap().into();
        let found = plain(&ids, &vector);
        assert_eq!(relative(found.hidden.value(), wanted.hidden.value()), 0.0, "{}", case.family);
        let (found, wanted) = (found.pooled.unwrap(), wanted.pooled.unwrap());
        assert_eq!(relative(found.value(), wanted.value()), 0.0, "{}: pooled", case.family);
    }
}

#[test]
fn denoisers_and_autoencoders() {
    for case in FAMILIES.map(Case::new) {
        let cancel = CancelToken::new();
        let t: Vec<f64> =
            case.get("unet.t").to_vec1::<i64>().unwrap().into_iter().map(|t| t as f64).collect();
        let context = case.get("unet.context").into();
        let added = case.has("unet.pooled").then(|| AddedConditioning {
            text_embeds: case.get("unet.pooled").into(),
            time_ids: case.time_ids(&case.get("unet.time_ids")),
        });
        let x = case.get("unet.x").into();
        let y = case.unet().forward(&Tape::default(), &x, &t, &context, added.as_ref()).unwrap();
        case.assert(y.value(), "unet.y", 1e-4);
        let vae = case.checkpoint.vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
        let posterior = vae.encode(&case.get("vae.pixels"), &cancel).unwrap();
        case.assert(&posterior.mean, "vae.mean", 1e-4);
        case.assert(&posterior.std, "vae.std", 1e-4);
        case.assert(&vae.decode(&case.get("vae.mean"), &cancel).unwrap(), "vae.decoded", 1e-4);
        let wanted = description(case.family)["scaling_factor"].as_f64().unwrap();
        assert_eq!(vae.config().scaling_factor, wanted, "{}", case.family);
    }
}

#[test]
fn samplers() {
    for case in FAMILIES.map(Case::new) {
        let denoiser = Denoiser {
            unet: case.unet(),
            schedule: Arc::new(case.checkpoint.schedule().unwrap()),
            scaling_factor: 1.0,
        };
        let first = |name: &str| case.get(name).narrow(0, 0, 1).unwrap();
        let added = case.has("unet.pooled");
        let prompt = Prompt {
            hidden: first("unet.context"),
            pooled: added.then(|| first("unet.pooled")),
            time_ids: added.then(|| case.time_ids(&first("unet.time_ids"))[0]),
        };
        let guidance = Guidance { positive: vec![prompt.clone()], negative: vec![prompt] };
        let sigmas: Vec<f64> = case.get("sample.sigmas").to_vec1().unwrap();
        let (noise, cancel) = (case.get("sample.noise"), CancelToken::new());
        let blank = noise.zeros_like().unwrap();
        for sampler in ["euler", "heun", "dpmpp_2m"] {
            let wanted = case.get(&format!("sample.{sampler}"));
            let how = Sampling {
                seed: 0,
                steps: 4,
                cfg: 1.0,
                sampler: sampler.into(),
                scheduler: "normal".into(),
                denoise: 1.0,
            };
            let check = |x: &Tensor, step: usize| {
                let error = relative(x, &wanted.narrow(0, step, 1).unwrap());
                // A timestep that is off by one moves the latents by 1e-4.
                assert!(error < 2e-5, "{} {sampler}, step {step}: {error:.1e}", case.family);
            };
            let last = denoiser
                .sample_with(&how, &guidance, &blank, &sigmas, &noise, &cancel, &mut |info| {
                    if info.step > 0 {
                        check(info.x, info.step - 1);
                    }
                    Ok(())
                })
                .unwrap();
            check(&last, 3);
        }
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
    for case in FAMILIES.map(Case::new) {
        let cancel = CancelToken::new();
        let models = TrainingModels {
            unet: case.unet(),
            text: case.text(),
            schedule: Arc::new(case.checkpoint.schedule().unwrap()),
        };
        let start = case.joined("train", "start");
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
                ids: case.all_ids("train"),
                time_ids: if case.has("train.time_ids") {
                    case.time_ids(&part("train.time_ids"))
                } else {
                    Vec::new()
                },
                weight: None,
            };
            let matrix = Tensor::from_slice(&vectors, start.shape(), &Device::Cpu).unwrap();
            let (_, gradient) = loss_and_gradient(&models, &matrix, &batch, &cancel).unwrap();
            if step == 0 {
                let error = relative(&gradient, &case.joined("train", "gradient"));
                assert!(error < 1e-4, "{}: relative error of the gradient {error:.1e}", case.family);
            }
            adam.step(&mut vectors, &gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap(), 5e-3);
            let wanted = case.joined("train", "trajectory").get(step).unwrap();
            let found = Tensor::from_slice(&vectors, start.shape(), &Device::Cpu).unwrap();
            let error = norm(&(found - &wanted).unwrap()) / norm(&(&wanted - &start).unwrap());
            assert!(error < 1e-4, "{}, step {step}: {error:.1e} of the distance travelled", case.family);
        }
    }
}

#[test]
fn families_are_told_apart_and_what_is_none_is_named() {
    for (family, id, prediction) in [
        ("sd1", "sd1", "Epsilon"),
        ("sd2", "sd2", "Epsilon"),
        ("sd2_v", "sd2", "VPrediction"),
        ("sdxl", "sdxl", "Epsilon"),
        ("ldm", "ldm", "Epsilon"),
    ] {
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

    // SDXL's marks, as ComfyUI reads them.
    let mut marked = tensors("sdxl");
    for (mark, zero_snr) in [("v_pred", false), ("ztsnr", true)] {
        marked.insert(mark.to_owned(), draw("mark", &[1]));
        let checkpoint = Checkpoint::open(&write(folder.path(), mark, &marked)).unwrap();
        let schedule = checkpoint.schedule().unwrap();
        assert_eq!(format!("{:?}", schedule.prediction()), "VPrediction", "{mark}");
        assert_eq!(schedule.sigma_max() > 4000.0, zero_snr, "{mark}: {}", schedule.sigma_max());
    }
    marked.insert("edm_vpred.sigma_max".to_owned(), draw("mark", &[1]));
    let checkpoint = Checkpoint::open(&write(folder.path(), "edm", &marked)).unwrap();
    assert!(checkpoint.schedule().unwrap_err().message.contains("edm_vpred.sigma_max"));

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
