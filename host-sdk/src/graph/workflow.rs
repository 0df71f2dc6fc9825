//! Workflows in ComfyUI's API format: `{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0]}, "_meta": {"title": "…"}}}`.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};

use crate::registry::Registry;

/// Why a text is not a workflow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkflowError {
    /// Not JSON.
    #[error("the workflow is not JSON: {0}\n  help: Give a file that was saved with \"Export (API)\".")]
    Json(#[from] serde_json::Error),
    /// JSON of the front end's own format.
    #[error(
        "the workflow is in the format of the graph editor, not in the API format\n  help: In ComfyUI choose Workflow > Export (API) and give that file."
    )]
    EditorFormat,
    /// JSON of another form.
    #[error(
        "{0}\n  help: A workflow is an object of nodes: {{\"1\": {{\"class_type\": …, \"inputs\": {{…}}}}}}."
    )]
    Form(String),
}

/// Why `NODE.INPUT=VALUE` could not be applied.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// Not of that form.
    #[error("`{0}` is not of the form NODE.INPUT=VALUE")]
    Form(String),
    /// No such node.
    #[error("no node `{node}` in the workflow; there are: {known}")]
    NoNode {
        /// What was asked for.
        node: String,
        /// Ids with titles.
        known: String,
    },
    /// A title or class that several nodes have.
    #[error("several nodes are called `{node}` (ids {ids}); give the id")]
    Ambiguous {
        /// What was asked for.
        node: String,
        /// The ids.
        ids: String,
    },
    /// No such input.
    #[error("node {node} ({class}) has no input `{input}`; it has: {known}")]
    NoInput {
        /// The node's id.
        node: String,
        /// The node's class.
        class: String,
        /// What was asked for.
        input: String,
        /// The inputs' names.
        known: String,
    },
}

/// One input of a node in a workflow.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The output `slot` of the node with the id `node`.
    Link {
        /// The other node's id.
        node: String,
        /// Which of its outputs, from 0; negative numbers are kept so that validation can name them.
        slot: i64,
    },
    /// A value. An array that is neither a link nor wrapped in `__value__` stays as it is and is found by validation.
    Literal(Json),
    /// A list of values, written `{"__value__": […]}`.
    Wrapped(Json),
}

impl Input {
    /// Reads one input.
    pub fn from_json(json: Json) -> Self {
        if let Json::Array(parts) = &json
            && let [Json::String(node), Json::Number(slot)] = parts.as_slice()
            && let Some(slot) = slot.as_i64()
        {
            return Self::Link { node: node.clone(), slot };
        }
        match json {
            Json::Object(mut entries) if entries.contains_key("__value__") => {
                Self::Wrapped(entries.remove("__value__").unwrap_or_default())
            }
            other => Self::Literal(other),
        }
    }

    /// Writes it as it was read.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Link { node, slot } => json!([node, slot]),
            Self::Literal(value) => value.clone(),
            Self::Wrapped(value) => json!({"__value__": value}),
        }
    }

    /// The value, if it is not a link.
    pub fn literal(&self) -> Option<&Json> {
        match self {
            Self::Link { .. } => None,
            Self::Literal(value) | Self::Wrapped(value) => Some(value),
        }
    }
}

/// One node of a workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowNode {
    /// The id: a number as text, or `12:3` in subgraphs.
    pub id: String,
    /// The node type; `None` if the workflow does not say, which validation reports.
    pub class_type: Option<String>,
    /// The title that the user gave.
    pub title: Option<String>,
    /// Inputs, in the order of the file.
    pub inputs: Vec<(String, Input)>,
    /// The node as it was read: what is not understood is kept for whoever understands it.
    as_read: Map<String, Json>,
}

impl WorkflowNode {
    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|(key, _)| key == name).map(|(_, input)| input)
    }

    /// The node in API format: as it was read, with the inputs that it has now.
    pub fn to_json(&self) -> Json {
        let mut json = self.as_read.clone();
        if !self.inputs.is_empty() {
            let inputs: Map<_, _> =
                self.inputs.iter().map(|(name, input)| (name.clone(), input.to_json())).collect();
            json.insert("inputs".to_string(), Json::Object(inputs));
        }
        Json::Object(json)
    }

    /// The class, or `?`.
    pub fn class(&self) -> &str {
        self.class_type.as_deref().unwrap_or("?")
    }

    /// Title or class: what a user would call it.
    pub fn name(&self) -> &str {
        self.title.as_deref().unwrap_or_else(|| self.class())
    }

    /// The links among the inputs: name, other node, slot.
    pub fn links(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.inputs.iter().filter_map(|(name, input)| match input {
            Input::Link { node, slot } => Some((name.as_str(), node.as_str(), *slot)),
            _ => None,
        })
    }
}

/// A workflow, in the order of its file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workflow {
    nodes: Vec<WorkflowNode>,
    by_id: HashMap<String, usize>,
    /// What the front end sent along to be kept in pictures; `null` if nothing.
    pub extra_pnginfo: Json,
}

impl Workflow {
    /// Reads a workflow's text. A whole request to ComfyUI (`{"prompt": …, "extra_data": …}`) is understood too.
    pub fn from_json_text(text: &str) -> Result<Self, WorkflowError> {
        Self::from_json(serde_json::from_str(text.trim_start_matches('\u{feff}'))?)
    }

    /// Reads a workflow.
    pub fn from_json(json: Json) -> Result<Self, WorkflowError> {
        let Json::Object(mut entries) = json else {
            return Err(WorkflowError::Form(format!("the workflow is {}, not an object", kind(&json))));
        };
        if entries.get("nodes").is_some_and(Json::is_array) {
            return Err(WorkflowError::EditorFormat);
        }
        let mut extra_pnginfo = Json::Null;
        if let Some(prompt @ Json::Object(inner)) = entries.get("prompt")
            && !inner.contains_key("class_type")
            && !inner.contains_key("inputs")
        {
            let prompt = prompt.clone();
            if let Some(found) = entries.get_mut("extra_data").and_then(|data| data.get_mut("extra_pnginfo"))
            {
                extra_pnginfo = found.take();
            }
            let Json::Object(inner) = prompt else { unreachable!("matched above") };
            entries = inner;
        }
        let mut workflow = Self { extra_pnginfo, ..Self::default() };
        for (id, node) in entries {
            workflow.push(read_node(id, node)?);
        }
        Ok(workflow)
    }

    fn push(&mut self, node: WorkflowNode) {
        self.by_id.insert(node.id.clone(), self.nodes.len());
        self.nodes.push(node);
    }

    /// The nodes, in the order of the file.
    pub fn nodes(&self) -> &[WorkflowNode] {
        &self.nodes
    }

    /// The node with that id.
    pub fn get(&self, id: &str) -> Option<&WorkflowNode> {
        self.by_id.get(id).map(|&index| &self.nodes[index])
    }

    /// The workflow in API format: as it was read, with what has been set since.
    pub fn to_json(&self) -> Json {
        Json::Object(self.nodes.iter().map(|node| (node.id.clone(), node.to_json())).collect())
    }

    /// Applies `NODE.INPUT=VALUE`, where NODE is an id, or a title or class that only one node has.
    ///
    /// VALUE is JSON where it can be (`20`, `true`, `["3",0]`), text otherwise; an input that is text, or whose
    /// type in `registry` is `STRING` or a choice, takes it as text always.
    pub fn set(&mut self, assignment: &str, registry: &Registry) -> Result<(), SetError> {
        let form = || SetError::Form(assignment.to_string());
        let (target, value) = assignment.split_once('=').ok_or_else(form)?;
        let (node, input) = target.trim().rsplit_once('.').ok_or_else(form)?;
        if node.is_empty() || input.is_empty() {
            return Err(form());
        }
        let index = self.find(node)?;
        let node = &self.nodes[index];
        let spec = registry.get(node.class()).map(|registered| registered.node.spec());
        let declared = spec.as_ref().and_then(|spec| spec.find_input(input));
        let present = node.input(input);
        if declared.is_none() && present.is_none() {
            let mut known: Vec<&str> = node.inputs.iter().map(|(name, _)| name.as_str()).collect();
            for name in spec.iter().flat_map(|spec| &spec.inputs).map(|input| input.name.as_str()) {
                if !known.contains(&name) {
                    known.push(name);
                }
            }
            return Err(SetError::NoInput {
                node: node.id.clone(),
                class: node.class().to_string(),
                input: input.to_string(),
                known: known.join(", "),
            });
        }
        let is_text = match declared {
            Some(declared) => matches!(declared.type_name.as_str(), "STRING" | "COMBO"),
            None => matches!(present, Some(Input::Literal(Json::String(_)))),
        };
        let value = match serde_json::from_str::<Json>(value) {
            Ok(json) if !is_text || json.is_array() => Input::from_json(json),
            _ => Input::Literal(Json::String(value.to_string())),
        };
        let inputs = &mut self.nodes[index].inputs;
        match inputs.iter_mut().find(|(name, _)| name == input) {
            Some((_, present)) => *present = value,
            None => inputs.push((input.to_string(), value)),
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, SetError> {
        if let Some(&index) = self.by_id.get(name) {
            return Ok(index);
        }
        let matching = |read: fn(&WorkflowNode) -> Option<&str>| -> Vec<usize> {
            (0..self.nodes.len()).filter(|&index| read(&self.nodes[index]) == Some(name)).collect()
        };
        let by_title = matching(|node| node.title.as_deref());
        let found = if by_title.is_empty() { matching(|node| node.class_type.as_deref()) } else { by_title };
        match found.as_slice() {
            [] => Err(SetError::NoNode {
                node: name.to_string(),
                known: self
                    .nodes
                    .iter()
                    .map(|node| format!("{} ({})", node.id, node.name()))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
            [index] => Ok(*index),
            several => Err(SetError::Ambiguous {
                node: name.to_string(),
                ids: several
                    .iter()
                    .map(|&index| self.nodes[index].id.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }
}

fn read_node(id: String, json: Json) -> Result<WorkflowNode, WorkflowError> {
    let Json::Object(as_read) = json else {
        return Err(WorkflowError::Form(format!("node `{id}` is {}, not an object", kind(&json))));
    };
    let inputs = match as_read.get("inputs") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Object(inputs)) => {
            inputs.iter().map(|(name, input)| (name.clone(), Input::from_json(input.clone()))).collect()
        }
        Some(other) => {
            return Err(WorkflowError::Form(format!(
                "the inputs of node `{id}` are {}, not an object",
                kind(other)
            )));
        }
    };
    let text = |json: Option<&Json>| json.and_then(Json::as_str).map(str::to_string);
    let class_type = text(as_read.get("class_type"));
    let title = text(as_read.get("_meta").and_then(|meta| meta.get("title")));
    Ok(WorkflowNode { id, class_type, title, inputs, as_read })
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "4": {"class_type": "Loader", "inputs": {"file": "a.safetensors"}, "_meta": {"title": "The model"}},
        "12:3": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "model": ["4", 0],
                 "many": {"__value__": ["4", 0]}, "broken": ["4"]}},
        "13": {"class_type": "KSampler", "inputs": {}}}"#;

    #[test]
    fn the_api_format_is_read_and_written() {
        let workflow = Workflow::from_json_text(TEXT).unwrap();
        let node = workflow.get("12:3").unwrap();
        assert_eq!(node.input("model"), Some(&Input::Link { node: "4".into(), slot: 0 }));
        assert_eq!(node.input("many"), Some(&Input::Wrapped(json!(["4", 0]))));
        assert_eq!(node.input("broken"), Some(&Input::Literal(json!(["4"]))));
        assert_eq!(workflow.get("4").unwrap().name(), "The model");
        let original: Json = serde_json::from_str(TEXT).unwrap();
        assert_eq!(workflow.to_json(), original);
    }

    #[test]
    fn what_is_not_understood_is_kept() {
        let text = r#"{"9":{"_meta":{"title":"T","colour":"red"},"inputs":{"b":1,"a":["2",0]},"is_changed":["x"],"class_type":"A"},"2":{"class_type":"B"}}"#;
        let mut workflow = Workflow::from_json_text(text).unwrap();
        assert_eq!(workflow.to_json().to_string(), text, "also the order");
        workflow.set("9.b=2", &Registry::new()).unwrap();
        assert_eq!(workflow.to_json().to_string(), text.replace("\"b\":1", "\"b\":2"));
    }

    #[test]
    fn a_whole_request_is_understood() {
        let request = json!({"prompt": {"1": {"class_type": "A", "inputs": {}}}, "client_id": "x",
                             "extra_data": {"extra_pnginfo": {"workflow": {"v": 1}}}});
        let workflow = Workflow::from_json(request).unwrap();
        assert_eq!(workflow.nodes().len(), 1);
        assert_eq!(workflow.extra_pnginfo["workflow"]["v"], 1);
    }

    #[test]
    fn what_is_not_a_workflow_is_explained() {
        let message = |text: &str| Workflow::from_json_text(text).unwrap_err().to_string();
        assert!(message(r#"{"nodes": [], "links": []}"#).contains("Export (API)"));
        assert!(message("{").contains("not JSON"));
        assert!(message("[]").contains("an array, not an object"));
        assert!(message(r#"{"1": 5}"#).contains("node `1` is a number"));
        assert!(message(r#"{"1": {"class_type": "A", "inputs": []}}"#).contains("inputs of node `1`"));
    }

    #[test]
    fn inputs_are_set_by_id_title_or_class() {
        let registry = Registry::new();
        let mut workflow = Workflow::from_json_text(TEXT).unwrap();
        workflow.set("12:3.seed=7", &registry).unwrap();
        workflow.set("The model.file=123", &registry).unwrap();
        workflow.set("Loader.file=a = b.ckpt", &registry).unwrap();
        assert_eq!(workflow.get("12:3").unwrap().input("seed"), Some(&Input::Literal(json!(7))));
        assert_eq!(workflow.get("4").unwrap().input("file"), Some(&Input::Literal(json!("a = b.ckpt"))));
        workflow.set("12:3.broken=[\"4\",1]", &registry).unwrap();
        assert_eq!(workflow.get("12:3").unwrap().links().count(), 2);

        let message =
            |workflow: &mut Workflow, text: &str| workflow.set(text, &registry).unwrap_err().to_string();
        assert!(message(&mut workflow, "KSampler.seed=1").contains("ids 12:3, 13"));
        assert!(message(&mut workflow, "9.seed=1").contains("4 (The model)"));
        assert!(message(&mut workflow, "4.fil=1").contains("it has: file"));
        assert!(message(&mut workflow, "seed").contains("NODE.INPUT=VALUE"));
    }
}
