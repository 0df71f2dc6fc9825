//! Runs a graph and says what came of it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{Choices, Folders};
use vocable_host_sdk::graph::{
    CancelFlag, EventSink, Executor, RunError, RunOptions, RunReport, Workflow, WorkflowNode,
};
use vocable_host_sdk::registry::Registry;

use crate::cli::{PlaceArgs, WatchArgs};
use crate::failure::Failure;
use crate::show::Screen;
use crate::{interrupt, plugins, print, problems};

/// Plugins, folders and screen of a command.
pub(crate) struct Session {
    registry: Arc<Registry>,
    folders: Folders,
    threads: Option<u16>,
    screen: Arc<Screen>,
}

impl Session {
    /// Loads the plugins.
    pub(crate) fn open(places: &PlaceArgs, watch: &WatchArgs, folders: Folders) -> Result<Self, Failure> {
        let registry = plugins::load(&places.plugin)?;
        Ok(Self { registry, folders, threads: watch.threads, screen: Arc::new(Screen::new(watch)) })
    }

    /// The workflow with `NODE.INPUT=VALUE` applied, and with paths that hold from the current folder made whole.
    pub(crate) fn set(&self, mut workflow: Workflow, assignments: &[String]) -> Result<Workflow, Failure> {
        for assignment in assignments {
            apply(&mut workflow, assignment, &self.registry)?;
        }
        with_whole_paths(workflow, &self.registry, &self.folders)
    }

    /// Runs all outputs of the workflow, or nothing if there is any problem in it.
    pub(crate) fn run(&self, workflow: &Workflow) -> Result<RunReport, Failure> {
        let mut executor = Executor::new(self.registry.clone(), self.folders.clone());
        if let Some(threads) = self.threads {
            executor = executor.with_threads(threads.into());
        }
        let validation = executor.validate(workflow, None);
        if !validation.can_run() || !validation.node_errors.is_empty() {
            self.screen.event_json(&json!({"type": "validation_failed", "data": validation.to_json()}));
            return Err(Failure::Invalid(problems::describe(workflow, &validation)));
        }
        self.screen.name_nodes(workflow, &self.registry);
        let cancel = CancelFlag::new();
        interrupt::watch(cancel.clone(), self.screen.clone());
        let sink: Arc<dyn EventSink> = self.screen.clone();
        let outcome = executor.run(workflow, &RunOptions { cancel, sink, ..RunOptions::default() });
        self.screen.finish();
        match outcome {
            Ok(report) => Ok(report),
            Err(RunError::Invalid(validation)) => {
                Err(Failure::Invalid(problems::describe(workflow, &validation)))
            }
            Err(RunError::Cancelled { node, .. }) => {
                let name = workflow.get(&node).map_or("", WorkflowNode::name);
                let mut text = format!("stopped at node {node} ({name})");
                if let Some(line) = self.screen.last_log_of(&node) {
                    text += &format!("\n  {line}\n  The same command goes on from what was kept.");
                }
                Err(Failure::Cancelled(text))
            }
            Err(RunError::Failed { report }) => {
                for line in self.results(workflow, &report) {
                    self.note(&format!("made before the failure: {line}"));
                }
                Err(Failure::Node(failures(&report)))
            }
            Err(other) => Err(Failure::Node(other.to_string())),
        }
    }

    /// What the run made: files of pictures, and texts, in the order of the workflow.
    pub(crate) fn results(&self, workflow: &Workflow, report: &RunReport) -> Vec<String> {
        let mut lines = Vec::new();
        for node in workflow.nodes() {
            let Some(done) = report.nodes.get(&node.id) else { continue };
            lines.extend(self.pictures(done.ui.as_ref()));
            if self.registry.get(node.class()).is_some_and(|known| known.node.spec().output_node) {
                let texts = done.ui.as_ref().and_then(|ui| ui.get("text")?.as_array());
                lines
                    .extend(texts.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_string)));
            }
        }
        lines
    }

    /// The files that a node shows.
    pub(crate) fn pictures(&self, ui: Option<&Json>) -> Vec<String> {
        let images = ui.and_then(|ui| ui.get("images")?.as_array());
        let path = |image: &Json| {
            let part = |key: &str| image.get(key).and_then(Json::as_str).unwrap_or("");
            let root = self.folders.paths(part("type")).first()?;
            Some(root.join(part("subfolder")).join(part("filename")).display().to_string())
        };
        images.into_iter().flatten().filter_map(path).collect()
    }

    /// Results: on standard output, unless that is for events.
    pub(crate) fn say(&self, text: &str) {
        if text.is_empty() {
        } else if self.screen.prints_json() {
            eprintln!("{text}");
        } else {
            print::line(text);
        }
    }

    /// A remark beside the results.
    pub(crate) fn note(&self, text: &str) {
        self.screen.say(text);
    }
}

/// Prints a graph that is not run.
pub(crate) fn print_workflow(
    mut workflow: Workflow,
    assignments: &[String],
    places: &PlaceArgs,
) -> Result<(), Failure> {
    if !assignments.is_empty() {
        // Only the plugin knows which inputs there are beside those in the graph.
        let registry = plugins::load(&places.plugin)?;
        for assignment in assignments {
            apply(&mut workflow, assignment, &registry)?;
        }
    }
    print::line(format_args!("{:#}", workflow.to_json()));
    Ok(())
}

fn apply(workflow: &mut Workflow, assignment: &str, registry: &Registry) -> Result<(), Failure> {
    workflow
        .set(assignment, registry)
        .map_err(|error| Failure::Invalid(format!("--set {assignment}: {error}")))
}

/// Names of files that are in none of their folders but exist from the current folder become whole paths, where the node takes paths.
fn with_whole_paths(workflow: Workflow, registry: &Registry, folders: &Folders) -> Result<Workflow, Failure> {
    let mut json = workflow.to_json();
    for node in workflow.nodes() {
        let Some(known) = registry.get(node.class()) else { continue };
        for input in known.node.spec().inputs {
            let Some(Choices::Files { kind, accepts_paths: true, .. }) = &input.choices else { continue };
            let value = &mut json[&node.id]["inputs"][&input.name];
            let Some(name) = value.as_str().filter(|name| !name.is_empty()) else {
                // Indexing made an entry of what was not there.
                if value.is_null()
                    && let Some(inputs) = json[&node.id]["inputs"].as_object_mut()
                {
                    inputs.remove(&input.name);
                }
                continue;
            };
            let path = Path::new(name);
            if folders.find(kind, name).is_none()
                && path.exists()
                && let Ok(whole) = std::path::absolute(path)
                && let Some(whole) = whole.to_str()
            {
                *value = json!(whole);
            }
        }
    }
    let extra_pnginfo = workflow.extra_pnginfo;
    let mut workflow = Workflow::from_json(json).map_err(|error| Failure::Invalid(error.to_string()))?;
    workflow.extra_pnginfo = extra_pnginfo;
    Ok(workflow)
}

/// Each failure with its help, then what did not run because of them.
fn failures(report: &RunReport) -> String {
    let mut lines: Vec<String> = report
        .failures
        .iter()
        .map(|failure| {
            let name = if failure.name == failure.class_type {
                failure.class_type.clone()
            } else {
                format!("{}, \"{}\"", failure.class_type, failure.name)
            };
            format!("node {} ({name}) failed: {}", failure.node, failure.error)
        })
        .collect();
    if !report.skipped.is_empty() {
        lines.push(format!("not run because of that: nodes {}", report.skipped.join(", ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, Outputs};

    use super::*;

    struct Loader;

    impl Node for Loader {
        fn spec(&self) -> NodeSpec {
            NodeSpec::new("Loader", "Loader")
                .input(InputSpec::files("file", "input", ["png"]).accepts_paths())
                .input(InputSpec::files("other", "input", ["png"]).accepts_paths().optional())
                .output_node()
        }
        fn execute(&self, _inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
            Ok(Outputs::new())
        }
    }

    #[test]
    fn only_files_that_are_nowhere_else_become_paths() {
        let mut registry = Registry::new();
        registry.register_native("tests", [Arc::new(Loader) as Arc<dyn Node>]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Cargo.toml"), b"").unwrap();
        let resolved = |folders: &Folders, name: &str| {
            let json = json!({"1": {"class_type": "Loader", "inputs": {"file": name}}});
            let workflow = with_whole_paths(Workflow::from_json(json).unwrap(), &registry, folders).unwrap();
            let json = workflow.to_json();
            assert!(json["1"]["inputs"].get("other").is_none());
            json["1"]["inputs"]["file"].as_str().unwrap().to_string()
        };
        // Tests run in the crate's folder, where this file lies.
        assert!(Path::new(&resolved(&Folders::new(), "Cargo.toml")).is_absolute());
        assert_eq!(resolved(&Folders::new().with("input", dir.path()), "Cargo.toml"), "Cargo.toml");
        assert_eq!(resolved(&Folders::new(), "none.png"), "none.png");
    }
}
