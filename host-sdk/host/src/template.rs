//! Workflows from templates: JSON files in which a text `"$name"` stands for a value that code fills in.

use serde_json::{Map, Value as Json, json};
use vocable_host_sdk::graph::Workflow;

use crate::checkpoint::Checkpoint;
use crate::failure::Failure;

/// The graph of `learn` without pictures.
pub(crate) const LEARN: &str = include_str!("../templates/learn.json");
/// What `learn` adds for each prompt: pictures before and after, and a contact sheet.
pub(crate) const LEARN_PROMPT: &str = include_str!("../templates/learn_prompt.json");
/// The graph of `generate`.
pub(crate) const GENERATE: &str = include_str!("../templates/generate.json");
/// What `generate` adds for each learned word.
pub(crate) const LOAD_WORD: &str = include_str!("../templates/load_word.json");
/// The node that tells what a checkpoint is.
pub(crate) const INSPECT: &str = include_str!("../templates/inspect.json");
/// Its output with the size of the pictures that the model was trained on.
const RESOLUTION: (&str, u64) = ("9", 1);

/// A graph that is being put together.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Map<String, Json>,
}

impl Graph {
    /// Adds the nodes of a template with `values` in their places; an input whose value is null is left out, so that the node's default
    /// holds. The template's own ids, and links among them, grow by `shift`.
    pub(crate) fn add(&mut self, template: &str, shift: u64, values: &[(&str, Json)]) -> Result<(), Failure> {
        let broken =
            |why: String| Failure::Invalid(format!("a built-in template is broken, please report it: {why}"));
        let template: Map<String, Json> =
            serde_json::from_str(template).map_err(|error| broken(error.to_string()))?;
        let moved = |id: &str| match id.parse::<u64>() {
            Ok(number) if template.contains_key(id) => (number + shift).to_string(),
            _ => id.to_string(),
        };
        for (id, node) in &template {
            let mut node = node.clone();
            let mut inputs = Map::new();
            for (name, input) in node["inputs"].as_object().into_iter().flatten() {
                let value = match input {
                    Json::String(text) if text.starts_with('$') => values
                        .iter()
                        .find(|(key, _)| *key == &text[1..])
                        .map(|(_, value)| value.clone())
                        .ok_or_else(|| broken(format!("nothing stands for {text}")))?,
                    Json::Array(link) => match link.as_slice() {
                        [Json::String(other), slot] => Json::Array(vec![moved(other).into(), slot.clone()]),
                        _ => input.clone(),
                    },
                    other => other.clone(),
                };
                if !value.is_null() {
                    inputs.insert(name.clone(), value);
                }
            }
            node["inputs"] = Json::Object(inputs);
            self.nodes.insert(moved(id), node);
        }
        Ok(())
    }

    /// A size in pixels: the one that was given or that the checkpoint's configuration says, or else a link to a node that looks into the checkpoint.
    pub(crate) fn size(&mut self, given: Option<u64>, checkpoint: &Checkpoint) -> Result<Json, Failure> {
        if let Some(size) = given.or_else(|| checkpoint.picture_size()) {
            return Ok(json!(size));
        }
        self.add(INSPECT, 0, &[("model", json!(checkpoint.name))])?;
        Ok(json!([RESOLUTION.0, RESOLUTION.1]))
    }

    /// Makes a node one of another class, with one more input unless it is null.
    pub(crate) fn change(&mut self, id: &str, class: &str, input: &str, value: Json) {
        if let Some(node) = self.nodes.get_mut(id) {
            node["class_type"] = class.into();
            if !value.is_null() {
                node["inputs"][input] = value;
            }
        }
    }

    /// The graph as a workflow.
    pub(crate) fn into_workflow(self) -> Result<Workflow, Failure> {
        Workflow::from_json(Json::Object(self.nodes)).map_err(|error| Failure::Invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_and_nothing_leaves_the_input_out() {
        let template = r#"{"1": {"class_type": "A", "inputs": {}},
            "10": {"class_type": "B", "inputs": {"a": ["1", 0], "b": ["9", 1], "x": "$x", "y": "$y", "z": "plain"}},
            "9": {"class_type": "C", "inputs": {}}}"#;
        let mut graph = Graph::default();
        graph.add(template, 0, &[("x", json!(3)), ("y", Json::Null)]).unwrap();
        let inputs = &graph.nodes["10"]["inputs"];
        assert_eq!(*inputs, json!({"a": ["1", 0], "b": ["9", 1], "x": 3, "z": "plain"}));
        let message = graph.add(template, 0, &[("x", json!(3))]).unwrap_err().to_string();
        assert!(message.contains("$y"), "{message}");
    }

    #[test]
    fn parts_may_be_added_several_times() {
        let part = r#"{"10": {"class_type": "B", "inputs": {"a": ["1", 0], "b": ["11", 0]}},
            "11": {"class_type": "C", "inputs": {}}}"#;
        let mut graph = Graph::default();
        graph.add(part, 0, &[]).unwrap();
        graph.add(part, 10, &[]).unwrap();
        assert_eq!(graph.nodes["20"]["inputs"], json!({"a": ["1", 0], "b": ["21", 0]}));
        assert_eq!(graph.into_workflow().unwrap().nodes().len(), 4);
    }

    #[test]
    fn a_node_may_be_changed() {
        let mut graph = Graph::default();
        graph.add(r#"{"1": {"class_type": "A", "inputs": {"x": 1}}}"#, 0, &[]).unwrap();
        graph.change("1", "B", "y", json!(["2", 0]));
        assert_eq!(graph.nodes["1"], json!({"class_type": "B", "inputs": {"x": 1, "y": ["2", 0]}}));
    }
}
