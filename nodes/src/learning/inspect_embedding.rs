//! **Inspect Embedding**: what is in learned words: vectors, widths, norms, and what their files say.

use vocable_engine::embedding::Embedding;
use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs};

use super::{CATEGORY, EMBEDDING};
use crate::convert::{embeddings_from, row_norms};

/// Describes learned words.
pub(crate) struct InspectEmbedding;

impl Node for InspectEmbedding {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableInspectEmbedding", "Inspect Embedding")
            .category(CATEGORY)
            .description("Tells what is in learned words: how many vectors for which encoder, how long they are, where they come from.")
            .search_aliases(["textual inversion", "ti", "embedding info"])
            .input(InputSpec::new("embedding", EMBEDDING).tooltip("The learned words."))
            .output(OutputSpec::new("report", "STRING").tooltip("The description."))
            .output_node()
    }

    fn execute(&self, inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let words = embeddings_from(&inputs, "embedding")?;
        let report = words.iter().map(describe).collect::<Result<Vec<_>, _>>()?.join("\n\n");
        Ok(Outputs::one(report.clone()).ui_text(report))
    }
}

fn describe(word: &Embedding) -> Result<String, NodeError> {
    let mut lines = vec![format!("{}: {}", word.name, word.describe())];
    for (encoder, vectors) in &word.vectors {
        let norms: Vec<String> = row_norms(vectors)?.iter().map(|norm| format!("{norm:.3}")).collect();
        lines.push(format!("  {encoder} norms: {}", norms.join(" ")));
    }
    lines.extend(word.metadata.iter().map(|(key, value)| format!("  {key}: {value}")));
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::embeddings_into;
    use crate::learning::tests::word;
    use crate::testing::Home;

    #[test]
    fn the_report_names_everything() {
        let words = embeddings_into(&[word("<a>", 2, 8)]).unwrap();
        let outputs = Home::new().run(&InspectEmbedding, Inputs::new().with("embedding", words)).unwrap();
        let report = outputs.results[0].as_str().unwrap();
        assert!(
            report.contains("<a>: clip_l [2, 8]")
                && report.contains("norms: 0.118")
                && report.contains("steps: 7"),
            "{report}"
        );
    }
}
