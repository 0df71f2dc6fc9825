//! Finds every problem of a workflow before anything runs, and says it in ComfyUI's words.
//!
//! An output node is valid if it and everything that it needs is; valid outputs run although others are not.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::coerce::coerce;
use super::order::{ancestors, order};
use super::workflow::{Input, Workflow, WorkflowNode};
use crate::abi::{Choices, ErrorKind, Folders, InputSpec, Inputs, NodeSpec, Presence, Value, catch_panic};
use crate::registry::{Registered, Registry};

/// Sockets whose values cannot be written down in a workflow.
const LINKS_ONLY: [&str; 7] = ["MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK"];

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
    fn new(error_type: &'static str, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self { error_type, message: message.into(), details: details.into(), extra_info: json!({}) }
    }

    fn info(mut self, extra_info: Json) -> Box<Self> {
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
    /// Literals in their declared types, and defaults of optional inputs that were left out.
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
    if check.found.error.is_some() {
        return check.found;
    }
    let outputs = check.targets(targets);
    if outputs.is_empty() {
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
    specs: HashMap<&'a str, (NodeSpec, &'a Registered)>,
    found: Validation,
}

impl<'a> Check<'a> {
    /// Looks up every node's type; a type that is not there stops the whole workflow, as in ComfyUI.
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
                        let hint = match self.registry.suggest(class) {
                            Some(known) => format!("Did you mean '{known}'?"),
                            None => "The plugin that has it may not be loaded.".to_string(),
                        };
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
        let order = order(self.workflow, outputs);
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
        let mut needed = std::collections::HashSet::new();
        for output in outputs {
            let ancestors = ancestors(self.workflow, output);
            let mut valid = true;
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
        if self.found.outputs.is_empty() {
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
                None if input.presence == Presence::Required => Err(Problem::new(
                    "required_input_missing",
                    "Required input is missing",
                    input.name.clone(),
                )
                .info(json!({"input_name": input.name}))),
                None => Ok(input.default.as_ref().and_then(|json| coerce(json, &input.type_name).ok())),
                Some(Input::Link { node: other, slot }) => {
                    inputs.mark_linked(&input.name);
                    self.link(input, other, *slot).map(|()| None)
                }
                Some(Input::Literal(json @ Json::Array(_))) => Err(self.bad_link(input, json, "")),
                Some(Input::Literal(json) | Input::Wrapped(json)) => self.literal(input, json).map(Some),
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
            problems.extend(custom(registered, &inputs));
        }
        self.found.literals.insert(node.id.clone(), literals);
        for problem in problems {
            self.add(&node.id, node.class(), *problem);
        }
    }

    fn link(&self, input: &InputSpec, other: &str, slot: i64) -> Result<(), Box<Problem>> {
        let received = json!([other, slot]);
        let Some((spec, _)) = self.specs.get(other) else {
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
                "input_config": self.config(input),
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
        .info(
            json!({"input_name": input.name, "input_config": self.config(input), "received_value": received}),
        )
    }

    fn literal(&self, input: &InputSpec, json: &Json) -> Result<Value, Box<Problem>> {
        let name = &input.name;
        let info = || json!({"input_name": name, "input_config": self.config(input), "received_value": json});
        let unfit = |why: String| {
            let message = format!("Failed to convert an input value to a {} value", input.type_name);
            let mut info = info();
            info["exception_message"] = json!(why);
            Problem::new("invalid_input_type", message, format!("{name}, {json}, {why}")).info(info)
        };
        if LINKS_ONLY.contains(&input.type_name.as_str()) {
            return Err(unfit("it needs a link to another node".to_string()));
        }
        let value = coerce(json, &input.type_name).map_err(unfit)?;
        let bound = |error_type, word: &str, bound: &Json| {
            let message = format!("Value {json} {word} of {bound}");
            Problem::new(error_type, message, name.clone()).info(info())
        };
        match (&input.min, &input.max) {
            (Some(min), _) if below(&value, min) => {
                return Err(bound("value_smaller_than_min", "smaller than min", min));
            }
            (_, Some(max)) if above(&value, max) => {
                return Err(bound("value_bigger_than_max", "bigger than max", max));
            }
            _ => {}
        }
        if let Some(choices) = &input.choices {
            self.choice(input, choices, json).map_err(|details| {
                Problem::new("value_not_in_list", "Value not in list", details)
                    .info(json!({"input_name": name, "input_config": null, "received_value": json}))
            })?;
        }
        Ok(value)
    }

    /// Whether the value, or each value of a list, can be chosen; otherwise what could be.
    fn choice(&self, input: &InputSpec, choices: &Choices, json: &Json) -> Result<(), String> {
        let options = choices.list(self.folders);
        let accepts_paths = matches!(choices, Choices::Files { accepts_paths: true, .. });
        let values = match json {
            Json::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            let is_path = accepts_paths && Path::new(&text).is_absolute() && Path::new(&text).exists();
            if is_path || options.contains(&text) {
                continue;
            }
            let mut list = if options.len() > 20 {
                format!("(list of length {})", options.len())
            } else {
                format!("{options:?}")
            };
            if let (true, Choices::Files { kind, .. }) = (options.is_empty(), choices) {
                let searched: Vec<_> =
                    self.folders.paths(kind).iter().map(|path| path.display().to_string()).collect();
                list = format!("the folder for {kind}, which has no such files ({})", searched.join(", "));
            }
            return Err(format!("{}: '{text}' not in {list}", input.name));
        }
        Ok(())
    }

    fn config(&self, input: &InputSpec) -> Json {
        input.object_info(self.folders)
    }
}

fn custom(registered: &Registered, inputs: &Inputs) -> Option<Box<Problem>> {
    let error = catch_panic("validate", || registered.node.validate(inputs)).err()?;
    let (error_type, message) = match error.kind {
        ErrorKind::Panicked => ("exception_during_validation", "Exception when validating node"),
        _ => ("custom_validation_failed", "Custom validation failed for node"),
    };
    let info = json!({"exception_type": error.kind.name(), "help": error.help});
    Some(Problem::new(error_type, message, error.to_string()).info(info))
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

fn below(value: &Value, bound: &Json) -> bool {
    compare(value, bound).is_some_and(std::cmp::Ordering::is_lt)
}

fn above(value: &Value, bound: &Json) -> bool {
    compare(value, bound).is_some_and(std::cmp::Ordering::is_gt)
}

/// Whole numbers are compared as such: seeds do not fit into an f64.
fn compare(value: &Value, bound: &Json) -> Option<std::cmp::Ordering> {
    match (value, Value::from_json(bound)) {
        (Value::Int(value), Value::Int(bound)) => Some(value.cmp(&bound)),
        (value, bound) => value.as_float()?.partial_cmp(&bound.as_float()?),
    }
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
    fn seeds_are_compared_exactly() {
        assert!(!above(&Value::Int(u64::MAX.into()), &json!(u64::MAX)));
        assert!(above(&Value::Int(u64::MAX.into()), &json!(u64::MAX - 1)));
        assert!(below(&Value::Float(0.5), &json!(1)));
    }
}
