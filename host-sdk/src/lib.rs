//! The contract between a node-graph host and its plugins, and a runtime for hosts that have none of their own.
//!
//! * [`abi`] is the contract. A plugin author needs this module alone: [`Node`](abi::Node), [`Plugin`](abi::Plugin)
//!   and one line of [`export_plugin!`].
//! * [`loader`] opens plugin files, [`registry`] keeps their nodes by id.
//! * [`graph`] reads workflows in ComfyUI's API format, validates and runs them.
//!
//! This crate knows nothing of neural networks and of any one plugin.

#![deny(missing_docs)]

pub mod abi;
pub mod graph;
pub mod loader;
pub mod registry;

#[doc(hidden)]
pub use abi::border::export as __export;
