//! The real libraries through the real loader: our nodes and a third party's in one graph, on the tiny model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{Folders, Presence, folder};
use vocable_host_sdk::graph::{CancelFlag, Event, Executor, RunError, RunOptions, Workflow};
use vocable_host_sdk::loader::{load_plugin, plugin_file_name};
use vocable_host_sdk::registry::Registry;

use crate::support::tiny;

/// A library of this workspace, where `cargo build --release` puts it.
fn library(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let file = target.join(plugin_file_name(name));
    assert!(file.is_file(), "{} is missing: run `cargo build --release` first", file.display());
    file
}

struct Host {
    executor: Executor,
    home: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut folders = Folders::new().with(folder::CHECKPOINTS, tiny().parent().unwrap());
        for kind in [folder::INPUT, folder::OUTPUT, folder::EMBEDDINGS, folder::TEMP] {
            let path = home.path().join(kind);
            std::fs::create_dir(&path).unwrap();
            folders = folders.with(kind, path);
        }
        let mut registry = Registry::new();
        for name in ["vocable_plugin", "write_a_plugin"] {
            registry.register_plugin(load_plugin(&library(name)).unwrap()).unwrap();
        }
        Self { executor: Executor::new(Arc::new(registry), folders), home }
    }

    fn pictures(&self, name: &str, side: u32) {
        let folder = self.home.path().join(folder::INPUT).join(name);
        std::fs::create_dir(&folder).unwrap();
        for i in 0..2u8 {
            let picture = image::RgbImage::from_fn(side, side, |x, y| {
                image::Rgb([(x * 4) as u8, (y * 4) as u8, i * 100])
            });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }

    fn run(
        &self,
        graph: &Json,
        options: &RunOptions,
    ) -> Result<vocable_host_sdk::graph::RunReport, RunError> {
        self.executor.run(&Workflow::from_json_text(&graph.to_string()).unwrap(), options)
    }

    /// What is wrong with the graph, as text: found before it runs, or while it does.
    fn error(&self, graph: &Json) -> String {
        let targets = ["4", "5", "6", "7"].map(str::to_owned).to_vec();
        match self.run(graph, &RunOptions { targets: Some(targets), ..RunOptions::default() }) {
            Ok(report) => report.validation.to_string(),
            Err(RunError::Failed { report }) => report
                .failures
                .iter()
                .map(|failure| failure.error.to_string() + &failure.error.help)
                .collect(),
            Err(error) => error.to_string(),
        }
    }
}

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

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
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
    host.run(&learn(4), &RunOptions::default()).unwrap();
    assert_eq!(files(&host.home.path().join(folder::EMBEDDINGS)), ["x.safetensors"]);
    let embedding = std::fs::read(host.home.path().join(folder::EMBEDDINGS).join("x.safetensors")).unwrap();

    // Without the cache, too, the finished run is found in its folder and the same bytes come out.
    host.executor.clear_cache();
    let start = Instant::now();
    host.run(&learn(4), &RunOptions::default()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    for name in files(&host.home.path().join(folder::EMBEDDINGS)) {
        let file = host.home.path().join(folder::EMBEDDINGS).join(name);
        assert_eq!(std::fs::read(file).unwrap(), embedding);
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
    assert!(raised.elapsed() < Duration::from_secs(1), "cancel took {:?}", raised.elapsed());
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
        (with("2", "folder", json!("one_pixel")), "0.png"),
        (with("2", "folder", json!("empty")), "empty"),
        (with("2", "folder", json!("nowhere")), "nowhere"),
        (with("1", "ckpt_name", json!("nothing.safetensors")), "nothing.safetensors"),
        (with("3", "vectors", json!(200)), "200"),
        (with("3", "placeholder", json!("cat")), "cat"),
        (with("3", "concept", json!(["1", 0])), "concept"),
        (with("3", "model", json!(["3", 0])), "cycle"),
        (with("6", "text", json!("photo of embedding:missing")), "missing"),
    ] {
        let error = host.error(&graph);
        assert!(error.to_lowercase().contains(wanted), "wanted {wanted} in: {error}");
    }
    let mut graph = learn(2);
    graph["3"]["inputs"].as_object_mut().unwrap().shift_remove("concept");
    assert!(host.error(&graph).contains("concept"), "a missing input is named");
    graph["3"]["class_type"] = json!("VocableTrainTextualInversio");
    assert!(host.error(&graph).contains("VocableTrainTextualInversio"));
}
