//! The plugin's side: a [`Plugin`] behind the border's functions. Every entry catches panics.

use std::path::PathBuf;
use std::sync::Arc;

use abi_stable::library::RootModuleResult;
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{ROption, RResult, RString, RVec, Tuple2};

pub use abi_stable;
pub use abi_stable::library::{CheckTypeLayout, LibHeader};

pub use super::root::RootModule_Ref;
use super::root::RootModuleFns;
use super::traits::{HostRef, NodeBox, NodeOne, NodeOne_TO, PluginBox, PluginOne, PluginOne_TO};
use super::wire::{Named, WireError, WireInputs, WireOutputs, WirePreview, WireValue};
use super::{CONTRACT_VERSION, REVISION};
use crate::abi::{
    Host, HostContext, Inputs, Level, Node, NodeError, Plugin, PreviewImage, StateKind, TensorBuf, Value,
    catch_panic,
};

/// How `export_plugin!` names the plugin of a library.
pub trait Exported: 'static {
    fn plugin() -> &'static dyn Plugin;
}

/// Called by the loader's constructor; used by `export_plugin!`.
pub extern "C" fn construct<E: Exported>() -> RootModuleResult {
    abi_stable::library::__call_root_module_loader(root_module::<E>)
}

fn root_module<E: Exported>() -> RootModule_Ref {
    RootModuleFns {
        contract_version,
        plugin_info: plugin_info::<E>,
        node_specs: node_specs::<E>,
        open: open::<E>,
    }
    .leak_into_prefix()
}

fn guard<T, W>(place: &str, body: impl FnOnce() -> Result<T, NodeError>) -> RResult<W, WireError>
where
    W: From<T>,
{
    catch_panic(place, || body().map(W::from)).map_err(WireError::from).into()
}

extern "C" fn contract_version() -> u32 {
    CONTRACT_VERSION
}

extern "C" fn plugin_info<E: Exported>() -> RResult<RString, WireError> {
    guard("plugin_info", || to_json(&E::plugin().info()))
}

extern "C" fn node_specs<E: Exported>() -> RResult<RString, WireError> {
    guard("node_specs", || {
        let specs: Vec<_> = E::plugin().nodes().iter().map(|node| node.spec()).collect();
        to_json(&specs)
    })
}

extern "C" fn open<E: Exported>(revision: u32) -> RResult<PluginBox, WireError> {
    guard("open", || {
        if revision != REVISION {
            return Err(NodeError::incompatible(format!(
                "the host asks for revision {revision} of the contract, the plugin has revision {REVISION}"
            ))
            .help("Update whichever of the two is older."));
        }
        Ok(PluginOne_TO::from_value(PluginShim(E::plugin()), TD_Opaque))
    })
}

fn to_json(value: &impl serde::Serialize) -> Result<String, NodeError> {
    serde_json::to_string(value)
        .map_err(|error| NodeError::internal("a description cannot be written as JSON").caused_by(&error))
}

struct PluginShim(&'static dyn Plugin);

impl PluginOne for PluginShim {
    fn nodes(&self) -> RResult<RVec<NodeBox>, WireError> {
        guard("nodes", || {
            let boxed = |node| NodeOne_TO::from_value(NodeShim(node), TD_Opaque);
            Ok(self.0.nodes().into_iter().map(boxed).collect::<RVec<NodeBox>>())
        })
    }

    fn import_state_dict(
        &self,
        kind: u32,
        tensors: Named<TensorBuf>,
        settings: Named<WireValue>,
        host: HostRef<'_>,
    ) -> RResult<WireValue, WireError> {
        guard("import_state_dict", || {
            let kind = StateKind::from_code(kind)
                .ok_or_else(|| NodeError::incompatible(format!("weights of the unknown kind {kind}")))?;
            let mut named = Vec::with_capacity(tensors.len());
            for Tuple2(name, tensor) in tensors {
                tensor.check().map_err(|error| error.at(format!("tensor `{name}`")))?;
                named.push((name.into(), tensor));
            }
            let settings = settings
                .into_iter()
                .map(|Tuple2(name, value)| Ok((name.into(), Value::try_from(value)?)))
                .collect::<Result<_, NodeError>>()?;
            self.0.import_state_dict(kind, named, settings, &HostContext::new(&ForeignHost(host)))
        })
    }
}

struct NodeShim(Arc<dyn Node>);

impl NodeOne for NodeShim {
    fn spec_json(&self) -> RResult<RString, WireError> {
        guard("spec", || to_json(&self.0.spec()))
    }

    fn validate(&self, inputs: WireInputs) -> RResult<(), WireError> {
        guard("validate", || self.0.validate(&Inputs::try_from(inputs)?))
    }

    fn fingerprint(&self, inputs: WireInputs, host: HostRef<'_>) -> RResult<RString, WireError> {
        let host = ForeignHost(host);
        guard("fingerprint", || self.0.fingerprint(&Inputs::try_from(inputs)?, &HostContext::new(&host)))
    }

    fn execute(&self, inputs: WireInputs, host: HostRef<'_>) -> RResult<WireOutputs, WireError> {
        let host = ForeignHost(host);
        guard("execute", || self.0.execute(Inputs::try_from(inputs)?, &HostContext::new(&host)))
    }
}

/// The host as the plugin's own copy of this crate sees it.
struct ForeignHost<'a>(HostRef<'a>);

impl Host for ForeignHost<'_> {
    fn progress(&self, step: u64, total: u64, preview: Option<&PreviewImage>) {
        let preview = preview.map(|image| WirePreview {
            width: image.width(),
            height: image.height(),
            rgb: image.rgb().into(),
        });
        self.0.progress(step, total, ROption::from(preview));
    }
    fn status(&self, text: &str) {
        self.0.status(text.into());
    }
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
    fn log(&self, level: Level, text: &str) {
        self.0.log(level as u32, text.into());
    }
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.0.folders(kind.into()).into_iter().map(|path| PathBuf::from(String::from(path))).collect()
    }
    fn node_id(&self) -> String {
        self.0.node_id().into()
    }
    fn prompt_json(&self) -> String {
        self.0.prompt_json().into()
    }
    fn extra_pnginfo_json(&self) -> String {
        self.0.extra_pnginfo_json().into()
    }
    fn threads(&self) -> usize {
        self.0.threads() as usize
    }
}

/// The library's one exported symbol, named as abi_stable's loader looks for it.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_root_module {
    ($exported:ty) => {
        // SAFETY: the symbol's name belongs to abi_stable's loader, and its type is what that loader reads. A crate that
        // exports two plugins does not compile.
        #[unsafe(no_mangle)]
        #[doc(hidden)]
        #[allow(non_upper_case_globals)]
        pub static _1as_0lib_1header_0root_bmodule_bloader: $crate::__export::LibHeader =
            // SAFETY: `construct` answers a module of exactly this type.
            unsafe {
                $crate::__export::LibHeader::from_constructor::<$crate::__export::RootModule_Ref>(
                    $crate::__export::construct::<$exported>,
                    $crate::__export::CheckTypeLayout::Yes,
                )
            };
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_symbol_is_named_as_the_loader_looks_for_it() {
        assert_eq!(abi_stable::library::ROOT_MODULE_LOADER_NAME, "_1as_0lib_1header_0root_bmodule_bloader");
    }
}
