//! How a node describes itself: a superset of what ComfyUI's `/object_info` needs.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Choices, InputSpec};

/// One output of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputSpec {
    /// The name beside the socket.
    pub name: String,
    /// Type of the socket.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Shown when the pointer rests on it.
    pub tooltip: String,
    /// The node answers a list here, and the nodes behind it run once for each of its values.
    pub is_list: bool,
}

impl OutputSpec {
    /// An output.
    pub fn new(name: impl Into<String>, type_name: impl Into<String>) -> Self {
        Self { name: name.into(), type_name: type_name.into(), ..Self::default() }
    }

    /// Shown when the pointer rests on it.
    #[must_use]
    pub fn tooltip(mut self, text: impl Into<String>) -> Self {
        self.tooltip = text.into();
        self
    }

    /// The node answers a list here, and the nodes behind it run once for each of its values.
    #[must_use]
    pub fn list(mut self) -> Self {
        self.is_list = true;
        self
    }
}

/// A node as the user sees it. Cheap to make: it is asked for at each listing and each validation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The id, unique among all plugins and unchanging: users' saved graphs hold it.
    pub id: String,
    /// The name above the node.
    pub display_name: String,
    /// Place in the menu, parts with `/`.
    pub category: String,
    /// What the node does.
    pub description: String,
    /// Inputs, in the order in which they are shown.
    pub inputs: Vec<InputSpec>,
    /// Outputs, in the order of their slots.
    pub outputs: Vec<OutputSpec>,
    /// Every input comes as a list of all its values, and the node runs once.
    pub input_is_list: bool,
    /// The node is a reason to run: it saves or shows something.
    pub output_node: bool,
    /// Other words to find it by.
    pub search_aliases: Vec<String>,
    /// Better not used any more.
    pub deprecated: bool,
    /// May still change.
    pub experimental: bool,
}

impl NodeSpec {
    /// A node without inputs and outputs.
    pub fn new(id: impl Into<String>, display_name: impl Into<String>) -> Self {
        Self { id: id.into(), display_name: display_name.into(), ..Self::default() }
    }

    /// Place in the menu, parts with `/`.
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }

    /// What the node does.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// One more input.
    #[must_use]
    pub fn input(mut self, input: InputSpec) -> Self {
        self.inputs.push(input);
        self
    }

    /// One more output.
    #[must_use]
    pub fn output(mut self, output: OutputSpec) -> Self {
        self.outputs.push(output);
        self
    }

    /// Every input comes as a list of all its values.
    #[must_use]
    pub fn input_is_list(mut self) -> Self {
        self.input_is_list = true;
        self
    }

    /// The node is a reason to run.
    #[must_use]
    pub fn output_node(mut self) -> Self {
        self.output_node = true;
        self
    }

    /// Other words to find it by.
    #[must_use]
    pub fn search_aliases<T: Into<String>>(mut self, aliases: impl IntoIterator<Item = T>) -> Self {
        self.search_aliases.extend(aliases.into_iter().map(Into::into));
        self
    }

    /// Better not used any more.
    #[must_use]
    pub fn deprecated(mut self) -> Self {
        self.deprecated = true;
        self
    }

    /// May still change.
    #[must_use]
    pub fn experimental(mut self) -> Self {
        self.experimental = true;
        self
    }

    /// The input of that name.
    pub fn find_input(&self, name: &str) -> Option<&InputSpec> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// Everything that contradicts itself; empty for a sound spec. Hosts refuse plugins with unsound specs.
    pub fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut say = |what: String| problems.push(SpecProblem { node: self.id.clone(), what });
        if self.id.is_empty() || self.id.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
            say("its id is empty or holds blanks".to_string());
        }
        for (index, input) in self.inputs.iter().enumerate() {
            let name = &input.name;
            if name.is_empty() {
                say(format!("input {index} has no name"));
            }
            if input.type_name.is_empty() {
                say(format!("input `{name}` has no type"));
            }
            if self.inputs[..index].iter().any(|other| other.name == *name) {
                say(format!("input `{name}` is there twice"));
            }
            let numbers =
                [("min", &input.min), ("max", &input.max), ("step", &input.step), ("round", &input.round)];
            for (word, bound) in numbers {
                if bound.as_ref().is_some_and(|bound| !bound.is_number()) {
                    say(format!("`{word}` of input `{name}` is not a number"));
                }
            }
            if let Some(why) = default_problem(input) {
                say(format!("the default of input `{name}` {why}"));
            }
            if (input.type_name == "COMBO") != input.choices.is_some() {
                say(format!("input `{name}` needs both the type COMBO and choices, or neither"));
            }
        }
        for (slot, output) in self.outputs.iter().enumerate() {
            if output.type_name.is_empty() {
                say(format!("output {slot} has no type"));
            }
        }
        problems
    }
}

/// One contradiction in a [`NodeSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// The node's id.
    pub node: String,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node `{}`: {}", self.node, self.what)
    }
}

fn default_problem(input: &InputSpec) -> Option<String> {
    let default = input.default.as_ref()?;
    let fits = match input.type_name.as_str() {
        "INT" => default.is_i64() || default.is_u64(),
        "FLOAT" => default.is_number(),
        "STRING" => default.is_string(),
        "BOOLEAN" => default.is_boolean(),
        _ => true,
    };
    if !fits {
        return Some(format!("is {default}, not {}", input.type_name));
    }
    if let Some(Choices::Fixed(options)) = &input.choices
        && !options.iter().any(|option| default.as_str() == Some(option))
    {
        return Some(format!("{default} is not among its choices"));
    }
    let number = |json: &Option<Json>| json.as_ref().and_then(Json::as_f64);
    let value = default.as_f64()?;
    if number(&input.min).is_some_and(|min| value < min) || number(&input.max).is_some_and(|max| value > max)
    {
        return Some(format!("{default} is out of its range"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_spec_has_no_problems_and_survives_json() {
        let spec = NodeSpec::new("A", "A")
            .input(InputSpec::int("steps").default(20).range(1, 10_000).step(1))
            .input(InputSpec::float("cfg").default(8.0).step(0.1).round(0.01))
            .input(InputSpec::string("text").dynamic_prompts())
            .input(InputSpec::combo("mode", ["a", "b"]).default("b"))
            .input(InputSpec::files("file", "input", ["png"]).optional().accepts_paths())
            .input(InputSpec::hidden("prompt", "PROMPT"))
            .output(OutputSpec::new("out", "IMAGE").list());
        assert_eq!(spec.problems(), []);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NodeSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn a_spec_of_a_later_contract_is_read() {
        let spec: NodeSpec =
            serde_json::from_str(r#"{"id":"A","colour":"red","inputs":[{"name":"x","type":"INT"}]}"#)
                .unwrap();
        assert_eq!(spec.inputs, [InputSpec::int("x")]);
    }

    #[test]
    fn contradictions_are_found() {
        let problem =
            |spec: NodeSpec| spec.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let with = |input| problem(NodeSpec::new("A", "A").input(input));
        assert!(problem(NodeSpec::new("a b", "")).contains("blanks"));
        assert!(with(InputSpec::int("x").default(0.5)).contains("not INT"));
        assert!(with(InputSpec::int("x").default(0).range(1, 2)).contains("out of its range"));
        assert!(with(InputSpec::combo("x", ["a"]).default("b")).contains("not among"));
        assert!(with(InputSpec::new("x", "COMBO")).contains("COMBO and choices"));
        assert!(with(InputSpec::int("x").min("no")).contains("`min`"));
        assert!(with(InputSpec::float("x").round("no")).contains("`round`"));
        assert!(
            problem(NodeSpec::new("A", "A").input(InputSpec::int("x")).input(InputSpec::int("x")))
                .contains("twice")
        );
    }
}
