//! The nodes of Vocable: one file each, over the engine.
//!
//! A node file has five parts in this order: what it is, its inputs, its spec, its fingerprint, its execute. The
//! arithmetic is in `vocable-engine`; [`registry`] is the one list of nodes; `convert` is the only module that knows both
//! the host's values and candle's tensors.

mod convert;
mod draw;
mod encoding;
mod files;
mod generation;
mod handles;
mod import;
mod learning;
mod plugin;
mod previews;
pub mod registry;
mod run;
mod training;

#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod testing;

pub use plugin::Vocable;
