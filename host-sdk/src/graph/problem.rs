//! What validation finds, in ComfyUI's words.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::abi::Value;

/// One problem, with ComfyUI's type names.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Such as `value_not_in_list`.
    pub error_type: &'static str,
    /// What is wrong, in general.
    pub message: String,
    /// Which input, which value.
    pub details: String,
    /// The same for programs.
    pub extra_info: Json,
}

impl Problem {
    pub(super) fn new(
        error_type: &'static str,
        message: impl Into<String>,
        details: impl Into<String>,
    ) -> Self {
        Self { error_type, message: message.into(), details: details.into(), extra_info: json!({}) }
    }

    pub(super) fn info(mut self, extra_info: Json) -> Box<Self> {
        self.extra_info = extra_info;
        Box::new(self)
    }

    /// As ComfyUI writes it.
    pub fn to_json(&self) -> Json {
        json!({"type": self.error_type, "message": self.message, "details": self.details, "extra_info": self.extra_info})
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, ": {}", self.details) }
    }
}

/// The problems of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeProblems {
    /// All of them.
    pub errors: Vec<Problem>,
    /// The output nodes that cannot run because of them.
    pub dependent_outputs: Vec<String>,
    /// The node's class.
    pub class_type: String,
}

/// What validation found.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// The outputs that can run, in the order of the workflow.
    pub outputs: Vec<String>,
    /// Why nothing can run; `None` if some output can.
    pub error: Option<Problem>,
    /// The problems of each node, by id.
    pub node_errors: BTreeMap<String, NodeProblems>,
    /// Nodes of valid outputs, each after all that it needs.
    pub(super) order: Vec<String>,
    /// Literals in their declared types, with whole paths for relative ones, and defaults of optional inputs that were left out.
    pub(super) literals: HashMap<String, BTreeMap<String, Value>>,
}

impl Validation {
    /// Whether something can run. Some outputs may still be invalid: see [`node_errors`](Self::node_errors).
    pub fn can_run(&self) -> bool {
        self.error.is_none()
    }

    /// ComfyUI's answer: `{"error": …, "node_errors": …}`.
    pub fn to_json(&self) -> Json {
        json!({"error": self.error.as_ref().map(Problem::to_json), "node_errors": self.node_errors_json()})
    }

    /// The part `node_errors` of ComfyUI's answer.
    pub fn node_errors_json(&self) -> Json {
        let node = |(id, problems): (&String, &NodeProblems)| {
            let errors: Vec<_> = problems.errors.iter().map(Problem::to_json).collect();
            let json = json!({"errors": errors, "dependent_outputs": problems.dependent_outputs, "class_type": problems.class_type});
            (id.clone(), json)
        };
        Json::Object(self.node_errors.iter().map(node).collect::<Map<_, _>>())
    }
}

impl fmt::Display for Validation {
    /// One line for each problem, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) if self.node_errors.is_empty() => write!(f, "{error}")?,
            Some(error) => f.write_str(&error.message)?,
            None => f.write_str("the workflow is valid")?,
        }
        for (id, problems) in &self.node_errors {
            for problem in &problems.errors {
                write!(f, "\n  node {id} ({}): {problem}", problems.class_type)?;
            }
        }
        Ok(())
    }
}
