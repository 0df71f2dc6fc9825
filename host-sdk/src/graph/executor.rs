//! Runs a workflow: what is needed, in order, and nothing twice.
//!
//! * Results are kept by signature (see `cache`): a second run in the same process repeats only what changed and what depends on it.
//! * A node that fails stops what depends on it and nothing else; its result is not kept.
//! * Cancel is seen by the running node, through [`HostContext::is_cancelled`](crate::abi::HostContext::is_cancelled), and by the executor
//!   before the next one. What was computed by then is kept, so that the next run goes on from there.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value as Json;

use super::cache::{Cache, Entry, Signature, Signer};
use super::events::EventKind;
use super::host::{NodeHost, Run};
use super::lists;
use super::problem::Validation;
use super::run::{NodeFailure, NodeReport, RunError, RunOptions, RunReport};
use super::single;
use super::validate::validate;
use super::workflow::{Workflow, WorkflowNode};
use crate::abi::{ErrorKind, Folders, HostContext, Inputs, Node, NodeError, NodeSpec, Value, catch_panic};
use crate::registry::Registry;

/// Runs workflows and keeps their results for the next run.
pub struct Executor {
    registry: Arc<Registry>,
    folders: Folders,
    threads: usize,
    cache: Mutex<Cache>,
    /// For run ids, and for results that must not be found again.
    counter: AtomicU64,
}

impl Executor {
    /// An executor without results, for as many threads as there are processors.
    pub fn new(registry: Arc<Registry>, folders: Folders) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { registry, folders, threads, cache: Mutex::default(), counter: AtomicU64::new(1) }
    }

    /// The same with another number of threads for nodes, at least 1.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The nodes.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The folders.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Forgets all results.
    pub fn clear_cache(&self) {
        self.lock().clear();
    }

    /// Checks a workflow without running it.
    pub fn validate(&self, workflow: &Workflow, targets: Option<&[String]>) -> Validation {
        validate(workflow, &self.registry, &self.folders, targets)
    }

    /// Runs a workflow on the calling thread, which becomes the graph thread.
    pub fn run(&self, workflow: &Workflow, options: &RunOptions) -> Result<RunReport, RunError> {
        let validation = self.validate(workflow, options.targets.as_deref());
        if !validation.can_run() {
            return Err(RunError::Invalid(Box::new(validation)));
        }
        let run = Run {
            prompt_id: options.prompt_id.clone().unwrap_or_else(|| self.new_prompt_id()),
            sink: options.sink.as_ref(),
            cancel: options.cancel.clone(),
            folders: &self.folders,
            prompt_json: workflow.to_json().to_string(),
            extra_pnginfo_json: match &workflow.extra_pnginfo {
                Json::Null => String::new(),
                extra => extra.to_string(),
            },
            threads: self.threads,
        };
        run.emit(EventKind::ExecutionStart);
        let mut progress = Progress::new(self, workflow, &run, validation);
        let outcome = progress.run_all();
        let report = progress.report;
        let result = match outcome {
            Err(Stopped { node, class_type, error }) => {
                run.emit(EventKind::ExecutionInterrupted {
                    node: node.clone(),
                    class_type: class_type.clone(),
                    executed: report.executed.clone(),
                });
                Err(RunError::Cancelled { node, class_type, error, report: Box::new(report) })
            }
            Ok(()) => {
                if report.failures.is_empty() {
                    run.emit(EventKind::ExecutionSuccess);
                    Ok(report)
                } else {
                    Err(RunError::Failed { report: Box::new(report) })
                }
            }
        };
        run.emit(EventKind::Executing { node: None });
        result
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id in the form of a UUID: unique in this process and, through the time, most likely elsewhere.
    fn new_prompt_id(&self) -> String {
        let mut signer = Signer::default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        signer.part(now.as_nanos().to_le_bytes()).part(std::process::id().to_le_bytes()).part(self.unique());
        let mut hash = signer.finish();
        hash[6] = hash[6] & 0x0f | 0x80; // version 8: made as one likes
        hash[8] = hash[8] & 0x3f | 0x80;
        let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }

    fn unique(&self) -> [u8; 8] {
        self.counter.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }
}

/// The user stopped the run here.
struct Stopped {
    node: String,
    class_type: String,
    error: Option<Box<NodeError>>,
}

/// A run that goes on.
struct Progress<'a> {
    executor: &'a Executor,
    workflow: &'a Workflow,
    run: &'a Run<'a>,
    signatures: HashMap<String, Signature>,
    results: HashMap<String, Arc<Entry>>,
    report: RunReport,
}

impl<'a> Progress<'a> {
    fn new(executor: &'a Executor, workflow: &'a Workflow, run: &'a Run<'a>, validation: Validation) -> Self {
        let report = RunReport { prompt_id: run.prompt_id.clone(), validation, ..RunReport::default() };
        Self { executor, workflow, run, signatures: HashMap::new(), results: HashMap::new(), report }
    }

    fn run_all(&mut self) -> Result<(), Stopped> {
        let order = self.report.validation.order.clone();
        for id in &order {
            self.stop_if_cancelled(id)?;
            let signature = self.sign(id);
            self.signatures.insert(id.clone(), signature);
            let entry = self.executor.lock().get(&signature);
            if let Some(entry) = entry {
                self.report.cached.push(id.clone());
                self.keep(id, entry, true, 0.0);
            }
        }
        // Before anything runs: what this workflow does not use must not lie beside what it will need, a second checkpoint above all.
        self.executor.lock().keep_only(self.signatures.values());
        self.run.emit(EventKind::ExecutionCached { nodes: self.report.cached.clone() });
        let shown = |progress: &Self, id: &String| {
            if let Some(output) = progress.report.nodes.get(id).and_then(|node| node.ui.clone()) {
                progress.run.emit(EventKind::Executed { node: id.clone(), output });
            }
        };
        for id in &self.report.cached.clone() {
            shown(self, id);
        }
        let needed = self.needed(&order);
        let mut failed = HashSet::new();
        for id in order.iter().filter(|id| needed.contains(id.as_str())) {
            self.stop_if_cancelled(id)?;
            let Some(node) = self.workflow.get(id) else { continue };
            if node.links().any(|(_, other, _)| failed.contains(other)) {
                failed.insert(id.as_str());
                self.report.skipped.push(id.clone());
                continue;
            }
            self.run.emit(EventKind::Executing { node: Some(id.clone()) });
            let start = Instant::now();
            match self.execute(node) {
                Ok(entry) => {
                    let entry = Arc::new(entry);
                    self.executor.lock().insert(self.signatures[id], entry.clone());
                    self.report.executed.push(id.clone());
                    self.keep(id, entry, false, start.elapsed().as_secs_f64());
                    shown(self, id);
                }
                // Any other error is a failure, though the user may have asked to stop meanwhile.
                Err(error) if error.kind == ErrorKind::Cancelled && self.run.cancel.is_cancelled() => {
                    return Err(stopped(node, Some(error)));
                }
                Err(error) => {
                    failed.insert(id.as_str());
                    self.fail(node, error);
                }
            }
        }
        Ok(())
    }

    fn stop_if_cancelled(&self, id: &str) -> Result<(), Stopped> {
        match self.workflow.get(id) {
            Some(node) if self.run.cancel.is_cancelled() => Err(stopped(node, None)),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, id: &str, entry: Arc<Entry>, cached: bool, seconds: f64) {
        let report = NodeReport {
            class_type: self.workflow.get(id).map_or("?", WorkflowNode::class).to_string(),
            cached,
            seconds,
            ui: entry.ui.clone(),
            outputs: entry.outputs.clone(),
        };
        self.report.nodes.insert(id.to_string(), report);
        self.results.insert(id.to_string(), entry);
    }

    fn fail(&mut self, node: &WorkflowNode, error: NodeError) {
        self.run.emit(EventKind::ExecutionError {
            node: node.id.clone(),
            class_type: node.class().to_string(),
            executed: self.report.executed.clone(),
            error: error.clone(),
        });
        self.report.failures.push(NodeFailure {
            node: node.id.clone(),
            class_type: node.class().to_string(),
            name: node.name().to_string(),
            error,
        });
    }

    /// The nodes that must run: outputs and what they need, back to results that are there.
    fn needed(&self, order: &[String]) -> HashSet<&'a str> {
        let mut wanted: HashSet<&str> = self.report.validation.outputs.iter().map(String::as_str).collect();
        let mut needed = HashSet::new();
        for id in order.iter().rev() {
            let Some(node) = self.workflow.get(id) else { continue };
            if wanted.contains(id.as_str()) && !self.results.contains_key(id) {
                needed.insert(node.id.as_str());
                wanted.extend(node.links().map(|(_, other, _)| other));
            }
        }
        needed
    }

    /// Everything that the node's result depends on. Nodes before it are signed already.
    fn sign(&self, id: &str) -> Signature {
        let mut signer = Signer::default();
        let (Some(node), Some((object, spec))) = (self.workflow.get(id), self.node(id)) else {
            signer.part(self.executor.unique());
            return signer.finish();
        };
        signer.part(node.class());
        let empty = BTreeMap::new();
        let literals = self.report.validation.literals.get(id).unwrap_or(&empty);
        let mut inputs = Inputs::new();
        for (name, value) in literals {
            signer.part(name).part(value.kind()).part(value.to_json().to_string());
            inputs.insert(name, value.clone());
        }
        for (name, other, slot) in self.links(node, &spec) {
            inputs.mark_linked(name);
            let ancestor = self.signatures.get(other).map_or(&[][..], |signature| signature);
            signer.part(name).part(ancestor).part(slot.to_le_bytes());
        }
        let host = NodeHost { run: self.run, node: id };
        for (input, value) in single::hidden(&spec, &host) {
            if input.type_name == "UNIQUE_ID" {
                signer.part(&input.name).part(id);
            }
            inputs.insert(&input.name, value);
        }
        match catch_panic("fingerprint", || object.fingerprint(&inputs, &HostContext::new(&host))) {
            Ok(fingerprint) => signer.part(fingerprint),
            // Nothing is known, so nothing that was computed before counts.
            Err(_) => signer.part(self.executor.unique()).part("unknown"),
        };
        signer.finish()
    }

    fn node(&self, id: &str) -> Option<(&'a dyn Node, NodeSpec)> {
        let registered = self.executor.registry.get(self.workflow.get(id)?.class())?;
        Some((registered.node.as_ref(), registered.node.spec()))
    }

    /// Links of inputs that the node declares, by name.
    fn links(&self, node: &'a WorkflowNode, spec: &NodeSpec) -> Links<'a> {
        node.links().filter(|(name, ..)| spec.find_input(name).is_some()).collect()
    }

    fn execute(&self, node: &'a WorkflowNode) -> Result<Entry, NodeError> {
        let (object, spec) = self
            .node(&node.id)
            .ok_or_else(|| NodeError::internal("the node's type is gone from the registry"))?;
        let literals = self.report.validation.literals.get(&node.id).cloned().unwrap_or_default();
        let mut values: BTreeMap<String, Vec<Value>> =
            literals.into_iter().map(|(name, value)| (name, vec![value])).collect();
        let links = self.links(node, &spec);
        for (name, other, slot) in &links {
            let found =
                usize::try_from(*slot).ok().and_then(|slot| self.results.get(*other)?.outputs.get(slot));
            let found =
                found.ok_or_else(|| NodeError::internal(format!("node {other} has no result {slot}")))?;
            values.insert((*name).to_string(), found.clone());
        }
        let host = NodeHost { run: self.run, node: &node.id };
        for (input, value) in single::hidden(&spec, &host) {
            values.insert(input.name.clone(), vec![value]);
        }
        let mut answers = Vec::new();
        for call in lists::calls(values, spec.input_is_list)? {
            if self.run.cancel.is_cancelled() {
                return Err(NodeError::cancelled());
            }
            let mut inputs = Inputs::new();
            for (name, value) in call {
                inputs.insert(name, value);
            }
            for (name, ..) in &links {
                inputs.mark_linked(*name);
            }
            let context = HostContext::new(&host);
            answers.push(catch_panic(node.class(), || object.execute(inputs, &context))?);
        }
        lists::merge(&spec, answers).map(|(outputs, ui)| Entry { outputs, ui })
    }
}

/// Name, other node and slot of each link, sorted by name.
type Links<'a> = std::collections::BTreeSet<(&'a str, &'a str, i64)>;

fn stopped(node: &WorkflowNode, error: Option<NodeError>) -> Stopped {
    Stopped { node: node.id.clone(), class_type: node.class().to_string(), error: error.map(Box::new) }
}
