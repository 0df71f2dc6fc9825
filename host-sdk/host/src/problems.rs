//! What validation found, for people.

use std::fmt::Write;

use vocable_host_sdk::graph::{Validation, Workflow, WorkflowNode};

/// All problems, one on each line: node, class, title, input, what is wrong, and ComfyUI's name for it.
pub(crate) fn describe(workflow: &Workflow, validation: &Validation) -> String {
    let count: usize = validation.node_errors.values().map(|node| node.errors.len()).sum();
    let mut text = match (&validation.error, count) {
        (Some(error), 0) => {
            let details =
                if error.details.is_empty() { String::new() } else { format!(": {}", error.details) };
            format!("the workflow cannot run: {}{details} [{}]", error.message, error.error_type)
        }
        (_, 1) => "the workflow has a problem, nothing was run:".to_string(),
        (_, count) => format!("the workflow has {count} problems, nothing was run:"),
    };
    for (id, problems) in &validation.node_errors {
        let title = workflow.get(id).map_or("", WorkflowNode::name);
        let title = if title == problems.class_type { String::new() } else { format!(", \"{title}\"") };
        for problem in &problems.errors {
            let mut details = problem.details.as_str();
            let _ = write!(text, "\n  node {id} ({}{title})", problems.class_type);
            if let Some(input) = problem.extra_info.get("input_name").and_then(|name| name.as_str()) {
                let _ = write!(text, ", input `{input}`");
                // ComfyUI begins details with the input's name.
                details = details.strip_prefix(input).map_or(details, without_separator);
            }
            let _ = write!(text, ": {}", problem.message);
            // The node is named already.
            if !details.is_empty() && details != format!("Node ID '#{id}'") {
                let _ = write!(text, ": {details}");
            }
            let _ = write!(text, " [{}]", problem.error_type);
        }
    }
    text
}

/// What follows an input's name in details.
fn without_separator(text: &str) -> &str {
    [": ", ", ", " - "].into_iter().find_map(|separator| text.strip_prefix(separator)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vocable_host_sdk::abi::{
        Folders, HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, Outputs,
    };
    use vocable_host_sdk::graph::validate;
    use vocable_host_sdk::registry::Registry;

    use super::*;

    struct Fake;

    impl Node for Fake {
        fn spec(&self) -> NodeSpec {
            NodeSpec::new("Fake", "Fake")
                .input(InputSpec::int("steps").range(1, 10))
                .input(InputSpec::combo("sampler", ["euler"]))
                .output_node()
        }
        fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
            match inputs.optional_int("steps")? {
                Some(7) => Err(NodeError::invalid_input("input `steps`: 7 is too even")),
                _ => Ok(()),
            }
        }
        fn execute(&self, _inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
            Ok(Outputs::new())
        }
    }

    fn problems(json: &str) -> String {
        let mut registry = Registry::new();
        registry.register_native("tests", [Arc::new(Fake) as Arc<dyn Node>]).unwrap();
        let workflow = Workflow::from_json_text(json).unwrap();
        describe(&workflow, &validate(&workflow, &registry, &Folders::new(), None))
    }

    #[test]
    fn all_problems_are_named() {
        let text = problems(
            r#"{"1": {"class_type": "Fake", "inputs": {"steps": 99, "sampler": "ddim"}, "_meta": {"title": "Mine"}},
                "2": {"class_type": "Fake", "inputs": {"sampler": "euler"}}}"#,
        );
        assert!(text.starts_with("the workflow has 3 problems, nothing was run:\n"), "{text}");
        assert!(text.contains("node 1 (Fake, \"Mine\"), input `steps`: Value 99 bigger than max of 10 [value_bigger_than_max]"), "{text}");
        assert!(text.contains("input `sampler`: Value not in list: 'ddim' not in"), "{text}");
        assert!(
            text.contains("node 2 (Fake), input `steps`: Required input is missing [required_input_missing]"),
            "{text}"
        );
        let text = problems(r#"{"1": {"class_type": "Fake", "inputs": {"steps": 7, "sampler": "euler"}}}"#);
        assert!(text.contains("input `steps`: Custom validation failed for node: 7 is too even ["), "{text}");
        let text =
            problems(r#"{"1": {"class_type": "Fake", "inputs": {"steps": "-x", "sampler": "euler"}}}"#);
        assert!(text.contains("to a INT value: \"-x\", \"-x\" is not a whole number ["), "{text}");
        assert!(problems("{}").contains("[prompt_no_outputs]"));
        let text = problems(r#"{"1": {"class_type": "Fakes", "inputs": {}}}"#);
        assert!(text.contains("Did you mean 'Fake'?"), "{text}");
    }
}
