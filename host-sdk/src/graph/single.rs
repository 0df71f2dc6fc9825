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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::abi::{ErrorKind, Handle, OutputSpec, SilentHost, TensorBuf};

    /// Answers its inputs, one map of what it got and one list of what it got linked; `bad` is refused by its own check.
    struct Echo {
        is_list: bool,
    }

    impl Node for Echo {
        fn spec(&self) -> NodeSpec {
            let spec = NodeSpec::new("Echo", "Echo")
                .input(InputSpec::float("rate").range(0, 10))
                .input(InputSpec::new("image", "IMAGE").optional())
                .input(InputSpec::new("any", "*").optional())
                .input(InputSpec::combo("mode", ["a", "b"]).default("a").optional())
                .input(InputSpec::string("text").default("").optional())
                .input(InputSpec::hidden("id", "UNIQUE_ID"))
                .output(OutputSpec::new("inputs", "MAP"))
                .output(OutputSpec::new("linked", "STRING").list());
            if self.is_list { spec.input_is_list() } else { spec }
        }
        fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
            match inputs.optional_string("text")? {
                Some("bad") => Err(NodeError::not_found("no text `bad`").help("Say another.")),
                _ => Ok(()),
            }
        }
        fn fingerprint(&self, inputs: &Inputs, _host: &HostContext<'_>) -> Result<String, NodeError> {
            Ok(inputs.iter().map(|(name, _)| name).chain(inputs.linked()).collect::<Vec<_>>().join(" "))
        }
        fn execute(&self, inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
            let linked: Vec<Value> = inputs.linked().map(Value::from).collect();
            let all = Value::map(inputs.iter().map(|(name, value)| (name, value.clone())));
            Ok(Outputs::one(all).result(linked))
        }
    }

    fn given(json: serde_json::Value) -> BTreeMap<String, Value> {
        Value::from_json(&json).as_map().unwrap().clone()
    }

    fn run_echo(
        is_list: bool,
        given: BTreeMap<String, Value>,
        linked: &[&str],
    ) -> Result<Outputs, NodeError> {
        let linked = linked.iter().map(ToString::to_string).collect();
        run(&Echo { is_list }, given, &linked, &Folders::new(), &SilentHost::default())
    }

    #[test]
    fn literals_are_coerced_and_defaults_filled_in() {
        let outputs =
            run_echo(false, given(json!({"rate": "2", "any": [1, {"x": 2}], "image": null, "zzz": 1})), &[]);
        let json = outputs.unwrap().results[0].to_json();
        assert_eq!(json, json!({"rate": 2.0, "any": [1, {"x": 2}], "mode": "a", "text": "", "id": ""}));
    }

    #[test]
    fn what_comes_along_a_link_is_taken_as_it_is() {
        let mut inputs = given(json!({"rate": 99, "text": "bad"}));
        inputs.insert("image".to_string(), TensorBuf::from_vec_f32(&[1], vec![0.5]).unwrap().into());
        inputs.insert("any".to_string(), vec![Value::Handle(Handle::new("X", Arc::new(1_u8)))].into());
        let outputs = run_echo(false, inputs, &["rate", "text"]).unwrap();
        assert_eq!(outputs.results[1].to_json(), json!(["any", "image", "rate", "text"]));
        assert_eq!(outputs.results[0].get("rate").unwrap().as_int(), Some(99));
        assert!(outputs.results[0].get("any").unwrap().as_list().unwrap()[0].as_handle().is_some());
    }

    #[test]
    fn all_problems_are_told_and_the_nodes_own_keep_their_kind() {
        let refused = |json, linked: &[&str]| run_echo(false, given(json), linked).unwrap_err();
        let error = refused(json!({"mode": "c", "image": "x.png"}), &[]);
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        for wanted in [
            "Echo: Required input is missing: rate",
            "'c' not in [\"a\", \"b\"]",
            "image, \"x.png\", it needs a link",
        ] {
            assert!(error.message.contains(wanted), "{error}");
        }
        assert_eq!(error.help, "Give a value for rate, or link another node to it.");
        assert!(refused(json!({"rate": 11}), &[]).message.contains("bigger than max"));
        assert!(
            refused(json!({}), &["rate"]).message.contains("missing: rate"),
            "a link that brings nothing"
        );
        let own = refused(json!({"rate": 1, "text": "bad"}), &[]);
        assert_eq!((own.kind, own.message.as_str()), (ErrorKind::NotFound, "Echo: no text `bad`"));
        assert_eq!(own.help, "Say another.");
    }

    #[test]
    fn links_may_be_missing_before_the_run() {
        let linked = BTreeSet::from(["rate".to_string(), "image".to_string()]);
        let (node, folders) = (Echo { is_list: false }, Folders::new());
        validate(&node, given(json!({})), &linked, &folders).unwrap();
        assert!(validate(&node, given(json!({"text": "bad"})), &linked, &folders).is_err());
        assert!(validate(&node, given(json!({})), &BTreeSet::new(), &folders).is_err());
        let host = SilentHost::default();
        let found = fingerprint(&node, given(json!({"rate": 1})), &linked, &folders, &host).unwrap();
        assert_eq!(found, "id mode text image rate", "no value of a link, and the hidden ones");
    }

    #[test]
    fn a_node_of_lists_gets_lists() {
        let inputs = given(json!({"rate": [1, "2"], "mode": ["b"], "text": "t"}));
        let outputs = run_echo(true, inputs, &[]).unwrap();
        let json = outputs.results[0].to_json();
        assert_eq!(json, json!({"rate": [1.0, 2.0], "mode": ["b"], "text": ["t"], "id": [""]}));
        let error = run_echo(true, given(json!({"rate": [1, 11]})), &[]).unwrap_err();
        assert!(error.message.contains("Value 11 bigger"), "{error}");
    }
}
