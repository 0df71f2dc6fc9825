//! Finds every problem of a workflow before anything runs.
//!
//! An output node is valid if it and everything that it needs is; valid outputs run although others are not. A node of unknown type stops
//! the whole workflow, as in ComfyUI, but the others are looked at all the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value as Json, json};

use super::literal::{left_out, literal};
use super::order::{ancestors, order};
use super::problem::{NodeProblems, Problem, Validation};
use super::workflow::{Input, Workflow, WorkflowNode};
use crate::abi::{ErrorKind, Folders, InputSpec, Inputs, NodeSpec, Presence, catch_panic};
use crate::registry::{Registered, Registry};

/// Checks a workflow. `targets` are the nodes to run; `None` means all output nodes. `[any thread]`
pub fn validate(
    workflow: &Workflow,
    registry: &Registry,
    folders: &Folders,
    targets: Option<&[String]>,
) -> Validation {
    let mut check =
        Check { workflow, registry, folders, specs: HashMap::new(), found: Validation::default() };
    check.read_specs();
    let outputs = check.targets(targets);
    if outputs.is_empty() && check.found.error.is_none() {
        let details =
            targets.map_or(String::new(), |ids| format!("none of the targets {ids:?} is in the workflow"));
        check.found.error = Some(Problem::new("prompt_no_outputs", "Prompt has no outputs", details));
        return check.found;
    }
    check.nodes(&outputs);
    check.found
}

struct Check<'a> {
    workflow: &'a Workflow,
    registry: &'a Registry,
    folders: &'a Folders,
    /// Of the nodes whose type is known.
    specs: HashMap<&'a str, (NodeSpec, &'a Registered)>,
    found: Validation,
}

impl<'a> Check<'a> {
    /// Looks up every node's type.
    fn read_specs(&mut self) {
        for node in self.workflow.nodes() {
            let problem = match &node.class_type {
                None => Problem::new(
                    "missing_node_type",
                    "Cannot execute because a node is missing the class_type property.",
                    format!("Node ID '#{}'", node.id),
                ),
                Some(class) => match self.registry.get(class) {
                    Some(registered) => {
                        self.specs.insert(&node.id, (registered.node.spec(), registered));
                        continue;
                    }
                    None => {
                        let hint = self.registry.hint(class);
                        let message = format!("Node type '{class}' not found. {hint}");
                        Problem::new("missing_node_type", message, format!("Node ID '#{}'", node.id))
                    }
                },
            };
            let info = json!({"node_id": node.id, "class_type": node.class_type, "node_title": node.title});
            let problem = problem.info(info);
            self.found.error.get_or_insert_with(|| (*problem).clone());
            self.add(&node.id, node.class(), *problem);
        }
    }

    fn add(&mut self, id: &str, class: &str, problem: Problem) {
        let empty =
            || NodeProblems { errors: vec![], dependent_outputs: vec![], class_type: class.to_string() };
        self.found.node_errors.entry(id.to_string()).or_insert_with(empty).errors.push(problem);
    }

    fn targets(&self, targets: Option<&[String]>) -> Vec<String> {
        let wanted = |node: &&WorkflowNode| match targets {
            Some(targets) => targets.contains(&node.id),
            None => self.specs.get(node.id.as_str()).is_some_and(|(spec, _)| spec.output_node),
        };
        self.workflow.nodes().iter().filter(wanted).map(|node| node.id.clone()).collect()
    }

    fn nodes(&mut self, outputs: &[String]) {
        let has_unknown = self.found.error.is_some();
        // A node of unknown type may be an output: what it links to is looked at, too.
        let unknown = self.workflow.nodes().iter().filter(|node| !self.specs.contains_key(node.id.as_str()));
        let roots: Vec<String> = outputs.iter().cloned().chain(unknown.map(|node| node.id.clone())).collect();
        let order = order(self.workflow, &roots);
        for cycle in &order.cycles {
            let along =
                cycle.iter().chain(cycle.first()).map(String::as_str).collect::<Vec<_>>().join(" -> ");
            for id in cycle {
                let class = self.workflow.get(id).map_or("?", WorkflowNode::class);
                let problem = Problem::new("dependency_cycle", "Dependency cycle detected", along.clone());
                self.add(id, class, *problem.info(json!({"cycle_nodes": cycle})));
            }
        }
        for id in &order.nodes {
            if let Some(node) = self.workflow.get(id) {
                self.node(node);
            }
        }
        let mut needed = HashSet::new();
        for output in outputs {
            let ancestors = ancestors(self.workflow, output);
            let mut valid = !has_unknown;
            for (id, problems) in &mut self.found.node_errors {
                if ancestors.contains(id.as_str()) {
                    problems.dependent_outputs.push(output.clone());
                    valid = false;
                }
            }
            if valid {
                self.found.outputs.push(output.clone());
                needed.extend(ancestors);
            }
        }
        if self.found.outputs.is_empty() && !has_unknown {
            let details = self
                .found
                .node_errors
                .iter()
                .flat_map(|(id, problems)| {
                    problems.errors.iter().map(move |problem| format!("node {id}: {problem}"))
                })
                .collect::<Vec<_>>()
                .join("\n");
            self.found.error = Some(Problem::new(
                "prompt_outputs_failed_validation",
                "Prompt outputs failed validation",
                details,
            ));
        }
        self.found.order = order.nodes.into_iter().filter(|id| needed.contains(id.as_str())).collect();
    }

    fn node(&mut self, node: &'a WorkflowNode) {
        let Some((spec, registered)) = self.specs.get(node.id.as_str()) else { return };
        let mut problems = Vec::new();
        let mut literals = BTreeMap::new();
        let mut inputs = Inputs::new();
        for input in spec.inputs.iter().filter(|input| input.presence != Presence::Hidden) {
            let found = match node.input(&input.name) {
                None => left_out(input),
                Some(Input::Link { node: other, slot }) => {
                    inputs.mark_linked(&input.name);
                    self.link(input, other, *slot).map(|()| None)
                }
                Some(Input::Literal(json @ Json::Array(_))) => Err(self.bad_link(input, json, "")),
                Some(Input::Literal(json) | Input::Wrapped(json)) => {
                    literal(input, json, self.folders).map(Some)
                }
            };
            match found {
                Ok(Some(value)) => {
                    inputs.insert(&input.name, value.clone());
                    literals.insert(input.name.clone(), value);
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            problems.extend(custom(registered, spec, &inputs));
        }
        self.found.literals.insert(node.id.clone(), literals);
        for problem in problems {
            self.add(&node.id, node.class(), *problem);
        }
    }

    fn link(&self, input: &InputSpec, other: &str, slot: i64) -> Result<(), Box<Problem>> {
        let received = json!([other, slot]);
        let Some((spec, _)) = self.specs.get(other) else {
            if self.workflow.get(other).is_some() {
                // Its type is unknown, and that is its own problem.
                return Ok(());
            }
            return Err(self.bad_link(input, &received, &format!("there is no node {other}")));
        };
        let Some(output) = usize::try_from(slot).ok().and_then(|slot| spec.outputs.get(slot)) else {
            let why = format!(
                "node {other} ({}) has {} outputs, there is no slot {slot}",
                spec.id,
                spec.outputs.len()
            );
            return Err(self.bad_link(input, &received, &why));
        };
        if types_match(&output.type_name, &input.type_name) {
            return Ok(());
        }
        let details = format!(
            "{}, received_type({}) mismatch input_type({})",
            input.name, output.type_name, input.type_name
        );
        Err(Problem::new("return_type_mismatch", "Return type mismatch between linked nodes", details).info(
            json!({
                "input_name": input.name,
                "input_config": input.object_info(self.folders),
                "received_type": output.type_name,
                "linked_node": received,
            }),
        ))
    }

    fn bad_link(&self, input: &InputSpec, received: &Json, why: &str) -> Box<Problem> {
        let details = if why.is_empty() { input.name.clone() } else { format!("{}: {why}", input.name) };
        Problem::new(
            "bad_linked_input",
            "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            details,
        )
        .info(json!({
            "input_name": input.name,
            "input_config": input.object_info(self.folders),
            "received_value": received,
        }))
    }
}

/// What the node itself says of its literals.
fn custom(registered: &Registered, spec: &NodeSpec, inputs: &Inputs) -> Option<Box<Problem>> {
    let error = catch_panic("validate", || registered.node.validate(inputs)).err()?;
    let said = error.to_string();
    let mut info = json!({"exception_type": error.kind.name(), "help": error.help});
    if error.kind == ErrorKind::Panicked {
        let message = "Exception when validating node";
        return Some(Problem::new("exception_during_validation", message, said).info(info));
    }
    let named = named_input(spec, &error.message);
    info["input_name"] = json!(named);
    let details = match named {
        Some(name) => {
            format!("{name} - {}", said.strip_prefix(&format!("input `{name}`: ")).unwrap_or(&said))
        }
        None => said,
    };
    let message = "Custom validation failed for node";
    Some(Problem::new("custom_validation_failed", message, details).info(info))
}

/// The input that an error is about: the first that its message names.
fn named_input<'a>(spec: &'a NodeSpec, message: &str) -> Option<&'a str> {
    let place = |input: &'a InputSpec| {
        let place = message.find(&format!("input `{}`", input.name))?;
        Some((place, input.name.as_str()))
    };
    spec.inputs.iter().filter_map(place).min().map(|(_, name)| name)
}

/// Whether an output of the first type may be linked to an input of the second: their sets, written with commas, share a
/// type; `*` is any. A choice takes text, and text a choice; the node looks at the value.
fn types_match(output: &str, input: &str) -> bool {
    let parts = |text: &str| -> Vec<String> { text.split(',').map(|part| part.trim().to_string()).collect() };
    let (outputs, inputs) = (parts(output), parts(input));
    let is_text = |types: &[String]| types.iter().any(|name| name == "STRING" || name == "COMBO");
    let is_any = |types: &[String]| types.iter().any(|name| name == "*");
    is_any(&outputs)
        || is_any(&inputs)
        || outputs.iter().any(|output| inputs.contains(output))
        || (is_text(&outputs) && is_text(&inputs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_match_by_intersection() {
        assert!(types_match("IMAGE", "IMAGE"));
        assert!(types_match("IMAGE", "MASK,IMAGE"));
        assert!(types_match("*", "IMAGE") && types_match("IMAGE", "*"));
        assert!(types_match("STRING", "COMBO"));
        assert!(!types_match("IMAGE", "MASK") && !types_match("INT", "FLOAT"));
    }

    #[test]
    fn the_input_of_an_error_is_the_first_that_it_names() {
        let spec = NodeSpec::new("A", "A").input(InputSpec::int("x")).input(InputSpec::int("xs"));
        assert_eq!(named_input(&spec, "input `xs`: 3 is more than input `x`"), Some("xs"));
        assert_eq!(named_input(&spec, "input `x` should be INT"), Some("x"));
        assert_eq!(named_input(&spec, "input `y` is missing, as is x"), None);
    }
}
