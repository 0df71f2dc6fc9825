//! **Inspect Checkpoint**: what a checkpoint is, without loading it: family, prediction, parts, types, memory.

use std::path::PathBuf;

use vocable_engine::checkpoint::{Checkpoint, inspect};
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
            .output(
                OutputSpec::new("resolution", "INT")
                    .tooltip("The side in pixels of the pictures that the model was trained on."),
            )
            .output_node()
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        Checkpoint::open(&path(inputs, host)?).and_then(|file| file.fingerprint()).map_err(node_error)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let path = path(&inputs, host)?;
        let report = inspect(&path).map_err(node_error)?;
        let resolution = i64::try_from(report.resolution).unwrap_or(i64::MAX);
        let report = format!("{}: {report}", path.file_name().unwrap_or_default().to_string_lossy());
        Ok(Outputs::new().result(report.clone()).result(resolution).ui_text(report))
    }
}

fn path(inputs: &Inputs, host: &HostContext<'_>) -> Result<PathBuf, NodeError> {
    host.find_file(folder::CHECKPOINTS, inputs.string("ckpt_name")?)
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
