//! **Inspect Checkpoint**: what a checkpoint is, without loading it: family, prediction, parts, types, memory.

use vocable_engine::checkpoint::inspect;
use vocable_host_sdk::abi::{
    HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, folder,
};

use super::CATEGORY;
use crate::convert::node_error;
use crate::generation::CHECKPOINT_ENDINGS;

/// Describes a checkpoint.
pub(crate) struct InspectCheckpoint;

impl Node for InspectCheckpoint {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("VocableInspectCheckpoint", "Inspect Checkpoint")
            .category(CATEGORY)
            .description("Tells what a checkpoint is without loading it: which family, what it predicts, how large it is and what it needs in memory.")
            .search_aliases(["checkpoint info", "model info", "what is this model"])
            .input(
                InputSpec::files("ckpt_name", folder::CHECKPOINTS, CHECKPOINT_ENDINGS)
                    .accepts_paths()
                    .tooltip("The checkpoint: a file, or a diffusers pipeline folder, among the checkpoints."),
            )
            .output(OutputSpec::new("report", "STRING").tooltip("The description."))
            .output_node()
    }

    fn fingerprint(&self, _inputs: &Inputs, _host: &HostContext<'_>) -> Result<String, NodeError> {
        // It is a matter of milliseconds, and the file may have changed.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(now.as_nanos().to_string())
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let path = host.find_file(folder::CHECKPOINTS, inputs.string("ckpt_name")?)?;
        let report = inspect(&path).map_err(node_error)?;
        let report = format!("{}: {report}", path.file_name().unwrap_or_default().to_string_lossy());
        Ok(Outputs::one(report.clone()).ui_text(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Home;

    #[test]
    fn what_is_no_checkpoint_is_named() {
        let home = Home::new();
        std::fs::write(home.path("checkpoints/notes.ckpt"), b"hello").unwrap();
        let error = home.run(&InspectCheckpoint, Inputs::new().with("ckpt_name", "notes.ckpt")).unwrap_err();
        assert!(error.message.contains("notes.ckpt"), "{error}");
    }
}
