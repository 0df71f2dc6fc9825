//! Whether the graphs of `learn`, `generate` and `export`, and the workflows that ship, fit the nodes of the plugin beside the tests. Nothing is run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use vocable_host_sdk::abi::{Folders, folder};
use vocable_host_sdk::graph::{Workflow, validate};
use vocable_host_sdk::loader::plugin_file_name;
use vocable_host_sdk::registry::Registry;

use crate::checkpoint::Checkpoint;
use crate::cli::{Cli, Command};
use crate::{export, generate, learn, plugins, problems, words};

/// The plugin of this build, or those of the environment; `None` if there is none.
fn registry() -> Option<Arc<Registry>> {
    let program = std::env::current_exe().ok()?;
    let built = program.parent()?.parent()?.join(plugin_file_name("vocable_plugin"));
    let given: Vec<PathBuf> = Some(built).into_iter().filter(|path| path.is_file()).collect();
    if given.is_empty() && std::env::var_os("VOCABLE_PLUGINS").is_none() {
        println!("SKIPPED: the plugin is not built (cargo build --release -p vocable-plugin)");
        return None;
    }
    Some(plugins::load(&given).unwrap())
}

/// The folders that ship; tests run in the crate's folder.
fn folders(home: &Path) -> Folders {
    let examples = Path::new("../../examples");
    std::fs::create_dir_all(home.join("embeddings")).unwrap();
    let header = r#"{"__metadata__": {"name": "<zorvo>"}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    std::fs::write(home.join("embeddings/zorvo.safetensors"), bytes).unwrap();
    Folders::new()
        .with(folder::CHECKPOINTS, examples.join("models"))
        .with(folder::EMBEDDINGS, home.join("embeddings"))
        .with(folder::INPUT, examples.join("concepts"))
        .with(folder::OUTPUT, home.join("output"))
        .with(folder::TEMP, home.join("temp"))
        .with_base(home)
}

fn check(name: &str, workflow: &Workflow, registry: &Registry, folders: &Folders) {
    let validation = validate(workflow, registry, folders, None);
    let fits = validation.can_run() && validation.node_errors.is_empty();
    assert!(fits, "{name}: {}", problems::describe(workflow, &validation));
    for node in workflow.nodes() {
        let spec = registry.get(node.class()).unwrap().node.spec();
        for (input, _) in &node.inputs {
            assert!(
                spec.find_input(input).is_some(),
                "{name}: node {} ({}) has no `{input}`",
                node.id,
                spec.id
            );
        }
    }
}

#[test]
fn the_workflows_that_ship_fit_the_nodes() {
    let Some(registry) = registry() else { return };
    let home = tempfile::tempdir().unwrap();
    let folders = folders(home.path());
    let mut count = 0;
    for entry in std::fs::read_dir("../../examples/workflows").unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let workflow = Workflow::from_json_text(&text).unwrap();
        check(&entry.file_name().to_string_lossy(), &workflow, &registry, &folders);
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn the_graphs_of_the_commands_fit_the_nodes() {
    let Some(registry) = registry() else { return };
    let home = tempfile::tempdir().unwrap();
    let folders = folders(home.path());
    let checkpoint = Checkpoint::choose(None, &folders).unwrap();
    let chosen =
        "--style --preset paper --steps 7 --vectors 2 --batch 2 --lr 0.01 --seed 5 --prompt {} --cfg 3";
    for more in [vec![], chosen.split(' ').collect()] {
        let arguments = ["vocable", "learn", "zorvo", "--word", "<x>", "--init", "creature"];
        let Command::Learn(args) = Cli::parse_from(arguments.iter().chain(&more)).command else {
            unreachable!()
        };
        check("learn", &learn::workflow(&args, &checkpoint, &folders).unwrap(), &registry, &folders);
    }
    let arguments =
        ["vocable", "learn", "zorvo/1.png", "mibbet/1.png", "--word", "<x>", "--init", "creature"];
    let Command::Learn(args) = Cli::parse_from(arguments).command else { unreachable!() };
    let files = learn::workflow(&args, &checkpoint, &folders).unwrap();
    check("learn from files", &files, &registry, &folders);
    for prompt in ["a cat", "a <zorvo>", "a <zorvos>"] {
        let Command::Generate(args) = Cli::parse_from(["vocable", "generate", prompt]).command else {
            unreachable!()
        };
        let words = words::in_texts(&folders, &[prompt]);
        check("generate", &generate::workflow(&args, &checkpoint, &words).unwrap(), &registry, &folders);
    }
    for more in [&[][..], &["--layout", "diffusers", "--precision", "bf16"]] {
        let arguments = ["vocable", "export", "creatures", "out"];
        let Command::Export(args) = Cli::parse_from(arguments.iter().chain(more)).command else {
            unreachable!()
        };
        let out = export::Out::of(&args, &folders).unwrap();
        check("export", &export::workflow(&args, &out).unwrap(), &registry, &folders);
    }
}
