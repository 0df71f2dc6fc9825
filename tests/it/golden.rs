//! The engine against PyTorch on the same weights (`golden/tiny_model.py`). Both sides compute in f32; what remains is the order of sums,
//! so forward passes are asked to agree to 2e-5 of the result's norm.

use candle_core::{DType, Device, Tensor};
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::models::{ClipTextModel, HiddenLayer};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::training::{
    CachedLatents, Choices, LatentCache, MicroBatch, Preset, Trainer, TrainingModels, loss_and_gradient,
};

use crate::support::{Goldens, devices, norm, relative, tiny};

const FORWARD: f64 = 2e-5;

/// The models and the goldens on a device.
struct Bench {
    models: TrainingModels,
    goldens: Goldens,
    device: Device,
}

/// One on every device.
fn benches() -> impl Iterator<Item = Bench> {
    devices().into_iter().map(|device| {
        let checkpoint = Checkpoint::open(&tiny()).unwrap();
        let models = TrainingModels::read(&checkpoint, &device, Precision::F32, &CancelToken::new()).unwrap();
        Bench { models, goldens: Goldens::on("tiny.safetensors", &device), device }
    })
}

impl Bench {
    fn text(&self) -> &ClipTextModel {
        &self.models.text.towers()[0].encoder
    }

    fn no_vectors(&self) -> Traced {
        Tensor::zeros((0, 32), DType::F32, &self.device).unwrap().into()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        self.goldens.ids(name).into_iter().map(|id| id as u32).collect()
    }

    fn unet(&self, x: &str, t: &[f64], context: Tensor) -> Tensor {
        let x = self.goldens.get(x).into();
        self.models.unet.forward(&Tape::default(), &x, t, &context.into(), None).unwrap().into_value()
    }

    /// A picture of the golden training: of step `at[0]`, and of its micro-batch `at[1]` where there are several.
    fn micro_batch(&self, training: &str, at: &[usize], ids: Vec<u32>) -> MicroBatch {
        let part = |name: &str| {
            let whole = self.goldens.get(&format!("{training}.{name}"));
            at.iter().fold(whole, |tensor, index| tensor.get(*index).unwrap())
        };
        MicroBatch {
            latents: part("z"),
            noise: part("noise"),
            timesteps: part("t").to_vec1::<i64>().unwrap().into_iter().map(|t| t as usize).collect(),
            ids: vec![ids],
            time_ids: Vec::new(),
            weight: None,
        }
    }

    fn first_batch(&self) -> MicroBatch {
        self.micro_batch("train", &[0], self.ids("train.ids"))
    }
}

#[test]
fn text_encoder() {
    for bench in benches() {
        let (text, goldens, ids) = (bench.text(), &bench.goldens, bench.ids("text.ids"));
        let eos = Some(523);
        let out =
            text.forward(&Tape::default(), &ids, 1, &bench.no_vectors(), HiddenLayer::LAST, eos).unwrap();
        assert!(relative(out.hidden.value(), &goldens.get("text.hidden")) < FORWARD);
        assert!(relative(out.pooled.unwrap().value(), &goldens.get("text.pooled")) < FORWARD);
        let out = text
            .forward(&Tape::default(), &ids, 1, &bench.no_vectors(), HiddenLayer { skip: 1, norm: true }, eos)
            .unwrap();
        assert!(relative(out.hidden.value(), &goldens.get("text.hidden_skip1")) < FORWARD);
        assert!(
            relative(out.pooled.unwrap().value(), &goldens.get("text.pooled")) < FORWARD,
            "pooled is always of the last layer"
        );
    }
}

#[test]
fn pooling_does_not_follow_the_highest_id() {
    // A placeholder whose vector is an ordinary word's row must pool exactly as that word does, though its id is above the end token's.
    for bench in benches() {
        let text = bench.text();
        let mut ids = bench.ids("text.ids");
        let word = ids[4];
        let vector: Traced = text.token_embedding().narrow(0, word as usize, 1).unwrap().into();
        ids[4] = text.config().vocab_size as u32;
        let out = text.forward(&Tape::default(), &ids, 1, &vector, HiddenLayer::LAST, Some(523)).unwrap();
        assert!(relative(out.pooled.unwrap().value(), &bench.goldens.get("text.pooled")) < FORWARD);
    }
}

#[test]
fn unet() {
    for bench in benches() {
        let goldens = &bench.goldens;
        let t: Vec<f64> = goldens.ids("unet.t").into_iter().map(|t| t as f64).collect();
        let context = goldens.get("unet.context");
        assert!(relative(&bench.unet("unet.x", &t, context.clone()), &goldens.get("unet.y")) < FORWARD);
        let context = context.narrow(0, 0, 1).unwrap();
        for size in ["wide", "odd"] {
            let y = bench.unet(&format!("unet.x_{size}"), &[500.0], context.clone());
            assert!(relative(&y, &goldens.get(&format!("unet.y_{size}"))) < FORWARD, "{size}");
        }
    }
}

#[test]
fn autoencoder() {
    for bench in benches() {
        let (goldens, cancel) = (&bench.goldens, CancelToken::new());
        let vae = Checkpoint::open(&tiny()).unwrap().vae(&bench.device, Precision::F32, &cancel).unwrap();
        let posterior = vae.encode(&goldens.get("vae.pixels"), &cancel).unwrap();
        assert!(relative(&posterior.mean, &goldens.get("vae.mean")) < FORWARD);
        assert!(relative(&posterior.std, &goldens.get("vae.std")) < FORWARD);
        let decoded = vae.decode(&goldens.get("vae.mean"), &cancel).unwrap();
        assert!(relative(&decoded, &goldens.get("vae.decoded")) < FORWARD);
    }
}

#[test]
fn gradient_of_the_vectors() {
    for bench in benches() {
        let start = bench.goldens.get("train.start");
        let (loss, gradient) =
            loss_and_gradient(&bench.models, &start, &bench.first_batch(), &CancelToken::new()).unwrap();
        let wanted: Vec<f32> = bench.goldens.get("train.losses").to_vec1().unwrap();
        assert!((loss / f64::from(wanted[0]) - 1.0).abs() < 1e-5);
        let error = relative(&gradient, &bench.goldens.get("train.gradient"));
        assert!(error < 1e-4, "relative error of the gradient: {error:.2e}");
    }
}

#[test]
fn a_weight_of_one_changes_nothing() {
    for bench in benches() {
        let mut batch = bench.first_batch();
        batch.weight = Some(Tensor::ones((2, 1, 8, 8), DType::F32, &bench.device).unwrap());
        let start = bench.goldens.get("train.start");
        let (_, gradient) = loss_and_gradient(&bench.models, &start, &batch, &CancelToken::new()).unwrap();
        assert!(relative(&gradient, &bench.goldens.get("train.gradient")) < 1e-4);
    }
}

#[test]
fn trajectory_of_the_diffusers_preset() {
    for bench in benches() {
        let start = bench.goldens.get("train.start");
        // The pictures are injected below; the trainer only needs one to exist.
        let blank = Tensor::zeros((4, 8, 8), DType::F32, &bench.device).unwrap();
        let picture = CachedLatents {
            mean: blank.clone(),
            std: blank,
            weight: None,
            caption: None,
            time_ids: [0.0; 6],
        };
        let latents = LatentCache { groups: vec![vec![picture]], scaling_factor: 1.0 };
        let choices = Choices { steps: Some(20), ..Choices::default() };
        let templates = vec!["photo of {}".to_owned()];
        let settings = Preset::Diffusers.settings(&choices, "<x>", "cat dog", 2, templates, 0, 0.02);
        let accumulation = settings.gradient_accumulation;
        let mut trainer = Trainer::new(bench.models.clone(), latents, settings).unwrap();
        assert!(relative(&trainer.vectors().unwrap(), &start) < 1e-6, "both begin at the init words' rows");
        let ids: Vec<u32> = bench.ids("train.ids")[..77].to_vec();
        for step in 0..20 {
            let vectors = trainer.vectors().unwrap();
            let (mut loss, mut sum) = (0.0, vec![0f32; 64]);
            for micro in 0..accumulation {
                let batch = bench.micro_batch("preset", &[step, micro], ids.clone());
                let (part, gradient) =
                    loss_and_gradient(&bench.models, &vectors, &batch, &CancelToken::new()).unwrap();
                loss += part / accumulation as f64;
                let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g / accumulation as f32);
            }
            trainer.apply(loss, &sum).unwrap();
            let wanted = bench.goldens.get("preset.trajectory").get(step).unwrap();
            let distance = norm(&(&wanted - &start).unwrap());
            let error = norm(&(trainer.vectors().unwrap() - &wanted).unwrap()) / distance;
            assert!(error < 1e-3, "step {step}: {error:.2e} of the distance travelled");
        }
    }
}
