//! The plugin: who it is, its nodes, and models that a host hands in.

use std::collections::BTreeMap;
use std::sync::Arc;

use vocable_host_sdk::abi::{HostContext, Node, NodeError, Plugin, PluginInfo, StateKind, TensorBuf, Value};

use crate::{import, registry};

/// Vocable as a plugin.
///
#[doc = include_str!("../docs/host_models.md")]
pub struct Vocable;

impl Plugin for Vocable {
    fn info(&self) -> PluginInfo {
        let devices: &[&str] = if cfg!(feature = "cuda") { &["cpu", "cuda"] } else { &["cpu"] };
        PluginInfo::new("vocable", env!("CARGO_PKG_VERSION"))
            .description(
                "Teaches a frozen text-to-image model a new word from a handful of pictures, and paints with it.",
            )
            .devices(devices.iter().copied())
    }

    fn nodes(&self) -> Vec<Arc<dyn Node>> {
        registry::nodes()
    }

    fn import_state_dict(
        &self,
        kind: StateKind,
        tensors: Vec<(String, TensorBuf)>,
        settings: BTreeMap<String, Value>,
        host: &HostContext<'_>,
    ) -> Result<Value, NodeError> {
        import::import(kind, tensors, settings, host)
    }
}
