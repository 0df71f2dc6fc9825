//! A host with the real libraries, as the tests of whole graphs need it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use vocable_host_sdk::abi::{Folders, folder};
use vocable_host_sdk::graph::{Executor, RunError, RunOptions, RunReport, Workflow};
use vocable_host_sdk::loader::{load_plugin, plugin_file_name};
use vocable_host_sdk::registry::Registry;

use crate::support::tiny;

/// A library of this workspace, where `cargo build --release` puts it.
pub(crate) fn library(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let file = target.join(plugin_file_name(name));
    assert!(file.is_file(), "{} is missing: run `cargo build --release` first", file.display());
    file
}

/// A host in a folder of its own, with our plugin and a third party's.
pub(crate) struct Host {
    pub(crate) executor: Executor,
    pub(crate) home: tempfile::TempDir,
}

impl Host {
    /// With the tiny model.
    pub(crate) fn new() -> Self {
        Self::with_models(tiny().parent().unwrap())
    }

    /// With the models of a folder.
    pub(crate) fn with_models(checkpoints: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut folders = Folders::new().with(folder::CHECKPOINTS, checkpoints);
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

    /// Two pictures in a folder of the input folder.
    pub(crate) fn pictures(&self, name: &str, side: u32) {
        let folder = self.home.path().join(folder::INPUT).join(name);
        std::fs::create_dir(&folder).unwrap();
        for i in 0..2u8 {
            let picture = image::RgbImage::from_fn(side, side, |x, y| {
                image::Rgb([(x * 4) as u8, (y * 4) as u8, i * 100])
            });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }

    pub(crate) fn run(&self, graph: &Json, options: &RunOptions) -> Result<RunReport, RunError> {
        self.executor.run(&Workflow::from_json_text(&graph.to_string()).unwrap(), options)
    }

    /// What is wrong with the graph, as text: found before it runs, or while it does.
    pub(crate) fn error(&self, graph: &Json) -> String {
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

/// The names in a folder, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
