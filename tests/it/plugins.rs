//! The real libraries through the real loader: our nodes and a third party's in one graph, on the tiny model.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{Presence, folder};
use vocable_host_sdk::graph::{CancelFlag, Event, EventSink, RunError, RunOptions};

use crate::host::{Host, files};

fn paint() -> Json {
    json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny"}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "photo of cat", "clip": ["1", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["1", 1]}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 18446744073709551615u64, "steps": 2, "cfg": 2.0,
            "sampler_name": "dpmpp_2m", "scheduler": "karras", "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0], "denoise": 1.0}},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "ExampleInvertImage", "inputs": {"image": ["6", 0], "strength": 1.0}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "inverted"}},
    })
}

fn learn(steps: usize) -> Json {
    json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "tiny"}},
        "2": {"class_type": "VocableLoadConceptImages", "inputs": {"folder": "pictures", "resolution": 64}},
        "3": {"class_type": "VocableTrainTextualInversion", "inputs": {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "concept": ["2", 0],
            "placeholder": "<x>", "init_words": "cat", "vectors": 1, "preset": "recommended", "seed": 3, "steps": steps, "batch_size": 1}},
        "4": {"class_type": "VocableSaveEmbedding", "inputs": {"embedding": ["3", 0]}},
        "5": {"class_type": "LossGraphNode", "inputs": {"loss": ["3", 1], "filename_prefix": "loss"}},
        "6": {"class_type": "VocableEncodePromptWithEmbeddings", "inputs": {"clip": ["1", 1], "text": "photo of <x>", "embeddings": ["3", 0]}},
        "7": {"class_type": "VocableInspectEmbedding", "inputs": {"embedding": ["3", 0]}},
    })
}

#[test]
fn a_third_partys_node_runs_in_a_graph_of_ours_and_nothing_is_done_twice() {
    let host = Host::new();
    let report = host.run(&paint(), &RunOptions::default()).unwrap();
    assert_eq!(report.executed.len(), 8);
    assert_eq!(files(&host.home.path().join(folder::OUTPUT)), ["inverted_00001_.png"]);
    let report = host.run(&paint(), &RunOptions::default()).unwrap();
    assert!(report.executed.is_empty(), "executed again: {:?}", report.executed);
    let mut other = paint();
    other["5"]["inputs"]["seed"] = json!(7);
    let mut executed = host.run(&other, &RunOptions::default()).unwrap().executed;
    executed.sort();
    assert_eq!(executed, ["5", "6", "7", "8"], "only the sampler and what follows it");
}

#[test]
fn every_node_is_documented_and_its_specification_sound() {
    let host = Host::new();
    for (id, registered) in host.executor.registry().iter() {
        let spec = registered.node.spec();
        assert!(spec.problems().is_empty(), "{id}: {:?}", spec.problems());
        assert!(!spec.description.is_empty(), "{id} has no description");
        for input in spec.inputs.iter().filter(|input| input.presence != Presence::Hidden) {
            assert!(!input.tooltip.is_empty(), "{id}.{} has no tooltip", input.name);
        }
    }
}

#[test]
fn a_word_is_learned_saved_and_used_in_one_graph() {
    let host = Host::new();
    host.pictures("pictures", 64);
    let steps = Arc::new(Steps::default());
    let options = RunOptions { sink: steps.clone(), ..RunOptions::default() };
    host.run(&learn(4), &options).unwrap();
    assert_eq!(steps.last(), 4, "the trainer tells its steps");
    assert_eq!(files(&host.home.path().join(folder::EMBEDDINGS)), ["x.safetensors"]);
    let embedding = std::fs::read(host.home.path().join(folder::EMBEDDINGS).join("x.safetensors")).unwrap();

    // Without the cache, too, the finished run is found in its folder: no step is trained, and the same bytes come out.
    host.executor.clear_cache();
    let report = host.run(&learn(4), &options).unwrap();
    assert!(report.executed.contains(&"3".to_owned()), "the node itself is asked again");
    assert_eq!(steps.last(), 0, "trained again");
    for name in files(&host.home.path().join(folder::EMBEDDINGS)) {
        let file = host.home.path().join(folder::EMBEDDINGS).join(name);
        assert_eq!(std::fs::read(file).unwrap(), embedding);
    }
}

/// The highest step that the trainer, node 3, told of: "step 3 of 4, …".
#[derive(Default)]
struct Steps(AtomicU64);

impl Steps {
    /// The last step since this was asked before; 0 if none was trained.
    fn last(&self) -> u64 {
        self.0.swap(0, Ordering::SeqCst)
    }
}

impl EventSink for Steps {
    fn event(&self, event: &Event) {
        let event = event.to_json();
        let text = event["data"]["text"].as_str().filter(|_| event["data"]["node"] == "3");
        let step = text.and_then(|text| text.strip_prefix("step ")?.split(' ').next()?.parse().ok());
        self.0.fetch_max(step.unwrap_or(0), Ordering::SeqCst);
    }
}

#[test]
fn cancel_keeps_what_was_learned_and_the_next_run_goes_on() {
    let host = Host::new();
    host.pictures("pictures", 64);
    let cancel = CancelFlag::new();
    let raised: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (stop, when) = (cancel.clone(), raised.clone());
    let options = RunOptions {
        cancel: cancel.clone(),
        // Training reports its steps; stop after some.
        sink: Arc::new(move |event: &Event| {
            let event = event.to_json();
            let value = &event["data"]["value"];
            if event["type"] == "progress"
                && event["data"]["node"] == "3"
                && value.as_f64().is_some_and(|v| v >= 3.0)
            {
                stop.cancel();
                when.lock().unwrap().get_or_insert_with(Instant::now);
            }
        }),
        ..RunOptions::default()
    };
    let result = host.run(&learn(100_000), &options);
    assert!(matches!(result, Err(RunError::Cancelled { .. })));
    let raised = raised.lock().unwrap().unwrap();
    // A second on a quiet machine, which `full_size` measures; this machine may be busy with other tests.
    assert!(raised.elapsed() < Duration::from_secs(5), "cancel took {:?}", raised.elapsed());
    let runs = host.home.path().join(folder::OUTPUT).join("vocable_runs");
    let run = runs.join(&files(&runs)[0]);
    assert!(files(&run).contains(&"state.safetensors".to_owned()));
    // The host is alive.
    host.run(&paint(), &RunOptions::default()).unwrap();
}

#[test]
fn what_is_wrong_is_said() {
    let host = Host::new();
    host.pictures("pictures", 64);
    host.pictures("one_pixel", 1);
    std::fs::create_dir(host.home.path().join(folder::INPUT).join("empty")).unwrap();
    let with = |node: &str, input: &str, value: Json| {
        let mut graph = learn(2);
        graph[node]["inputs"][input] = value;
        graph
    };
    for (graph, wanted) in [
        (with("2", "folder", json!("one_pixel")), "0.png: 1x1 pixels, wanted at least 32x32"),
        (with("2", "folder", json!("empty")), "no pictures in the folder"),
        (with("2", "folder", json!("nowhere")), r#"'nowhere' not in ["empty", "one_pixel", "pictures"]"#),
        (with("1", "ckpt_name", json!("nothing.safetensors")), "ckpt_name: 'nothing.safetensors' not in"),
        (with("3", "vectors", json!(200)), "Value 200 bigger than max of 75"),
        (with("3", "placeholder", json!("cat")), "'cat' is a word that the text encoder already knows"),
        (
            with("3", "concept", json!(["1", 0])),
            "concept, received_type(MODEL) mismatch input_type(TI_CONCEPT)",
        ),
        (with("3", "model", json!(["3", 0])), "Dependency cycle detected: 3 -> 3"),
        (with("6", "text", json!("photo of embedding:missing")), "embeddings that do not exist: missing"),
        (with("3", "embeddings", json!("a word")), "it needs a link to another node"),
    ] {
        let error = host.error(&graph);
        assert!(error.contains(wanted), "wanted {wanted} in: {error}");
    }
    let mut graph = learn(2);
    graph["3"]["inputs"].as_object_mut().unwrap().shift_remove("concept");
    let error = host.error(&graph);
    assert!(error.contains("Required input is missing: concept"), "{error}");
    graph["3"]["class_type"] = json!("VocableTrainTextualInversio");
    let error = host.error(&graph);
    assert!(error.contains("Did you mean 'VocableTrainTextualInversion'?"), "{error}");
}
