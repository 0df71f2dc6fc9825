//! `vocable nodes`: what workflows can use.

use std::collections::BTreeMap;
use std::fmt::Write;

use vocable_host_sdk::abi::{InputSpec, NodeSpec, Presence};
use vocable_host_sdk::registry::Registry;

use crate::cli::NodesArgs;
use crate::failure::Failure;
use crate::{places, plugins, print};

/// Runs the command.
pub(crate) fn nodes(args: &NodesArgs) -> Result<(), Failure> {
    let folders = places::folders(&args.places)?;
    let registry = plugins::load(&args.places.plugin)?;
    if args.json {
        let info = registry.object_info(&folders);
        print::line(format_args!("{info:#}"));
    } else {
        print::line(table(&registry));
    }
    Ok(())
}

/// All nodes by category, then the plugins.
fn table(registry: &Registry) -> String {
    let mut by_category: BTreeMap<String, Vec<NodeSpec>> = BTreeMap::new();
    for spec in registry.specs() {
        by_category.entry(spec.category.clone()).or_default().push(spec);
    }
    let mut text = String::new();
    for (category, specs) in by_category {
        let category = if category.is_empty() { "without category" } else { &category };
        let _ = writeln!(text, "{category}");
        for spec in specs {
            let mark = if spec.output_node { " (output)" } else { "" };
            let _ = writeln!(text, "  {}{mark}: {}", spec.id, spec.description);
            let _ = writeln!(text, "      takes {}", inputs(&spec));
            let outputs: Vec<String> =
                spec.outputs.iter().map(|output| named(&output.name, &output.type_name)).collect();
            if !outputs.is_empty() {
                let _ = writeln!(text, "      gives {}", outputs.join(", "));
            }
        }
        text.push('\n');
    }
    for plugin in registry.plugins() {
        let info = plugin.info();
        let _ = writeln!(text, "plugin {} {}: {}", info.name, info.version, plugin.path().display());
    }
    text.trim_end().to_string()
}

/// Required inputs, then optional ones in brackets; hidden ones are the host's affair.
fn inputs(spec: &NodeSpec) -> String {
    let of = |presence: Presence| -> Vec<String> {
        let chosen = spec.inputs.iter().filter(|input| input.presence == presence);
        chosen.map(|input: &InputSpec| named(&input.name, &input.type_name)).collect()
    };
    let (required, optional) = (of(Presence::Required), of(Presence::Optional));
    match (required.is_empty(), optional.is_empty()) {
        (true, true) => "nothing".to_string(),
        (false, true) => required.join(", "),
        (true, false) => format!("[{}]", optional.join(", ")),
        (false, false) => format!("{} [{}]", required.join(", "), optional.join(", ")),
    }
}

/// The name, and the type unless the name says it.
fn named(name: &str, type_name: &str) -> String {
    if name.eq_ignore_ascii_case(type_name) { name.to_string() } else { format!("{name} {type_name}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vocable_host_sdk::abi::{HostContext, Inputs, Node, NodeError, OutputSpec, Outputs};

    use super::*;

    struct Fake;

    impl Node for Fake {
        fn spec(&self) -> NodeSpec {
            NodeSpec::new("Fake", "Fake")
                .category("testing")
                .description("Does nothing.")
                .input(InputSpec::new("model", "MODEL"))
                .input(InputSpec::int("steps").optional())
                .input(InputSpec::hidden("prompt", "PROMPT"))
                .output(OutputSpec::new("IMAGE", "IMAGE"))
        }
        fn execute(&self, _inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
            Ok(Outputs::new())
        }
    }

    #[test]
    fn the_table_names_inputs_and_outputs() {
        let mut registry = Registry::new();
        registry.register_native("tests", [Arc::new(Fake) as Arc<dyn Node>]).unwrap();
        assert_eq!(
            table(&registry),
            "testing\n  Fake: Does nothing.\n      takes model [steps INT]\n      gives IMAGE"
        );
    }
}
