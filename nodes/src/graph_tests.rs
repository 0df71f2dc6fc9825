//! The nodes one after the other on the tiny random pipeline of the golden tests.

use std::collections::BTreeMap;
use std::path::Path;

use vocable_host_sdk::abi::{
    ErrorKind, HostContext, Inputs, Node, NodeError, Plugin, StateKind, TensorBuf, Value,
};

use crate::generation::*;
use crate::learning::*;
use crate::testing::{Home, ListeningHost};

/// A home with the tiny pipeline, and its MODEL, CLIP and VAE.
pub(crate) fn home() -> (Home, [Value; 3]) {
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
    assert!(fails("a photo of <wide>", Some(&wide)).message.contains("<wide>"));
    assert!(fails("a embedding:wide", Some(&wide)).message.contains("width 32"));
    let (_, report) = prompt(&home, &clip, "a photo", Some(&wide)).unwrap();
    assert!(report.contains("not in the prompt: embedding <wide>"), "{report}");
    assert!(fails("a embedding:broken", None).message.contains("broken"));
    assert!(fails("a photo of <zorvo>", None).message.contains("<zorvo>"));
    // All that is wrong is told at once, each once.
    let error = fails("<wide>, embedding:cut embedding:nowhere <glip> <glip> embedding:nope", Some(&wide));
    for part in ["<wide>", "embedding cut", "nowhere, nope", "called <glip>"] {
        assert_eq!(error.message.matches(part).count(), 1, "{part}: {error}");
    }
    // What ComfyUI would read as ordinary text.
    for glued in ["a cat,embedding:file", "EMBEDDING:file", "x<zorvo>"] {
        let error = fails(glued, Some(&fitting));
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert!(error.message.contains(glued.split(' ').next_back().unwrap()), "{error}");
        assert!(error.help.contains("put a space before it"), "{error}");
    }

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
    assert_ne!(lenient("a cat,embedding:file"), lenient("a cat"), "read as text");
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

    // The same graph again: nothing is encoded or trained. What comes back is what the run's folder holds.
    let mark = 0.123;
    change_saved_vector(&home, mark);
    let listening = ListeningHost::new(&home.host);
    let again = listening.run(&TrainTextualInversion, training(&parts, concept.clone())).unwrap();
    assert_eq!(
        (word(&again.results[0])[0], &word(&again.results[0])[1..]),
        (mark, &word(&whole.results[0])[1..])
    );
    assert_eq!(numbers(&again.results[2]), numbers(&whole.results[2]));
    assert_eq!(listening.heard("was finished before at step 6 of 6").len(), 1);
    for work in ["encoding", "painting", "step 6 of 6, loss", "progress"] {
        assert_eq!(listening.heard(work), Vec::<String>::new());
    }

    // Other previews of a finished run are made without training.
    let inputs = training(&parts, concept.clone()).with("preview_count", 1);
    let listening = ListeningHost::new(&home.host);
    let other = listening.run(&TrainTextualInversion, inputs).unwrap();
    assert!(listening.heard("painting").len() == 1 && listening.heard("encoding").is_empty());
    assert_eq!(other.results[2].as_tensor().unwrap().dims(), [1, 32, 32, 3]);
    let silent = training(&parts, concept.clone()).with("preview_prompt", "");
    assert!(home.run(&TrainTextualInversion, silent).unwrap().results[2].is_none());

    // In another home the run is stopped after three steps, and then goes on.
    let other = Home::new();
    let stopping = ListeningHost::stopping_at(&other.host, "step 3 of 6");
    let inputs = training(&parts, concept.clone());
    let error = stopping.run(&TrainTextualInversion, inputs).unwrap_err();
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

/// The folder of the only run.
fn run_folder(home: &Home) -> std::path::PathBuf {
    let mut runs = std::fs::read_dir(home.path("output/vocable_runs")).unwrap();
    runs.next().unwrap().unwrap().path()
}

/// Writes another first number into the vectors of the only run that was saved.
fn change_saved_vector(home: &Home, number: f32) {
    let file = run_folder(home).join("state.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = 8 + header + json["vectors"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[start..start + 4].copy_from_slice(&number.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
}

#[test]
fn a_shorter_run_does_not_destroy_a_longer_one() {
    let (home, parts) = home();
    let concept = concept(&home);
    // The rate of this preset is constant, so that a longer run goes on where a shorter one ended.
    let losses = |steps: i64| {
        let listening = ListeningHost::new(&home.host);
        let inputs = training(&parts, concept.clone())
            .with("preset", "mmagic")
            .with("steps", steps)
            .with("preview_prompt", "");
        let outputs = listening.run(&TrainTextualInversion, inputs).unwrap();
        let losses = outputs.results[1].get("loss").unwrap().as_list().unwrap().to_vec();
        let losses: Vec<f64> = losses.iter().map(|loss| loss.as_float().unwrap()).collect();
        (losses, !listening.heard("encoding").is_empty())
    };
    let (long, trained) = losses(4);
    assert!(trained && long.len() == 4);
    assert_eq!(losses(2), (long[..2].to_vec(), true));
    assert_eq!(losses(4), (long.clone(), false), "the longer run is still there");
    assert_eq!(losses(2), (long[..2].to_vec(), false), "and so is the shorter one");
    let (longer, trained) = losses(5);
    assert!(trained && longer[..4] == long[..]);
}

#[test]
fn optimisers_and_norm_controls_are_what_they_are_called() {
    let (home, parts) = home();
    let concept = concept(&home);
    let learned = |more: &[(&str, Value)]| {
        let inputs = training(&parts, concept.clone()).with("steps", 2).with("preview_prompt", "");
        let inputs = more.iter().fold(inputs, |inputs, (name, value)| inputs.with(*name, value.clone()));
        let listening = ListeningHost::new(&home.host);
        let outputs = listening.run(&TrainTextualInversion, inputs).unwrap();
        let vectors = numbers(outputs.results[0].as_list().unwrap()[0].get("clip_l").unwrap());
        (vectors, listening)
    };
    let (preset, _) = learned(&[]);
    let (adamw, listening) = learned(&[("optimiser", "adamw".into())]);
    assert_eq!(adamw, preset);
    assert!(listening.heard("encoding").is_empty(), "it is the same run");
    let (sgd, listening) = learned(&[("optimiser", "sgd".into())]);
    assert_ne!(sgd, preset);
    assert_eq!(listening.heard("learning_rate of its own").len(), 1, "the preset's rate is not for it");
    let norm = |vectors: &[f32]| vectors.iter().map(|x| x * x).sum::<f32>().sqrt();
    let fixed = |more: &[(&str, Value)]| {
        let all: Vec<(&str, Value)> =
            [("norm_control", Value::from("fixed"))].into_iter().chain(more.iter().cloned()).collect();
        norm(&learned(&all).0)
    };
    let usual = fixed(&[]);
    assert!((fixed(&[("norm_strength", Value::Float(2.0))]) / usual - 2.0).abs() < 1e-4);
    assert!((fixed(&[("norm_strength", Value::Float(-1.0))]) / usual - 1.0).abs() < 1e-4);
}

#[test]
fn twins_of_the_pictures_are_dropped_where_they_are_not_wanted() {
    let (home, parts) = home();
    concept(&home);
    let inputs = Inputs::new()
        .with("folder", vec![Value::from("zorvo")])
        .with("resolution", vec![Value::Int(32)])
        .with("flip", vec![Value::Bool(true)]);
    let twins = home.run(&LoadConceptImages, inputs).unwrap().results.remove(0);
    // How many pictures were encoded.
    let encoded = |flip: &str| {
        let listening = ListeningHost::new(&home.host);
        let inputs =
            training(&parts, twins.clone()).with("steps", 1).with("preview_prompt", "").with("flip", flip);
        listening.run(&TrainTextualInversion, inputs).unwrap();
        [3, 6].map(|count| !listening.heard(&format!("progress {count} of {count}")).is_empty())
    };
    assert_eq!(encoded("no"), [true, false]);
    assert_eq!(encoded("preset"), [false, true]);
    assert_eq!(encoded("yes"), [false, true], "twins have no twins");
}

#[test]
fn words_of_another_model_are_handed_on() {
    let (home, parts) = home();
    let wide = crate::convert::embeddings_into(&[tests::word("<wide>", 1, 64)]).unwrap();
    let inputs = training(&parts, concept(&home)).with("steps", 1).with("embeddings", wide);
    let outputs = home.run(&TrainTextualInversion, inputs.clone()).unwrap();
    assert_eq!(outputs.results[0].as_list().unwrap().len(), 2);
    let asked = inputs.with("preview_prompt", "a {} and a <wide>");
    assert!(home.run(&TrainTextualInversion, asked).unwrap_err().message.contains("<wide>"));
}

#[test]
fn latents_taken_from_a_batch_keep_their_noise() {
    let (home, [model, clip, _]) = home();
    let positive = prompt(&home, &clip, "a cat", None).unwrap().0;
    let latent = |batch: i64| {
        let inputs = Inputs::new().with("width", 64).with("height", 64).with("batch_size", batch);
        home.run(&EmptyLatentImage, inputs).unwrap().results.remove(0)
    };
    let taken = |batch: i64, places: &[i64]| {
        let Value::Map(mut map) = latent(batch) else { panic!("not a map") };
        let places: Vec<Value> = places.iter().map(|place| Value::from(*place)).collect();
        map.insert("batch_index".to_string(), places.into());
        Value::Map(map)
    };
    let sample = |latent: Value| {
        let inputs = Inputs::new()
            .with("model", model.clone())
            .with("seed", 5)
            .with("steps", 2)
            .with("cfg", 1.0)
            .with("sampler_name", "euler")
            .with("scheduler", "normal")
            .with("positive", positive.clone())
            .with("negative", positive.clone())
            .with("latent_image", latent);
        home.run(&KSampler, inputs).map(|mut outputs| outputs.results.remove(0))
    };
    let samples = |latent: Value| numbers(sample(latent).unwrap().get("samples").unwrap());
    let close = |a: &[f32], b: &[f32]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + a.abs()))
    };
    let batch = samples(latent(3));
    let each: Vec<&[f32]> = batch.chunks(batch.len() / 3).collect();
    assert!(!close(each[0], each[2]));
    assert!(close(&samples(taken(1, &[2])), each[2]));
    assert!(close(&samples(taken(2, &[1, 1])), &[each[1], each[1]].concat()));
    assert!(sample(taken(2, &[1])).unwrap_err().message.contains("`batch_index`"));
    assert!(sample(taken(1, &[-1])).is_err());
    let again = sample(taken(1, &[2])).unwrap();
    assert_eq!(again.get("batch_index").unwrap().as_list().unwrap()[0].as_int(), Some(2));
}

#[test]
fn every_choice_of_names_is_checked_where_it_is_read() {
    let home = Home::new();
    let words = crate::convert::embeddings_into(&[tests::word("a", 1, 8)]).unwrap();
    let picture = TensorBuf::from_vec_f32(&[1, 32, 32, 3], vec![0.5; 32 * 32 * 3]).unwrap();
    let fails = |node: &dyn Node, name: &str| {
        let inputs = Inputs::new()
            .with("embedding", words.clone())
            .with("images", picture.clone())
            .with("after", picture.clone())
            .with(name, "no such name");
        // Names that come by link are read at execution only.
        let valid = node.validate(&inputs);
        valid.and_then(|()| home.run(node, inputs).map(|_| ())).unwrap_err().message
    };
    let nodes: [(&dyn Node, &[&str]); 4] = [
        (&LoadConceptImages, &["crop", "caption_source", "mask_means"]),
        (&ContactSheet, &["enlarge"]),
        (&SaveEmbedding, &["if_exists"]),
        (
            &TrainTextualInversion,
            &["preset", "template_set", "learning_rate_schedule", "optimiser", "norm_control", "flip"],
        ),
    ];
    for (node, names) in nodes {
        for &name in names {
            let message = fails(node, name);
            assert!(message.contains(&format!("`{name}`: `no such name` is not one of")), "{message}");
        }
    }
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
    assert!(fails("norm_control", "pul".into()).contains("none, fixed, pull"));
    let strong = training(&parts, concept.clone()).with("norm_control", "pull").with("norm_strength", 1.5);
    let error = home.run(&TrainTextualInversion, strong).unwrap_err();
    assert!(
        error.message.contains("`norm_strength`") && error.message.contains("1.5, wanted 0 to 1"),
        "{error}"
    );
    let decay = training(&parts, concept.clone()).with("optimiser", "adam").with("weight_decay", 0.01);
    assert!(home.run(&TrainTextualInversion, decay).unwrap_err().message.contains("`weight_decay`"));
    let own = Inputs::new().with("template_set", "own").with("templates", "no place");
    assert!(TrainTextualInversion.validate(&own).unwrap_err().message.contains("no place"));
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
    let (home, [_, clip, loaded]) = home();
    let host = HostContext::new(&home.host);
    let vae = crate::Vocable.import_state_dict(StateKind::Vae, tensors, settings, &host).unwrap();
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
    let handed = crate::Vocable.import_state_dict(StateKind::Clip, tensors, settings, &host).unwrap();
    let encoded = |clip: &Value| hidden(&prompt(&home, clip, "a cat", None).unwrap().0);
    assert_eq!(encoded(&handed), encoded(&clip));
    let (tensors, settings) = part("unet", "diffusion_pytorch_model.safetensors");
    crate::Vocable.import_state_dict(StateKind::Model, tensors, settings, &host).unwrap();
}
