//! Checkpoints: what a file or folder is, and the weights in it.

mod pipeline;
mod weights;

pub use pipeline::{PipelineFolder, Precision};
pub use weights::Weights;
