//! **CLIP Set Last Layer**: stops the text encoder before its last layers ("clip skip").

use vocable_host_sdk::abi::{HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs};

use crate::handles::Clip;

/// Chooses the layer whose states become the conditioning.
pub(crate) struct ClipSetLastLayer;

impl Node for ClipSetLastLayer {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("CLIPSetLastLayer", "CLIP Set Last Layer")
            .category("model/conditioning")
            .description("Takes the states of an earlier layer of the text encoder, as some models were trained with (clip skip).")
            .search_aliases(["clip skip"])
            .input(InputSpec::new("clip", Clip::TAG).tooltip("The text encoder."))
            .input(
                InputSpec::int("stop_at_clip_layer")
                    .default(-1)
                    .range(-24, -1)
                    .step(1)
                    .advanced()
                    .tooltip("-1 is the last layer, -2 the one before. More than the encoder has means the last."),
            )
            .output(OutputSpec::new("CLIP", Clip::TAG).tooltip("The same text encoder, stopping there."))
    }

    fn execute(&self, inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let clip = Clip::from_input(&inputs, "clip")?;
        let from_end = inputs.int("stop_at_clip_layer")?;
        let Clip { text, fingerprint } = (*clip).clone();
        let text = text.skipping(skipped_layers(from_end));
        Ok(Outputs::one(Clip { text, fingerprint }.into_value()))
    }
}

/// How many layers are left out.
pub(crate) fn skipped_layers(from_end: i64) -> usize {
    usize::try_from(from_end.unsigned_abs()).unwrap_or(usize::MAX).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_count_from_the_last_layer() {
        assert_eq!([-1, -2, -12, -24].map(skipped_layers), [0, 1, 11, 23]);
    }
}
