//! An imported model computes what the same model computes that is loaded from its file, bit for bit.

use vocable_engine::diffusion::TorchRng;
use vocable_engine::models::AddedConditioning;
use vocable_engine::ops::Tape;
use vocable_host_sdk::abi::Node;

use super::*;
use crate::generation::{KSampler, VaeDecode, VaeEncode};
use crate::learning::{EncodePrompt, ExportModel, LoadConceptImages, TrainTextualInversion};

/// All numbers in a value.
fn bits(value: &Value) -> Vec<u32> {
    match value {
        Value::Tensor(tensor) => tensor.to_vec_f32().unwrap().into_iter().map(f32::to_bits).collect(),
        Value::List(values) => values.iter().flat_map(bits).collect(),
        Value::Map(values) => values.values().flat_map(bits).collect(),
        _ => Vec::new(),
    }
}

/// The first result of a node on these parts.
fn run(home: &Home, node: &dyn Node, parts: &Inputs, inputs: Inputs) -> Value {
    let all = parts.iter().fold(inputs, |inputs, (name, value)| inputs.with(name, value.clone()));
    home.run(node, all).unwrap().results.remove(0)
}

fn random(shape: &[usize]) -> Tensor {
    Tensor::from_vec(TorchRng::new(9).randn(shape.iter().product()), shape, &Device::Cpu).unwrap()
}

fn pictures(count: usize) -> Value {
    let numbers = (0..count * 64 * 64 * 3).map(|i| (i * i % 251) as f32 / 250.0).collect();
    TensorBuf::from_vec_f32(&[count, 64, 64, 3], numbers).unwrap().into()
}

/// What a part of each kind computes, by name.
fn results(home: &Home, parts: &Inputs) -> Vec<(&'static str, Vec<u32>)> {
    let prompt = |text: &str| run(home, &EncodePrompt, parts, Inputs::new().with("text", text));
    let (positive, negative) = (prompt("a (photo:1.2) of a cat"), prompt(""));
    let latent = run(home, &VaeEncode, parts, Inputs::new().with("pixels", pictures(1)));
    let picture = run(home, &VaeDecode, parts, Inputs::new().with("samples", latent.clone()));
    let states = &positive.as_list().unwrap()[0].as_list().unwrap()[0];
    let told = model(parts).denoiser.unet.config().pooled_width().is_some();
    let mut results = vec![
        // The pooled state counts where the denoiser is told it.
        ("conditioning", bits(if told { &positive } else { states })),
        ("latent", bits(&latent)),
        ("picture", bits(&picture)),
    ];

    let denoiser = &model(parts).denoiser;
    let unet = denoiser.unet.config();
    let added = unet.pooled_width().map(|width| AddedConditioning {
        text_embeds: random(&[1, width]).into(),
        time_ids: vec![[64.0, 64.0, 0.0, 8.0, 64.0, 64.0]],
    });
    let x = random(&[1, unet.in_channels, 8, 8]).into();
    let context = random(&[1, 77, unet.cross_attention_dim]).into();
    let y = denoiser.unet.forward(&Tape::default(), &x, &[417.0], &context, added.as_ref()).unwrap();
    results.push(("denoiser", bits(&tensor_into(y.value()).unwrap().into())));

    let inputs = Inputs::new()
        .with("seed", 3)
        .with("steps", 1)
        .with("cfg", 3.0)
        .with("sampler_name", "euler")
        .with("scheduler", "simple")
        .with("denoise", 0.7)
        .with("positive", positive)
        .with("negative", negative)
        .with("latent_image", latent);
    results.push(("a step of KSampler", bits(&run(home, &KSampler, parts, inputs))));
    let one = |value: Value| Value::List(vec![value]);
    let inputs = Inputs::new().with("images", one(pictures(2))).with("resolution", one(64.into()));
    let inputs = Inputs::new()
        .with("concept", home.run(&LoadConceptImages, inputs).unwrap().results.remove(0))
        .with("placeholder", "<zorvo>")
        .with("init_words", "cat")
        .with("preset", "recommended")
        .with("steps", 1)
        .with("seed", 7);
    results.push(("a step of training", bits(&run(home, &TrainTextualInversion, parts, inputs))));
    results
}

fn compare(family: &str) {
    let home = Home::new();
    let file = file_of(family);
    let loaded = load(&home, family, &file);
    let handed = hand_in_all(&home, &file, &loaded);
    let (ours, theirs) = (model(&loaded), model(&handed));
    assert_eq!(theirs.denoiser.schedule, ours.denoiser.schedule);
    assert_eq!(theirs.family.map(|family| family.id), ours.family.map(|family| family.id));
    let config = |model: &Model| format!("{:?}", model.denoiser.unet.config());
    assert_eq!(config(&theirs), config(&ours));
    assert_eq!(
        format!("{:?}", vae(&handed).autoencoder.config()),
        format!("{:?}", {
            // The file's own factor, which the host tells with the denoiser.
            let mut config = vae(&loaded).autoencoder.config().clone();
            config.scaling_factor = vae(&handed).autoencoder.config().scaling_factor;
            config
        })
    );
    for ((name, ours), (_, theirs)) in results(&home, &loaded).into_iter().zip(results(&home, &handed)) {
        assert!(ours.len() > 63, "{family}: {name}");
        assert!(ours == theirs, "{family}: {name}");
    }
}

#[test]
fn stable_diffusion_1() {
    compare("sd1");
}

#[test]
fn an_imported_model_is_exported_as_the_same_file() {
    for family in ["sd1", "sdxl"] {
        let home = Home::new();
        let file = file_of(family);
        let loaded = load(&home, family, &file);
        let export = |parts: &Inputs| {
            let path = run(&home, &ExportModel, parts, Inputs::new());
            std::fs::read(path.as_str().unwrap()).unwrap()
        };
        assert!(export(&hand_in_all(&home, &file, &loaded)) == export(&loaded), "{family}");
        let mut own = settings_of(&model(&loaded));
        let sigmas = TensorBuf::from_vec_f32(&[3], vec![0.1, 1.0, 10.0]).unwrap();
        own.insert("sigmas".to_string(), sigmas.into());
        let handed =
            hand_in(&home, StateKind::Model, state_dict(StateKind::Model, &file, &loaded), &own).unwrap();
        let error = home.run(&ExportModel, loaded.with("model", handed)).unwrap_err();
        assert!(error.message.contains("noise levels of its own"), "{error}");
    }
}

#[test]
fn stable_diffusion_1_inpainting() {
    compare("sd1_inpainting");
}

#[test]
fn stable_diffusion_2() {
    compare("sd2");
}

#[test]
fn stable_diffusion_2_v() {
    compare("sd2_v");
}

#[test]
fn stable_diffusion_xl() {
    compare("sdxl");
}
