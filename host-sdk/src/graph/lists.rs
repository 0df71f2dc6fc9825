//! ComfyUI's list semantics: which calls a node needs, and how their results become its outputs.
//!
//! On a link travels always a list of values. A node runs once for each position; shorter lists repeat their last value.
//! A node with `input_is_list` runs once and gets the lists. An output with `is_list` gives all its values, any other gives one for each call.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::abi::{NodeError, NodeSpec, Outputs, Value};

/// The inputs of each call.
pub(crate) fn calls(
    inputs: BTreeMap<String, Vec<Value>>,
    input_is_list: bool,
) -> Result<Vec<BTreeMap<String, Value>>, NodeError> {
    if input_is_list {
        return Ok(vec![inputs.into_iter().map(|(name, values)| (name, Value::List(values))).collect()]);
    }
    if let Some((name, _)) = inputs.iter().find(|(_, values)| values.is_empty()) {
        return Err(NodeError::invalid_input(format!("input `{name}` got an empty list"))
            .help("The node before it made no results; check its inputs."));
    }
    let count = inputs.values().map(Vec::len).max().unwrap_or(1);
    let pick = |values: &Vec<Value>, index: usize| values[index.min(values.len() - 1)].clone();
    Ok((0..count)
        .map(|index| inputs.iter().map(|(name, values)| (name.clone(), pick(values, index))).collect())
        .collect())
}

/// The values of each output, and everything the calls show.
pub(crate) fn merge(
    spec: &NodeSpec,
    answers: Vec<Outputs>,
) -> Result<(Vec<Vec<Value>>, Option<Json>), NodeError> {
    let mut slots: Vec<Vec<Value>> = vec![Vec::new(); spec.outputs.len()];
    let mut ui: Option<Map<String, Json>> = None;
    for answer in answers {
        if answer.results.len() != spec.outputs.len() {
            return Err(NodeError::internal(format!(
                "the node answered {} results, its spec has {} outputs",
                answer.results.len(),
                spec.outputs.len()
            ))
            .help("This is a bug in the plugin; please report it."));
        }
        for ((value, slot), output) in answer.results.into_iter().zip(&mut slots).zip(&spec.outputs) {
            match (output.is_list, value) {
                (false, value) => slot.push(value),
                (true, Value::List(values)) => slot.extend(values),
                (true, other) => {
                    return Err(NodeError::internal(format!(
                        "output `{}` should be a list, the node answered {}",
                        output.name,
                        other.describe()
                    ))
                    .help("This is a bug in the plugin; please report it."));
                }
            }
        }
        if let Some(text) = answer.ui {
            let shown: Map<String, Json> = serde_json::from_str(&text).map_err(|error| {
                NodeError::internal("what the node wants to show is not a JSON object").caused_by(&error)
            })?;
            let all = ui.get_or_insert_default();
            for (key, entries) in shown {
                match (all.get_mut(&key), entries) {
                    (Some(Json::Array(present)), Json::Array(more)) => present.extend(more),
                    (_, entries) => {
                        all.insert(key, entries);
                    }
                }
            }
        }
    }
    Ok((slots, ui.map(Json::Object)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::OutputSpec;

    fn ints(values: &[i64]) -> Vec<Value> {
        values.iter().map(|&value| value.into()).collect()
    }

    fn text<T: std::fmt::Debug>(value: T) -> String {
        format!("{value:?}")
    }

    #[test]
    fn shorter_lists_repeat_their_last_value() {
        let inputs = BTreeMap::from([("a".to_string(), ints(&[1, 2, 3])), ("b".to_string(), ints(&[9]))]);
        let calls = calls(inputs.clone(), false).unwrap();
        assert_eq!(calls.len(), 3);
        assert_eq!(text(&calls[2]), r#"{"a": Int(3), "b": Int(9)}"#);
        let once = super::calls(inputs, true).unwrap();
        assert_eq!(text(&once[0]["a"]), "List([Int(1), Int(2), Int(3)])");
        assert_eq!(super::calls(BTreeMap::new(), false).unwrap().len(), 1);
        let empty = BTreeMap::from([("a".to_string(), vec![])]);
        assert!(super::calls(empty, false).unwrap_err().message.contains("`a` got an empty list"));
    }

    #[test]
    fn results_are_gathered_by_slot() {
        let spec = NodeSpec::new("A", "A")
            .output(OutputSpec::new("x", "INT"))
            .output(OutputSpec::new("y", "INT").list());
        let answer = |x: i64| Outputs::one(x).result(ints(&[x, x])).ui_text(x.to_string());
        let (slots, ui) = merge(&spec, vec![answer(1), answer(2)]).unwrap();
        assert_eq!(text(slots), "[[Int(1), Int(2)], [Int(1), Int(1), Int(2), Int(2)]]");
        assert_eq!(ui.unwrap()["text"], serde_json::json!(["1", "2"]));
        assert!(merge(&spec, vec![Outputs::one(1)]).unwrap_err().message.contains("1 results"));
        assert!(
            merge(&spec, vec![Outputs::one(1).result(2)]).unwrap_err().message.contains("should be a list")
        );
    }
}
