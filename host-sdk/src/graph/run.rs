//! How a run is asked for, and what comes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;

use super::events::{EventSink, IgnoreEvents};
use super::problem::Validation;
use crate::abi::{NodeError, Value};

/// Stops a run from any thread; clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the run to stop. `[any thread]`
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Makes the flag ready for another run. `[any thread]`
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the run should stop. `[any thread]`
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How to run a workflow.
#[derive(Clone)]
pub struct RunOptions {
    /// Ids of the nodes to run, with all that they need; `None`: all output nodes.
    pub targets: Option<Vec<String>>,
    /// Stops the run.
    pub cancel: CancelFlag,
    /// Takes the run's events.
    pub sink: Arc<dyn EventSink>,
    /// The run's id in its events; `None`: one is made up.
    pub prompt_id: Option<String>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { targets: None, cancel: CancelFlag::new(), sink: Arc::new(IgnoreEvents), prompt_id: None }
    }
}

/// What became of one node.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// The node's class.
    pub class_type: String,
    /// Whether the result was there from an earlier run.
    pub cached: bool,
    /// How long it ran.
    pub seconds: f64,
    /// What it shows: arrays by key, such as `images`.
    pub ui: Option<Json>,
    /// For each output the values that go along its links.
    pub outputs: Vec<Vec<Value>>,
}

/// A node that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeFailure {
    /// Its id.
    pub node: String,
    /// Its class.
    pub class_type: String,
    /// Its title, or its class.
    pub name: String,
    /// Why.
    pub error: NodeError,
}

impl fmt::Display for NodeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({}) failed: {}", self.node, self.class_type, self.error)
    }
}

/// What became of a run.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// The run's id.
    pub prompt_id: String,
    /// The nodes that have a result.
    pub nodes: BTreeMap<String, NodeReport>,
    /// The nodes that ran, in order.
    pub executed: Vec<String>,
    /// The nodes whose results were there.
    pub cached: Vec<String>,
    /// The nodes that failed.
    pub failures: Vec<NodeFailure>,
    /// The nodes that did not run because one before them failed.
    pub skipped: Vec<String>,
    /// Problems of outputs that were not run.
    pub validation: Validation,
}

impl RunReport {
    /// The first value of a node's output.
    pub fn value(&self, node: &str, slot: usize) -> Option<&Value> {
        self.nodes.get(node)?.outputs.get(slot)?.first()
    }
}

/// Why a run did not come to its end. Results that there are stand in the report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Nothing could run.
    #[error("{0}")]
    Invalid(Box<Validation>),
    /// The user stopped the run.
    #[error("stopped at node {node} ({class_type})")]
    Cancelled {
        /// The node that was running or next.
        node: String,
        /// Its class.
        class_type: String,
        /// What the node said when it stopped; its help tells what was kept. `None` if the run was stopped between two nodes.
        error: Option<Box<NodeError>>,
        /// What was done by then.
        report: Box<RunReport>,
    },
    /// Nodes failed; what does not depend on them ran.
    #[error("{}", join(&report.failures))]
    Failed {
        /// Failures and results.
        report: Box<RunReport>,
    },
}

fn join(failures: &[NodeFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
