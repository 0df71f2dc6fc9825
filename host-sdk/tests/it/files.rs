//! Real files: what is not a plugin, and two plugins that are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;
use vocable_host_sdk::abi::{
    ErrorKind, Folders, Handle, HostContext, Inputs, Node, Plugin, SilentHost, StateKind, TensorBuf, Value,
};
use vocable_host_sdk::graph::{CancelFlag, Event, EventKind, Executor, RunError, RunOptions};
use vocable_host_sdk::loader::{LoadError, LoadedPlugin, find_plugins, load_plugin, plugin_file_name};
use vocable_host_sdk::registry::Registry;

use crate::nodes::workflow;

/// Builds both plugins once, into the folder that this test program was built into, and names that folder.
fn built() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let program = std::env::current_exe().unwrap(); // target/<profile>/deps/it-…
        let folder = program.ancestors().nth(2).unwrap().to_path_buf();
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") => "dev",
            Some(name) => name,
            None => "dev",
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "write-a-plugin", "-p", "faulty-plugin", "--profile", profile])
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(status.success());
        folder
    })
}

fn load(crate_name: &str) -> LoadedPlugin {
    load_plugin(&built().join(plugin_file_name(crate_name))).unwrap_or_else(|error| panic!("{error}"))
}

fn node(plugin: &LoadedPlugin, id: &str) -> Arc<dyn Node> {
    plugin.plugin().nodes().into_iter().find(|node| node.spec().id == id).unwrap()
}

fn call(node: &Arc<dyn Node>, inputs: Inputs) -> Result<Vec<Value>, vocable_host_sdk::abi::NodeError> {
    node.execute(inputs, &HostContext::new(&SilentHost::default())).map(|outputs| outputs.results)
}

#[test]
fn what_is_not_a_plugin_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let check = |path: PathBuf, expected: fn(&LoadError) -> bool| {
        let error = load_plugin(&path).unwrap_err();
        assert!(expected(&error), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("help: "), "{text}");
    };
    check(dir.path().join("missing"), |error| matches!(error, LoadError::FileMissing { .. }));
    check(dir.path().to_path_buf(), |error| matches!(error, LoadError::Unreadable { .. }));
    check(write("empty", b""), |error| matches!(error, LoadError::NotALibrary { .. }));
    check(write("text", b"hello"), |error| matches!(error, LoadError::NotALibrary { .. }));
    let whole = std::fs::read(built().join(plugin_file_name("faulty_plugin"))).unwrap();
    check(write("cut", &whole[..2000]), |error| matches!(error, LoadError::NotALibrary { .. }));
    assert!(find_plugins(dir.path()).unwrap().is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn a_library_that_is_not_a_plugin_is_refused() {
    // The C library that this program runs on.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.split_whitespace().find(|word| word.contains("/libc")).unwrap();
    let error = load_plugin(Path::new(library)).unwrap_err();
    assert!(matches!(error, LoadError::NoRootModule { .. }), "{error:?}");
    assert!(error.to_string().contains("export_plugin!"));
}

#[test]
fn a_plugin_of_another_abi_stable_is_refused() {
    // A copy whose header says version 99, wherever the header stands.
    let mut bytes = std::fs::read(built().join(plugin_file_name("faulty_plugin"))).unwrap();
    let magic = b"abi stable library for Rust";
    let places: Vec<usize> = (0..bytes.len() - 36).filter(|at| bytes[*at..].starts_with(magic)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 32..at + 36].copy_from_slice(&99_u32.to_ne_bytes());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(plugin_file_name("other_abi"));
    std::fs::write(&path, bytes).unwrap();
    let error = load_plugin(&path).unwrap_err();
    assert!(matches!(error, LoadError::AbiStable { .. }), "{error:?}");
    assert!(error.to_string().contains("99"), "{error}");
}

#[test]
fn two_plugins_live_side_by_side() {
    let (example, faulty) = (load("write-a-plugin"), load("faulty-plugin"));
    assert_eq!((example.info().name.as_str(), faulty.info().name.as_str()), ("example", "faulty"));
    let found = find_plugins(built()).unwrap();
    assert!(
        found.iter().any(|path| path == example.path()) && found.iter().any(|path| path == faulty.path())
    );

    let mut registry = Registry::new();
    registry.register_plugin(example).unwrap();
    registry.register_plugin(faulty).unwrap();
    let error = registry.register_plugin(load("faulty-plugin")).unwrap_err().to_string();
    assert_eq!(error.matches("plugin faulty").count(), 2, "{error}");
    let info = registry.object_info(&Folders::new());
    assert_eq!(info["ExampleInvertImage"]["python_module"], "custom_nodes.example");
    assert_eq!(info["ExampleInvertImage"]["input"]["required"]["strength"][1]["max"], 1.0);
}

#[test]
fn a_plugins_node_works_without_copying_what_it_gets() {
    let plugin = load("write-a-plugin");
    let image = TensorBuf::from_vec_f32(&[1, 1, 1, 3], vec![0.0, 0.25, 1.0]).unwrap();
    let results =
        call(&node(&plugin, "ExampleInvertImage"), Inputs::new().with("image", image).with("strength", 1.0));
    assert_eq!(results.unwrap()[0].as_tensor().unwrap().as_f32_slice(), Some(&[1.0, 0.75, 0.0][..]));
    let error = call(&node(&plugin, "ExampleInvertImage"), Inputs::new().with("image", 5)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    assert_eq!(error.message, "input `image` should be a tensor, found INT 5");
}

#[test]
fn every_kind_of_value_goes_there_and_back() {
    let echo = node(&load("faulty-plugin"), "EchoNode");
    let tensor = TensorBuf::from_vec_f32(&[2], vec![1.0, 2.0]).unwrap();
    let at = tensor.data();
    let value = Value::List(vec![
        u64::MAX.into(),
        i64::MIN.into(),
        false.into(),
        Value::None,
        "ünï".into(),
        Value::map([("samples", Value::Tensor(tensor))]),
        Handle::new("MODEL", Arc::new("ours".to_string())).into(),
    ]);
    let back = call(&echo, Inputs::new().with("value", value.clone())).unwrap().remove(0);
    assert_eq!(format!("{back:?}"), format!("{value:?}"));
    let list = back.as_list().unwrap();
    assert_eq!(list[5].get("samples").unwrap().as_tensor().unwrap().data(), at, "shared, not copied");
    assert_eq!(*list[6].as_handle().unwrap().open::<String>().unwrap(), "ours");
}

#[test]
fn panics_stay_in_the_plugin() {
    let node = node(&load("faulty-plugin"), "PanickingNode");
    let inputs = |place: &str| Inputs::new().with("where", place);
    let host = SilentHost::default();
    let host = HostContext::new(&host);
    let errors = [
        (node.execute(inputs("execute"), &host).map(|_| ()), "a panic in execute"),
        (node.execute(inputs("execute without message"), &host).map(|_| ()), "without a message"),
        (node.validate(&inputs("validate")), "a panic in validate"),
        (node.fingerprint(&inputs("fingerprint"), &host).map(|_| ()), "a panic in fingerprint"),
    ];
    for (result, message) in errors {
        let error = result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Panicked);
        assert!(error.message.contains(message), "{error}");
    }
    assert_eq!(node.execute(inputs("nowhere"), &host).unwrap().results[0].as_int(), Some(1), "still usable");
}

#[test]
fn a_handle_is_opened_by_its_maker_alone_and_freed_by_it() {
    let node = node(&load("faulty-plugin"), "HandleNode");
    let made = call(&node, Inputs::new()).unwrap();
    assert_eq!(made[1].as_int(), Some(1));
    let handle = made[0].as_handle().unwrap().clone();
    assert!(!handle.is_ours());
    assert_eq!(handle.open::<u8>().unwrap_err().kind, ErrorKind::Incompatible);
    let again = call(&node, Inputs::new().with("model", handle.clone())).unwrap();
    assert_eq!(again[1].as_int(), Some(1));
    let ours = Handle::new("MODEL", Arc::new(1_u8));
    let error = call(&node, Inputs::new().with("model", ours)).unwrap_err();
    assert!(error.message.contains("another plugin"), "{error}");
    // Its drop panics, inside the plugin.
    drop((made, again, handle));
    assert_eq!(call(&node, Inputs::new()).unwrap()[1].as_int(), Some(1), "the first one is gone");
}

#[test]
fn weights_are_taken_or_refused_by_name() {
    let faulty = load("faulty-plugin");
    let import = |plugin: &dyn Plugin, kind, settings: &[(&str, i64)]| {
        let tensors = vec![("a.weight".to_string(), TensorBuf::from_vec_f32(&[1], vec![1.0]).unwrap())];
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_string(), Value::from(*value))).collect();
        let host = SilentHost::default();
        plugin.import_state_dict(kind, tensors, settings, &HostContext::new(&host))
    };
    let plugin = faulty.plugin().as_ref();
    assert_eq!(import(plugin, StateKind::Vae, &[]).unwrap().kind(), "VAE");
    assert!(import(plugin, StateKind::Vae, &[("scale", 1)]).unwrap_err().message.contains("`scale`"));
    assert_eq!(import(plugin, StateKind::Clip, &[]).unwrap_err().kind, ErrorKind::Panicked);
    let error = import(load("write-a-plugin").plugin().as_ref(), StateKind::Model, &[]).unwrap_err();
    assert!(error.message.contains("`example`") && error.message.contains("MODEL"), "{error}");
}

#[test]
fn a_plugins_node_tells_how_far_it_is_and_can_be_stopped() {
    let mut registry = Registry::new();
    registry.register_plugin(load("faulty-plugin")).unwrap();
    let executor = Executor::new(Arc::new(registry), Folders::new());
    let cancel = CancelFlag::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let options = {
        let (cancel, seen) = (cancel.clone(), seen.clone());
        let sink = move |event: &Event| {
            seen.lock().unwrap().push(event.type_name());
            if matches!(event.kind, EventKind::Progress { value: 3, .. }) {
                cancel.cancel();
            }
        };
        RunOptions { sink: Arc::new(sink), ..RunOptions::default() }
    };
    let options = RunOptions { cancel, ..options };
    let started = Instant::now();
    let sleep = workflow(json!({"1": {"class_type": "SleepingNode", "inputs": {"seconds": 60}}}));
    let error = executor.run(&sleep, &options).unwrap_err();
    assert!(matches!(error, RunError::Cancelled { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
    for wanted in ["progress", "preview", "progress_text", "log", "execution_interrupted"] {
        assert!(seen.lock().unwrap().contains(&wanted), "{wanted}");
    }
    options.cancel.reset();
    let wrong = workflow(json!({"1": {"class_type": "WrongOutputsNode", "inputs": {}}}));
    let error = executor.run(&wrong, &options).unwrap_err().to_string();
    assert!(error.contains("answered 1 results, its spec has 2 outputs"), "{error}");
}
