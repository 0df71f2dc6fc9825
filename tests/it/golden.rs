//! The engine against PyTorch on the same weights (`golden/tiny_model.py`). Both sides compute in f32; what remains is the order of sums,
//! so forward passes are asked to agree to 2e-5 of the result's norm.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{PipelineFolder, Precision};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::training::{MicroBatch, TrainingModels, loss_and_gradient};

use crate::support::{Goldens, norm, relative, tiny};

const FORWARD: f64 = 2e-5;

fn models() -> TrainingModels {
    let folder = PipelineFolder::open(&tiny()).unwrap();
    let cancel = CancelToken::new();
    TrainingModels {
        unet: folder.unet(&Device::Cpu, Precision::F32, &cancel).unwrap(),
        text_encoder: folder.text_encoder(&Device::Cpu, Precision::F32, &cancel).unwrap(),
        tokenizer: folder.tokenizer().unwrap(),
        schedule: Arc::new(folder.schedule().unwrap()),
        skip_layers: 0,
    }
}

fn no_vectors() -> Traced {
    Tensor::zeros((0, 32), DType::F32, &Device::Cpu).unwrap().into()
}

fn ids(goldens: &Goldens, name: &str) -> Vec<u32> {
    goldens.ids(name).into_iter().map(|id| id as u32).collect()
}

#[test]
fn text_encoder() {
    let goldens = Goldens::open("tiny.safetensors");
    let text = models().text_encoder;
    let ids = ids(&goldens, "text.ids");
    let eos = Some(523);
    let out = text.forward(&Tape::default(), &ids, 1, &no_vectors(), 0, eos).unwrap();
    assert!(relative(out.hidden.value(), &goldens.get("text.hidden")) < FORWARD);
    assert!(relative(&out.pooled.unwrap(), &goldens.get("text.pooled")) < FORWARD);
    let out = text.forward(&Tape::default(), &ids, 1, &no_vectors(), 1, eos).unwrap();
    assert!(relative(out.hidden.value(), &goldens.get("text.hidden_skip1")) < FORWARD);
    assert!(
        relative(&out.pooled.unwrap(), &goldens.get("text.pooled")) < FORWARD,
        "pooled is always of the last layer"
    );
}

#[test]
fn pooling_does_not_follow_the_highest_id() {
    // A placeholder whose vector is an ordinary word's row must pool exactly as that word does, though its id is above the end token's.
    let goldens = Goldens::open("tiny.safetensors");
    let text = models().text_encoder;
    let mut ids = ids(&goldens, "text.ids");
    let word = ids[4];
    let vector: Traced = text.token_embedding().narrow(0, word as usize, 1).unwrap().into();
    ids[4] = text.config().vocab_size as u32;
    let out = text.forward(&Tape::default(), &ids, 1, &vector, 0, Some(523)).unwrap();
    assert!(relative(&out.pooled.unwrap(), &goldens.get("text.pooled")) < FORWARD);
}

#[test]
fn unet() {
    let goldens = Goldens::open("tiny.safetensors");
    let unet = models().unet;
    let t: Vec<f64> = goldens.ids("unet.t").into_iter().map(|t| t as f64).collect();
    let context: Traced = goldens.get("unet.context").into();
    let y = unet.forward(&Tape::default(), &goldens.get("unet.x").into(), &t, &context).unwrap();
    assert!(relative(y.value(), &goldens.get("unet.y")) < FORWARD);
    let context: Traced = goldens.get("unet.context").narrow(0, 0, 1).unwrap().into();
    let y = unet.forward(&Tape::default(), &goldens.get("unet.x_wide").into(), &[500.0], &context).unwrap();
    assert!(relative(y.value(), &goldens.get("unet.y_wide")) < FORWARD);
}

#[test]
fn autoencoder() {
    let goldens = Goldens::open("tiny.safetensors");
    let cancel = CancelToken::new();
    let vae = PipelineFolder::open(&tiny()).unwrap().vae(&Device::Cpu, Precision::F32, &cancel).unwrap();
    let posterior = vae.encode(&goldens.get("vae.pixels"), &cancel).unwrap();
    assert!(relative(&posterior.mean, &goldens.get("vae.mean")) < FORWARD);
    assert!(relative(&posterior.std, &goldens.get("vae.std")) < FORWARD);
    let decoded = vae.decode(&goldens.get("vae.mean"), &cancel).unwrap();
    assert!(relative(&decoded, &goldens.get("vae.decoded")) < FORWARD);
}

fn micro_batch(goldens: &Goldens, step: usize) -> MicroBatch {
    let part = |name: &str| goldens.get(name).get(step).unwrap();
    MicroBatch {
        latents: part("train.z"),
        noise: part("train.noise"),
        timesteps: part("train.t").to_vec1::<i64>().unwrap().into_iter().map(|t| t as usize).collect(),
        ids: ids(goldens, "train.ids"),
        weight: None,
    }
}

#[test]
fn gradient_of_the_vectors() {
    let goldens = Goldens::open("tiny.safetensors");
    let (loss, gradient) = loss_and_gradient(
        &models(),
        &goldens.get("train.start"),
        &micro_batch(&goldens, 0),
        &CancelToken::new(),
    )
    .unwrap();
    let wanted: Vec<f32> = goldens.get("train.losses").to_vec1().unwrap();
    assert!((loss / f64::from(wanted[0]) - 1.0).abs() < 1e-5);
    let error = relative(&gradient, &goldens.get("train.gradient"));
    assert!(error < 1e-4, "relative error of the gradient: {error:.2e}");
}

#[test]
fn a_weight_of_one_changes_nothing() {
    let goldens = Goldens::open("tiny.safetensors");
    let mut batch = micro_batch(&goldens, 0);
    batch.weight = Some(Tensor::ones((2, 1, 8, 8), DType::F32, &Device::Cpu).unwrap());
    let (_, gradient) =
        loss_and_gradient(&models(), &goldens.get("train.start"), &batch, &CancelToken::new()).unwrap();
    assert!(relative(&gradient, &goldens.get("train.gradient")) < 1e-4);
}

#[test]
fn trajectory_of_torchs_adamw() {
    use vocable_engine::training::{AdamW, AdamWConfig};
    let goldens = Goldens::open("tiny.safetensors");
    let (models, cancel) = (models(), CancelToken::new());
    let start = goldens.get("train.start");
    let mut vectors: Vec<f32> = start.flatten_all().unwrap().to_vec1().unwrap();
    // The optimiser and rate of the `diffusers` preset.
    let mut adam = AdamW::new(AdamWConfig::default(), vectors.len());
    for step in 0..20 {
        let matrix = Tensor::from_slice(&vectors, (2, 32), &Device::Cpu).unwrap();
        let (_, gradient) =
            loss_and_gradient(&models, &matrix, &micro_batch(&goldens, step), &cancel).unwrap();
        adam.step(&mut vectors, &gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap(), 2e-3);
        let found = Tensor::from_slice(&vectors, (2, 32), &Device::Cpu).unwrap();
        let wanted = goldens.get("train.trajectory").get(step).unwrap();
        let distance = norm(&(&wanted - &start).unwrap());
        let error = norm(&(found - &wanted).unwrap()) / distance;
        assert!(error < 1e-3, "step {step}: {error:.2e} of the distance travelled");
    }
}
