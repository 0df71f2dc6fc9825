//! The dynamic library that registers Vocable's nodes with a host. Everything is in `vocable-nodes`; this crate exports it twice: to hosts in
//! Rust through `export_plugin!`, and to all others as the C functions of `include/vocable.h`.

mod c_abi;

use vocable_host_sdk::abi::Plugin;

/// What the C functions speak for. Its nodes hold no state of a run, so it may stand beside the one that `export_plugin!` makes.
static PLUGIN: &dyn Plugin = &vocable_nodes::Vocable;

vocable_host_sdk::export_plugin!(vocable_nodes::Vocable);
