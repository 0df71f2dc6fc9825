//! What a node is.

use super::{HostContext, Inputs, NodeError, NodeSpec, Outputs};

/// A node type. One object serves every use of the type in every graph, so it holds no state of a run.
pub trait Node: Send + Sync {
    /// Describes the node. Cheap, and the same at each call: lists of files are a
    /// [`Choices::Files`](super::Choices::Files), which the host looks up. `[any thread]`
    fn spec(&self) -> NodeSpec;

    /// Looks at literal inputs before anything runs; types, ranges and lists are checked already. Linked inputs are
    /// missing. An error keeps the outputs that need this node from running. `[any thread]`
    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        let _ = inputs;
        Ok(())
    }

    /// Text that changes when the result would although class and inputs are the same: size, time or hash of the files
    /// that are read. Linked inputs are missing. An error means that nothing is known, and the node runs. `[graph thread]`
    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        let _ = (inputs, host);
        Ok(String::new())
    }

    /// Does the work: one result for each output of the spec. `host` is borrowed for the call and may be used from
    /// several threads; inputs and results are shared with other nodes and never changed. `[graph thread]`
    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError>;
}
