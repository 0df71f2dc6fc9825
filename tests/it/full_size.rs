//! Cancel at the size of the real Stable Diffusion 1.5, at 512 px: in every phase the host gets its answer within a second.
//!
//! Opt-in, for it needs 2 GB of random weights: `tests/golden/full_size.py` makes them, and the test's message says how.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::folder;
use vocable_host_sdk::graph::{CancelFlag, Event, RunError, RunOptions};

use crate::host::{Host, files};

/// Where a run is stopped: `after` the moment at which `node` began, or made its first step of progress.
struct Stop {
    phase: &'static str,
    node: &'static str,
    progressed: bool,
    after: Duration,
}

fn model() -> Option<PathBuf> {
    std::env::var_os("VOCABLE_FULL_SIZE").map(PathBuf::from)
}

fn graph(model: &Path) -> Json {
    let name = model.file_name().unwrap().to_string_lossy();
    json!({
        "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "concept": {"class_type": "VocableLoadConceptImages", "inputs": {"folder": "pictures", "resolution": 512}},
        "train": {"class_type": "VocableTrainTextualInversion", "inputs": {"model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2],
            "concept": ["concept", 0], "placeholder": "<x>", "init_words": "cat", "vectors": 1, "preset": "recommended", "seed": 3,
            "steps": 1000, "batch_size": 1, "preview_prompt": ""}},
        "save": {"class_type": "VocableSaveEmbedding", "inputs": {"embedding": ["train", 0]}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": "pictures/0.png"}},
        "encode": {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["load", 2]}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["encode", 0], "vae": ["load", 2]}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "photo of cat", "clip": ["load", 1]}},
        "sample": {"class_type": "KSampler", "inputs": {"model": ["load", 0], "seed": 1, "steps": 20, "cfg": 7.0, "sampler_name": "euler",
            "scheduler": "normal", "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["empty", 0], "denoise": 1.0}},
        "alive": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
        "preview": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
        "sampled": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["load", 2]}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["sampled", 0], "filename_prefix": "x"}},
        "one_step": {"class_type": "VocableSaveEmbedding", "inputs": {"embedding": ["short", 0]}},
        "short": {"class_type": "VocableTrainTextualInversion", "inputs": {"model": ["load", 0], "clip": ["load", 1], "vae": ["load", 2],
            "concept": ["concept", 0], "placeholder": "<y>", "init_words": "cat", "vectors": 1, "preset": "recommended", "seed": 3,
            "steps": 1, "batch_size": 1, "preview_prompt": ""}},
    })
}

/// Runs `target` and stops it; how long the host then waited, or `None` if the run was over before.
fn stop(host: &Host, graph: &Json, target: &str, stop: &Stop) -> Option<Duration> {
    let cancel = CancelFlag::new();
    let raised: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (flag, when) = (cancel.clone(), raised.clone());
    let (node, progressed, after) = (stop.node, stop.progressed, stop.after);
    let begun = Mutex::new(false);
    let options = RunOptions {
        cancel,
        targets: Some(vec![target.to_owned()]),
        sink: Arc::new(move |event: &Event| {
            let event = event.to_json();
            let wanted = if progressed { "progress" } else { "executing" };
            if event["type"] != wanted || event["data"]["node"] != node {
                return;
            }
            if !std::mem::replace(&mut *begun.lock().unwrap(), true) {
                let (flag, when) = (flag.clone(), when.clone());
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    *when.lock().unwrap() = Some(Instant::now());
                    flag.cancel();
                });
            }
        }),
        ..RunOptions::default()
    };
    let result = host.run(graph, &options);
    let ended = Instant::now();
    match result {
        Err(RunError::Cancelled { .. }) => Some(ended - raised.lock().unwrap().unwrap()),
        Ok(_) => None,
        Err(error) => panic!("{}: {error}", stop.phase),
    }
}

#[test]
fn cancel_takes_less_than_a_second_in_every_phase() {
    let Some(model) = model() else {
        println!(
            "SKIPPED: VOCABLE_FULL_SIZE names no folder of full-size weights; tests/golden/full_size.py makes one"
        );
        return;
    };
    let host = Host::with_models(model.parent().unwrap());
    host.pictures("pictures", 512);
    let graph = graph(&model);
    let mut worst = Duration::ZERO;
    // The loaded model stays in the host's cache from the first phase that needs it on.
    for (phase, target, node, progressed, moments) in [
        ("load", "preview", "load", false, &[0.05, 0.5, 2.0][..]),
        ("encode", "preview", "encode", false, &[0.5, 2.0, 4.0]),
        ("decode", "preview", "decode", false, &[1.0, 5.0, 9.0]),
        ("sample", "saved", "sample", false, &[1.0, 7.5, 15.0]),
        ("encode for training", "save", "train", false, &[1.0, 5.0]),
        ("train", "save", "train", true, &[25.0, 40.0, 61.0]),
        ("save", "one_step", "one_step", false, &[0.0]),
    ] {
        for seconds in moments {
            let after = Duration::from_secs_f64(*seconds);
            let waited = stop(&host, &graph, target, &Stop { phase, node, progressed, after });
            let found =
                waited.map_or("it was over before".into(), |waited| format!("{} ms", waited.as_millis()));
            println!("cancel in {phase}, {seconds} s into it: {found}");
            worst = worst.max(waited.unwrap_or_default());
        }
    }
    assert!(worst < Duration::from_secs(1), "the host waited {worst:?}");
    // The vectors so far are kept, and the host is alive.
    let runs = host.home.path().join(folder::OUTPUT).join("vocable_runs");
    let kept = files(&runs)
        .iter()
        .filter(|run| files(&runs.join(run)).contains(&"state.safetensors".into()))
        .count();
    assert!(kept > 0, "no run kept its vectors");
    let targets = Some(vec!["alive".to_owned()]);
    host.run(&graph, &RunOptions { targets, ..RunOptions::default() }).unwrap();
}
