//! Runs a graph and says what came of it.

use std::io;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{ErrorKind, Folders, NodeError, folder};
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

    /// The workflow with `NODE.INPUT=VALUE` applied.
    pub(crate) fn set(&self, mut workflow: Workflow, assignments: &[String]) -> Result<Workflow, Failure> {
        for assignment in assignments {
            apply(&mut workflow, assignment, &self.registry)?;
        }
        Ok(workflow)
    }

    /// Runs all outputs of the workflow, or nothing if there is any problem in it.
    pub(crate) fn run(&self, workflow: &Workflow) -> Result<RunReport, Failure> {
        self.clear_temp();
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
            Err(RunError::Cancelled { node, error, .. }) => {
                let name = workflow.get(&node).map_or("", WorkflowNode::name);
                Err(Failure::Cancelled(stopped(&node, name, error.as_deref())))
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

    /// Takes away what earlier runs left that was not to stay.
    fn clear_temp(&self) {
        for path in self.folders.paths(folder::TEMP) {
            match std::fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.note(&format!("{} cannot be emptied: {error}", path.display()));
                }
                _ => {}
            }
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

/// Where the run was stopped, and what the node said of it: only the node knows what it kept.
fn stopped(node: &str, name: &str, error: Option<&NodeError>) -> String {
    let said = match error {
        Some(error) if error.kind == ErrorKind::Cancelled => error.help.clone(),
        Some(error) => error.to_string(),
        None => String::new(),
    };
    let place = format!("stopped at node {node} ({name})");
    if said.is_empty() { place } else { format!("{place}\n  {said}") }
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
    use super::*;

    #[test]
    fn only_what_the_node_kept_is_promised() {
        let said = |error: Option<&NodeError>| stopped("3", "Train", error);
        let cancelled = NodeError::cancelled();
        assert_eq!(said(None), "stopped at node 3 (Train)");
        assert_eq!(said(Some(&cancelled)), "stopped at node 3 (Train)");
        let kept = cancelled.help("the vectors after 7 steps are kept in x.safetensors");
        assert_eq!(
            said(Some(&kept)),
            "stopped at node 3 (Train)\n  the vectors after 7 steps are kept in x.safetensors"
        );
        let full = NodeError::internal("the disk is full").help("Make room.");
        assert_eq!(said(Some(&full)), "stopped at node 3 (Train)\n  the disk is full\n  help: Make room.");
    }

    #[test]
    fn a_run_begins_with_nothing_left_to_throw_away() {
        let home = tempfile::tempdir().unwrap();
        let (temp, results) = (home.path().join("temp"), home.path().join("results"));
        for folder in [&temp, &results] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("old.png"), b"").unwrap();
        }
        let session = Session {
            registry: Arc::new(Registry::new()),
            folders: Folders::new().with(folder::TEMP, &temp).with(folder::OUTPUT, &results),
            threads: None,
            screen: Arc::new(Screen::new(&WatchArgs { quiet: true, ..WatchArgs::default() })),
        };
        let nothing = Workflow::from_json(json!({})).unwrap();
        assert!(session.run(&nothing).is_err(), "there is nothing to run");
        assert!(!temp.exists() && results.join("old.png").exists());
        assert!(session.run(&nothing).is_err(), "nor is it missed");
    }
}
