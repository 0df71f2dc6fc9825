//! One node by itself, for hosts that have a graph of their own: the checks of [`validate`](super::validate()) and the call of the
//! [`executor`](super::executor), on values that the host has at hand.
//!
//! * A value is a **link's**, and is handed on as it is, if its name is among `linked`, or if its input takes no literals (`IMAGE`, `MODEL`).
//!   Any other is a **literal**: it is brought to its declared type, and ranges and choices are checked.
//! * [`Value::None`] and a missing value are the same. Defaults of optional inputs are filled in.
//! * Names that the node does not know are not looked at, as in workflows.
//! * Each call is one call of the node. Of a node with `input_is_list`, each input is the list of all its values; what is no list is a list of one.

use std::collections::{BTreeMap, BTreeSet};

use super::lists;
use super::literal::{left_out, literal};
use super::problem::Problem;
use crate::abi::{
    Folders, Host, HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, Outputs, Presence, Value,
    catch_panic,
};
use crate::registry::{Registered, Registry};

/// The node type of that id, or an error of kind [`NotFound`](crate::abi::ErrorKind::NotFound) with the id that is most like it.
pub fn find<'a>(registry: &'a Registry, id: &str) -> Result<&'a Registered, NodeError> {
    registry
        .get(id)
        .ok_or_else(|| NodeError::not_found(format!("node type `{id}` is not known")).help(registry.hint(id)))
}

/// Checks literals before anything runs. Linked inputs are missing and named in `linked`. `[any thread]`
pub fn validate(
    node: &dyn Node,
    given: BTreeMap<String, Value>,
    linked: &BTreeSet<String>,
    folders: &Folders,
) -> Result<(), NodeError> {
    let spec = node.spec();
    let Checked { literals, .. } = check(&spec, given, linked, folders, Linked::MayBeMissing)?;
    catch_panic(&spec.id, || node.validate(&literals)).map_err(|error| error.at(&spec.id))
}

/// The node's fingerprint, see [`Node::fingerprint`]. Linked inputs may be missing. `[graph thread]`
pub fn fingerprint(
    node: &dyn Node,
    given: BTreeMap<String, Value>,
    linked: &BTreeSet<String>,
    folders: &Folders,
    host: &dyn Host,
) -> Result<String, NodeError> {
    let spec = node.spec();
    let Checked { literals: mut inputs, .. } = check(&spec, given, linked, folders, Linked::MayBeMissing)?;
    for (input, value) in hidden(&spec, host) {
        inputs.insert(&input.name, value);
    }
    catch_panic(&spec.id, || node.fingerprint(&inputs, &HostContext::new(host)))
}

/// Checks all inputs and does the node's work. The given values are let go before this comes back, but for what the results share. `[graph thread]`
pub fn run(
    node: &dyn Node,
    given: BTreeMap<String, Value>,
    linked: &BTreeSet<String>,
    folders: &Folders,
    host: &dyn Host,
) -> Result<Outputs, NodeError> {
    let spec = node.spec();
    let Checked { literals, links } = check(&spec, given, linked, folders, Linked::MustBeThere)?;
    catch_panic(&spec.id, || node.validate(&literals)).map_err(|error| error.at(&spec.id))?;
    let as_called = |value: Value| match value {
        Value::List(values) if spec.input_is_list => Value::List(values),
        value if spec.input_is_list => Value::List(vec![value]),
        value => value,
    };
    let mut inputs = Inputs::new();
    for (name, value) in literals.iter() {
        inputs.insert(name, as_called(value.clone()));
    }
    for (name, value) in links {
        inputs.mark_linked(&name);
        inputs.insert(name, as_called(value));
    }
    for (input, value) in hidden(&spec, host) {
        inputs.insert(&input.name, as_called(value));
    }
    drop(literals);
    let context = HostContext::new(host);
    context.check_cancelled()?;
    let answer = catch_panic(&spec.id, || node.execute(inputs, &context))?;
    let (slots, ui) = lists::merge(&spec, vec![answer])?;
    let whole = |(mut values, is_list): (Vec<Value>, bool)| match is_list {
        true => Value::List(values),
        false => values.pop().unwrap_or_default(),
    };
    let lists = spec.outputs.iter().map(|output| output.is_list);
    Ok(Outputs {
        results: slots.into_iter().zip(lists).map(whole).collect(),
        ui: ui.map(|ui| ui.to_string()),
    })
}

/// The hidden inputs and what the host fills them with.
pub(super) fn hidden<'a>(spec: &'a NodeSpec, host: &dyn Host) -> Vec<(&'a InputSpec, Value)> {
    let value = |type_name: &str| match type_name {
        "PROMPT" => Value::String(host.prompt_json()),
        "EXTRA_PNGINFO" => Value::String(host.extra_pnginfo_json()),
        "UNIQUE_ID" => Value::String(host.node_id()),
        _ => Value::None,
    };
    let inputs = spec.inputs.iter().filter(|input| input.presence == Presence::Hidden);
    inputs.map(|input| (input, value(&input.type_name))).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Linked {
    MayBeMissing,
    MustBeThere,
}

/// Inputs that are in order.
struct Checked {
    /// What stands in the node or is its default; knows which others are linked.
    literals: Inputs,
    /// What came along links and is known.
    links: BTreeMap<String, Value>,
}

fn check(
    spec: &NodeSpec,
    mut given: BTreeMap<String, Value>,
    linked: &BTreeSet<String>,
    folders: &Folders,
    missing: Linked,
) -> Result<Checked, NodeError> {
    let mut problems = Vec::new();
    let mut checked = Checked { literals: Inputs::new(), links: BTreeMap::new() };
    for input in spec.inputs.iter().filter(|input| input.presence != Presence::Hidden) {
        let value = given.remove(&input.name).filter(|value| !value.is_none());
        let is_linked = linked.contains(&input.name);
        let found = match value {
            None if is_linked
                && (missing == Linked::MayBeMissing || input.presence == Presence::Optional) =>
            {
                checked.literals.mark_linked(&input.name);
                Ok(None)
            }
            None => left_out(input),
            Some(value) if is_linked || is_of_a_link(input, &value) => {
                checked.literals.mark_linked(&input.name);
                checked.links.insert(input.name.clone(), value);
                Ok(None)
            }
            Some(Value::List(values)) if spec.input_is_list => each(input, &values, folders).map(Some),
            Some(value) => literal(input, &value.to_json(), folders).map(Some),
        };
        match found {
            Ok(Some(value)) => checked.literals.insert(&input.name, value),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(checked) } else { Err(refusal(spec, &problems)) }
}

/// Whether the value can only have come along a link, though the host does not say so.
fn is_of_a_link(input: &InputSpec, value: &Value) -> bool {
    match value {
        // Where a link is needed these are refused in the words of a literal.
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => false,
        _ if !input.takes_literals() => true,
        _ => input.takes_objects() && has_object(value),
    }
}

/// Whether something is in it that JSON cannot write.
fn has_object(value: &Value) -> bool {
    match value {
        Value::Tensor(_) | Value::Handle(_) => true,
        Value::List(values) => values.iter().any(has_object),
        Value::Map(entries) => entries.values().any(has_object),
        _ => false,
    }
}

/// The literals of an input that takes all its values at once. One by itself stands without a list, as it does in a workflow.
fn each(input: &InputSpec, values: &[Value], folders: &Folders) -> Result<Value, Box<Problem>> {
    let values = values.iter().map(|value| literal(input, &value.to_json(), folders));
    let mut values = values.collect::<Result<Vec<_>, _>>()?;
    match (values.len(), values.pop()) {
        (1, Some(value)) => Ok(value),
        (_, last) => {
            values.extend(last);
            Ok(Value::List(values))
        }
    }
}

/// All problems in one error.
fn refusal(spec: &NodeSpec, problems: &[Box<Problem>]) -> NodeError {
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let error = NodeError::invalid_input(said.join("; ")).at(&spec.id);
    let missing = problems.iter().filter_map(|problem| {
        (problem.error_type == "required_input_missing").then(|| problem.extra_info["input_name"].as_str())?
    });
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return error;
    }
    error.help(format!("Give a value for {}, or link another node to it.", missing.join(", ")))
}
