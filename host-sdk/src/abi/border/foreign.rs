//! The host's side: a library's plugin and nodes as ordinary [`Plugin`] and [`Node`] objects.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RStr, RString, RVec, Tuple2};

use super::traits::{HostOne, HostOne_TO, HostRef, NodeBox, PluginBox};
use super::wire::{WireError, WireInputs, WirePreview, WireValue};
use crate::abi::{
    Host, HostContext, Inputs, Level, Node, NodeError, NodeSpec, Outputs, Plugin, PluginInfo, PreviewImage,
    StateKind, TensorBuf, Value,
};

/// A plugin in a library.
pub struct ForeignPlugin {
    plugin: PluginBox,
    info: PluginInfo,
    nodes: Vec<Arc<dyn Node>>,
}

impl ForeignPlugin {
    /// Creates the plugin's nodes and asks each for its spec once.
    pub fn new(plugin: PluginBox, info: PluginInfo) -> Result<Self, NodeError> {
        let boxes = plugin.nodes().into_result().map_err(NodeError::from)?;
        let mut nodes: Vec<Arc<dyn Node>> = Vec::with_capacity(boxes.len());
        for node in boxes {
            let spec = read_spec(&node)?;
            nodes.push(Arc::new(ForeignNode { node, last_spec: RwLock::new(spec) }));
        }
        Ok(Self { plugin, info, nodes })
    }
}

impl Plugin for ForeignPlugin {
    fn info(&self) -> PluginInfo {
        self.info.clone()
    }

    fn nodes(&self) -> Vec<Arc<dyn Node>> {
        self.nodes.clone()
    }

    fn import_state_dict(
        &self,
        kind: StateKind,
        tensors: Vec<(String, TensorBuf)>,
        settings: BTreeMap<String, Value>,
        host: &HostContext<'_>,
    ) -> Result<Value, NodeError> {
        let tensors: RVec<_> =
            tensors.into_iter().map(|(name, tensor)| Tuple2(name.into(), tensor)).collect();
        let settings: RVec<_> =
            settings.into_iter().map(|(name, value)| Tuple2(name.into(), WireValue::from(value))).collect();
        let shim = HostShim(host.host());
        let value = self.plugin.import_state_dict(kind as u32, tensors, settings, border_host(&shim));
        Value::try_from(value.into_result().map_err(NodeError::from)?)
    }
}

struct ForeignNode {
    node: NodeBox,
    /// What is answered if the plugin fails to describe the node a second time.
    last_spec: RwLock<NodeSpec>,
}

fn read_spec(node: &NodeBox) -> Result<NodeSpec, NodeError> {
    let json = node.spec_json().into_result().map_err(NodeError::from)?;
    serde_json::from_str(&json).map_err(|error| {
        NodeError::internal("a node's description is not what the contract says").caused_by(&error)
    })
}

impl Node for ForeignNode {
    fn spec(&self) -> NodeSpec {
        match read_spec(&self.node) {
            Ok(spec) => {
                *self.last_spec.write().unwrap_or_else(PoisonError::into_inner) = spec.clone();
                spec
            }
            Err(_) => self.last_spec.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        self.node.validate(WireInputs::from(inputs.clone())).into_result().map_err(NodeError::from)
    }

    fn fingerprint(&self, inputs: &Inputs, host: &HostContext<'_>) -> Result<String, NodeError> {
        let shim = HostShim(host.host());
        let answer = self.node.fingerprint(WireInputs::from(inputs.clone()), border_host(&shim));
        answer.into_result().map(String::from).map_err(NodeError::from)
    }

    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        let shim = HostShim(host.host());
        let answer = self.node.execute(WireInputs::from(inputs), border_host(&shim));
        Outputs::try_from(answer.into_result().map_err(|error: WireError| NodeError::from(error))?)
    }
}

/// The host behind the border's functions: a panic of the host's own sink stays on the host's side.
struct HostShim<'a>(&'a dyn Host);

fn border_host<'a>(shim: &'a HostShim<'a>) -> HostRef<'a> {
    HostOne_TO::from_ptr(shim, TD_Opaque)
}

fn quiet<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

impl HostOne for HostShim<'_> {
    fn progress(&self, step: u64, total: u64, preview: ROption<WirePreview<'_>>) {
        quiet((), || {
            let preview = preview.into_option().and_then(|wire| {
                PreviewImage::new(wire.width, wire.height, wire.rgb.as_slice().to_vec()).ok()
            });
            self.0.progress(step, total, preview.as_ref());
        });
    }
    fn status(&self, text: RStr<'_>) {
        quiet((), || self.0.status(text.as_str()));
    }
    fn is_cancelled(&self) -> bool {
        quiet(false, || self.0.is_cancelled())
    }
    fn log(&self, level: u32, text: RStr<'_>) {
        quiet((), || self.0.log(Level::from_code(level), text.as_str()));
    }
    fn folders(&self, kind: RStr<'_>) -> RVec<RString> {
        quiet(RVec::new(), || {
            let text = |path: PathBuf| path.into_os_string().into_string().ok().map(RString::from);
            self.0.folders(kind.as_str()).into_iter().filter_map(text).collect()
        })
    }
    fn node_id(&self) -> RString {
        quiet(RString::new(), || self.0.node_id().into())
    }
    fn prompt_json(&self) -> RString {
        quiet(RString::new(), || self.0.prompt_json().into())
    }
    fn extra_pnginfo_json(&self) -> RString {
        quiet(RString::new(), || self.0.extra_pnginfo_json().into())
    }
    fn threads(&self) -> u32 {
        quiet(1, || u32::try_from(self.0.threads()).unwrap_or(u32::MAX))
    }
}
