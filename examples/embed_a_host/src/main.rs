//! **A host in one file:** loads a plugin, lists its nodes, runs a small workflow, prints what happens.
//!
//! ```text
//! cargo build --release -p write-a-plugin -p embed-a-host
//! target/release/embed-a-host                # the plugins beside the program
//! target/release/embed-a-host path/to/plugin # or this one
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use vocable_host_sdk::abi::{
    Folders, HostContext, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, TensorBuf,
};
use vocable_host_sdk::graph::{Event, Executor, RunOptions, Workflow};
use vocable_host_sdk::loader::{find_plugins_beside_executable, load_plugin};
use vocable_host_sdk::registry::Registry;

/// A host can bring nodes of its own, without a library: this one makes a dark picture of 2 × 2 pixels.
struct DarkImage;

impl Node for DarkImage {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("HostDarkImage", "Dark Image").output(OutputSpec::new("IMAGE", "IMAGE"))
    }
    fn execute(&self, _inputs: Inputs, _host: &HostContext) -> Result<Outputs, NodeError> {
        Ok(Outputs::one(TensorBuf::from_vec_f32(&[1, 2, 2, 3], vec![0.25; 12])?))
    }
}

/// ComfyUI's API format; `["1", 0]` is a link to the first output of node 1.
const WORKFLOW: &str = r#"{
    "1": {"class_type": "HostDarkImage", "inputs": {}},
    "2": {"class_type": "ExampleInvertImage", "inputs": {"image": ["1", 0], "strength": 1.0}}
}"#;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut registry = Registry::new();
    registry.register_native("own nodes", [Arc::new(DarkImage) as Arc<dyn Node>])?;
    let files = match std::env::args_os().nth(1) {
        Some(file) => vec![PathBuf::from(file)],
        None => find_plugins_beside_executable()?,
    };
    for file in files {
        registry.register_plugin(load_plugin(&file)?)?;
    }
    for (id, registered) in registry.iter() {
        println!("{id} from {}", registered.origin);
    }

    let workflow = Workflow::from_json_text(WORKFLOW)?;
    let executor = Executor::new(Arc::new(registry), Folders::new());
    let options = RunOptions {
        targets: Some(vec!["2".to_string()]), // It has no output node, so say what is wanted.
        sink: Arc::new(|event: &Event| println!("{}", event.to_json())),
        ..RunOptions::default()
    };
    let report = executor.run(&workflow, &options)?;
    let image = report.value("2", 0).and_then(|value| value.as_tensor()).ok_or("no picture")?;
    println!("{:?}: {:?}", image.shape(), image.to_vec_f32()?);
    Ok(())
}
