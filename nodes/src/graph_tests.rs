//! The nodes one after the other on the tiny random pipeline of the golden tests.

use std::collections::BTreeMap;
use std::path::Path;

use vocable_host_sdk::abi::{ErrorKind, HostContext, Inputs, NodeError, Plugin, StateKind, TensorBuf, Value};

use crate::generation::*;
use crate::learning::*;
use crate::testing::{Home, StoppingHost};

/// A home with the tiny pipeline, and its MODEL, CLIP and VAE.
fn home() -> (Home, [Value; 3]) {
    let home = Home::new();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny");
    let inputs = Inputs::new().with("ckpt_name", tiny.to_str().unwrap());
    let outputs = home.run(&CheckpointLoaderSimple, inputs).unwrap();
    let parts = outputs.results.try_into().unwrap();
    (home, parts)
}

fn prompt(
    home: &Home,
    clip: &Value,
    text: &str,
    words: Option<&Value>,
) -> Result<(Value, String), NodeError> {
    let inputs = Inputs::new().with("clip", clip.clone()).with("text", text);
    let inputs = words.iter().fold(inputs, |inputs, words| inputs.with("embeddings", (*words).clone()));
    let results = home.run(&EncodePrompt, inputs)?.results;
    Ok((results[0].clone(), results[1].as_str().unwrap().to_string()))
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_tensor().unwrap().to_vec_f32().unwrap()
}

fn hidden(conditioning: &Value) -> Vec<f32> {
    numbers(&conditioning.as_list().unwrap()[0].as_list().unwrap()[0])
}

fn concept(home: &Home) -> Value {
    let folder = home.path("input/zorvo");
    if !folder.exists() {
        std::fs::create_dir(&folder).unwrap();
        for shade in 0..3u8 {
            let picture =
                image::RgbImage::from_fn(40, 32, |x, y| image::Rgb([x as u8 * 6, y as u8 * 7, shade * 80]));
            picture.save(folder.join(format!("{shade}.png"))).unwrap();
        }
        std::fs::write(folder.join("broken.png"), b"no picture").unwrap();
    }
    let inputs =
        Inputs::new().with("folder", vec![Value::from("zorvo")]).with("resolution", vec![Value::Int(32)]);
    let outputs = home.run(&LoadConceptImages, inputs).unwrap();
    assert_eq!(outputs.results[1].as_tensor().unwrap().dims(), [3, 32, 32, 3]);
    assert_eq!(outputs.results[2].as_int(), Some(3));
    assert!(outputs.ui.unwrap().contains("broken.png"));
    outputs.results[0].clone()
}

fn training(parts: &[Value; 3], concept: Value) -> Inputs {
    let [model, clip, vae] = parts.clone();
    Inputs::new()
        .with("model", model)
        .with("clip", clip)
        .with("vae", vae)
        .with("concept", concept)
        .with("placeholder", "<zorvo>")
        .with("init_words", "cat")
        .with("preset", "recommended")
        .with("steps", 6)
        .with("preview_prompt", "a photo of {}")
        .with("preview_steps", 2)
        .with("preview_interval", 4)
        .with("seed", 7)
}

#[test]
fn a_prompt_becomes_pictures() {
    let (home, [model, clip, vae]) = home();
    let positive = prompt(&home, &clip, "a (photo:1.2) of a cat", None).unwrap().0;
    let negative = home
        .run(&ClipTextEncode, Inputs::new().with("clip", clip).with("text", ""))
        .unwrap()
        .results
        .remove(0);
    let inputs = Inputs::new().with("width", 64).with("height", 64).with("batch_size", 2);
    let latent = home.run(&EmptyLatentImage, inputs).unwrap().results.remove(0);
    let sample = |cfg: f64, sampler: &str, latent: &Value, denoise: f64| {
        let inputs = Inputs::new()
            .with("model", model.clone())
            .with("seed", u64::MAX)
            .with("steps", 3)
            .with("cfg", cfg)
            .with("sampler_name", sampler)
            .with("scheduler", "normal")
            .with("positive", positive.clone())
            .with("negative", negative.clone())
            .with("latent_image", latent.clone())
            .with("denoise", denoise);
        home.run(&KSampler, inputs).unwrap().results.remove(0)
    };
    let samples = |value: &Value| numbers(value.get("samples").unwrap());
    let guided = sample(4.0, "euler", &latent, 1.0);
    assert!(samples(&guided).iter().all(|x| x.is_finite()));
    assert_eq!(samples(&guided), samples(&sample(4.0, "euler", &latent, 1.0)));
    assert_ne!(samples(&guided), samples(&sample(1.0, "euler", &latent, 1.0)));
    assert_ne!(samples(&guided), samples(&sample(4.0, "euler_ancestral", &latent, 1.0)));
    assert_eq!(samples(&sample(4.0, "euler", &guided, 0.0)), samples(&guided));

    let inputs = Inputs::new().with("samples", guided).with("vae", vae.clone());
    let image = home.run(&VaeDecode, inputs).unwrap().results.remove(0);
    assert!(numbers(&image).iter().all(|x| (0.0..=1.0).contains(x)));
    let inputs = Inputs::new().with("pixels", image.clone()).with("vae", vae);
    let latent = home.run(&VaeEncode, inputs).unwrap().results.remove(0);
    assert_eq!(latent.get("samples").unwrap().as_tensor().unwrap().dims(), [2, 4, 8, 8]);
    home.run(&SaveImage, Inputs::new().with("images", image)).unwrap();
    assert!(home.path("output/ComfyUI_00002_.png").exists());
}

#[test]
fn what_a_prompt_asks_for_and_cannot_have_is_an_error() {
    let (home, [_, clip, _]) = home();
    let fitting = crate::convert::embeddings_into(&[tests::word("<zorvo>", 2, 32)]).unwrap();
    let wide = crate::convert::embeddings_into(&[tests::word("<wide>", 1, 64)]).unwrap();
    tests::word("cut", 1, 64).save(&home.path("embeddings/cut.safetensors")).unwrap();
    tests::word("file", 3, 32).save(&home.path("embeddings/file.safetensors")).unwrap();
    std::fs::write(home.path("embeddings/broken.safetensors"), b"xx").unwrap();
    let fails = |text: &str, words: Option<&Value>| prompt(&home, &clip, text, words).unwrap_err();

    assert!(fails("a embedding:nowhere", None).message.contains("nowhere"));
    assert_eq!(fails("a embedding:nowhere", None).kind, ErrorKind::NotFound);
    let error = fails("a embedding:cut", None);
    assert!(error.message.contains("64") && error.message.contains("32"), "{error}");
    assert!(fails("a photo", Some(&wide)).message.contains("<wide>"));
    assert!(fails("a embedding:broken", None).message.contains("broken"));
    assert!(fails("a photo of <zorvo>", None).message.contains("<zorvo>"));

    let (plain, _) = prompt(&home, &clip, "a photo of cat", Some(&fitting)).unwrap();
    let (learned, report) = prompt(&home, &clip, "a photo of <zorvo>", Some(&fitting)).unwrap();
    assert!(report.contains("found <zorvo> (linked, 2 vectors)"), "{report}");
    assert_ne!(hidden(&plain), hidden(&learned));
    let (named, _) = prompt(&home, &clip, "a photo of embedding:zorvo", Some(&fitting)).unwrap();
    assert_eq!(hidden(&named), hidden(&learned));
    let (_, report) = prompt(&home, &clip, "a embedding:file", Some(&fitting)).unwrap();
    assert!(report.contains("file") && report.contains("not in the prompt: <zorvo>"), "{report}");

    // ComfyUI's own node leaves out what it cannot find.
    let lenient = |text: &str| {
        let inputs = Inputs::new().with("clip", clip.clone()).with("text", text);
        hidden(&home.run(&ClipTextEncode, inputs).unwrap().results[0])
    };
    assert_eq!(lenient("embedding:nowhere a cat"), lenient("a cat"));
    assert_eq!(lenient("embedding:cut a cat"), lenient("a cat"));
    assert_ne!(lenient("embedding:file a cat"), lenient("a cat"));
}

#[test]
fn earlier_layers_give_other_states_and_a_long_prompt_more_chunks() {
    let (home, [_, clip, _]) = home();
    let stopped = |layer: i64| {
        let inputs = Inputs::new().with("clip", clip.clone()).with("stop_at_clip_layer", layer);
        let clip = home.run(&ClipSetLastLayer, inputs).unwrap().results.remove(0);
        hidden(&prompt(&home, &clip, "a cat", None).unwrap().0)
    };
    assert_eq!(stopped(-1), stopped(-24));
    assert_ne!(stopped(-1), stopped(-2));
    let long = prompt(&home, &clip, &"cat dog ".repeat(60), None).unwrap();
    assert_eq!(hidden(&long.0).len(), 2 * 77 * 32);
    assert!(long.1.contains("2 chunks"), "{}", long.1);
}

#[test]
fn a_word_is_learned_stopped_and_gone_on_with() {
    let (home, parts) = home();
    let concept = concept(&home);
    let whole = home.run(&TrainTextualInversion, training(&parts, concept.clone())).unwrap();
    let word = |value: &Value| numbers(value.as_list().unwrap()[0].get("clip_l").unwrap());
    assert_eq!(whole.results[1].get("loss").unwrap().as_list().unwrap().len(), 6);
    // At steps 0, 4 and 6, two pictures each.
    assert_eq!(whole.results[2].as_tensor().unwrap().dims(), [6, 32, 32, 3]);
    assert_eq!(whole.results[3].as_str(), Some("a photo of <zorvo>"));

    // The same graph again: nothing is trained.
    let before = std::time::Instant::now();
    let again = home.run(&TrainTextualInversion, training(&parts, concept.clone())).unwrap();
    assert_eq!(word(&again.results[0]), word(&whole.results[0]));
    assert_eq!(numbers(&again.results[2]), numbers(&whole.results[2]));
    assert!(before.elapsed().as_secs() < 20);

    // Other previews of a finished run are made without training.
    let inputs = training(&parts, concept.clone()).with("preview_count", 1);
    let other = home.run(&TrainTextualInversion, inputs).unwrap();
    assert_eq!(other.results[2].as_tensor().unwrap().dims(), [1, 32, 32, 3]);
    let silent = training(&parts, concept.clone()).with("preview_prompt", "");
    assert!(home.run(&TrainTextualInversion, silent).unwrap().results[2].is_none());

    // In another home the run is stopped after three steps, and then goes on.
    let other = Home::new();
    let stopping = StoppingHost::new(&other.host, "step 3 of 6");
    let inputs = training(&parts, concept.clone());
    let node: &dyn vocable_host_sdk::abi::Node = &TrainTextualInversion;
    let error = node.execute(inputs, &HostContext::new(&stopping)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Cancelled);
    assert!(error.help.contains("kept in"), "{error}");
    let resumed = other.run(&TrainTextualInversion, training(&parts, concept)).unwrap();
    assert_eq!(word(&resumed.results[0]), word(&whole.results[0]));
    assert_eq!(numbers(&resumed.results[2]), numbers(&whole.results[2]));

    // The word is saved and used.
    let saved = home.run(&SaveEmbedding, Inputs::new().with("embedding", whole.results[0].clone())).unwrap();
    assert_eq!(saved.results[1].as_str(), Some("embedding:zorvo"));
    let linked = prompt(&home, &parts[1], "a <zorvo>", Some(&whole.results[0])).unwrap().0;
    let named = prompt(&home, &parts[1], "a embedding:zorvo", None).unwrap().0;
    assert_eq!(hidden(&linked), hidden(&named));
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let (home, parts) = home();
    let concept = concept(&home);
    let fails = |name: &str, value: Value| {
        let inputs = training(&parts, concept.clone()).with(name, value);
        home.run(&TrainTextualInversion, inputs).unwrap_err().to_string()
    };
    assert!(fails("placeholder", "cat".into()).contains("cat"));
    assert!(fails("placeholder", "two words".into()).contains("two words"));
    assert!(fails("vectors", 200.into()).contains("200"));
    assert!(fails("init_words", "".into()).contains("init"));
    let own = Inputs::new().with("template_set", "own").with("templates", "no place");
    let node: &dyn vocable_host_sdk::abi::Node = &TrainTextualInversion;
    assert!(node.validate(&own).unwrap_err().message.contains("no place"));
    let taken = crate::convert::embeddings_into(&[tests::word("<zorvo>", 1, 32)]).unwrap();
    assert!(fails("embeddings", taken).contains("<zorvo>"));
}

#[test]
fn a_host_can_hand_in_the_weights() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny");
    let part = |name: &str, file: &str| {
        let file = tiny.join(name).join(file);
        let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
        let tensors =
            tensors.iter().map(|(name, tensor)| (name.clone(), crate::convert::tensor_into(tensor).unwrap()));
        let config = std::fs::read_to_string(tiny.join(name).join("config.json")).unwrap();
        (
            tensors.collect::<Vec<(String, TensorBuf)>>(),
            BTreeMap::from([("config".to_string(), Value::from(config))]),
        )
    };
    let (tensors, settings) = part("vae", "diffusion_pytorch_model.safetensors");
    let vae = crate::Vocable.import_state_dict(StateKind::Vae, tensors, settings).unwrap();
    let (home, [_, clip, loaded]) = home();
    let image =
        TensorBuf::from_vec_f32(&[1, 32, 32, 3], (0..32 * 32 * 3).map(|i| (i % 97) as f32 / 97.0).collect())
            .unwrap();
    let latents = |vae: Value| {
        let inputs = Inputs::new().with("pixels", image.clone()).with("vae", vae);
        numbers(home.run(&VaeEncode, inputs).unwrap().results[0].get("samples").unwrap())
    };
    assert_eq!(latents(vae), latents(loaded));

    let (tensors, mut settings) = part("text_encoder", "model.safetensors");
    settings.insert("tokenizer".to_string(), tiny.join("tokenizer").to_str().unwrap().into());
    let handed = crate::Vocable.import_state_dict(StateKind::Clip, tensors, settings).unwrap();
    let encoded = |clip: &Value| hidden(&prompt(&home, clip, "a cat", None).unwrap().0);
    assert_eq!(encoded(&handed), encoded(&clip));
    let (tensors, settings) = part("unet", "diffusion_pytorch_model.safetensors");
    crate::Vocable.import_state_dict(StateKind::Model, tensors, settings).unwrap();
}
