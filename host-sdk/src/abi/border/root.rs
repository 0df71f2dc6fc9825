//! The root module: tiny and frozen. A field more, and newer hosts refuse older plugins.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RString};

use super::traits::PluginBox;
use super::wire::WireError;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootModule_Ref, prefix_fields = RootModule_Prefix)))]
pub struct RootModuleFns {
    /// [`CONTRACT_VERSION`](super::CONTRACT_VERSION) of the plugin. `[any thread]`
    pub contract_version: extern "C" fn() -> u32,
    /// [`PluginInfo`](crate::abi::PluginInfo) as JSON, the caller's. `[any thread]`
    pub plugin_info: extern "C" fn() -> RResult<RString, WireError>,
    /// A JSON array of [`NodeSpec`](crate::abi::NodeSpec)s, the caller's. `[any thread]`
    pub node_specs: extern "C" fn() -> RResult<RString, WireError>,
    /// The plugin as the traits of that revision, or an error that names the revisions it has. `[any thread]`
    #[sabi(last_prefix_field)]
    pub open: extern "C" fn(u32) -> RResult<PluginBox, WireError>,
}

impl RootModule for RootModule_Ref {
    abi_stable::declare_root_module_statics! {RootModule_Ref}
    const BASE_NAME: &'static str = "vocable_plugin";
    const NAME: &'static str = "vocable_plugin";
    // The contract's version, not the crate's: it never changes, like the root itself.
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}
