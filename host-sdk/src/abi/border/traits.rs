//! The traits of revision 1, and the one of owned memory.

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, ROption, RResult, RStr, RString, RVec};

use super::wire::{Named, WireError, WireInputs, WireOutputs, WirePreview, WireValue};
use crate::abi::TensorBuf;

/// Something that is only kept alive: the memory of a tensor, the object of a handle.
#[sabi_trait]
pub trait Opaque: Send + Sync {
    #[sabi(last_prefix_field)]
    fn describe(&self) -> RString;
}

#[sabi_trait]
pub trait HostOne: Send + Sync {
    fn progress(&self, step: u64, total: u64, preview: ROption<WirePreview<'_>>);
    fn status(&self, text: RStr<'_>);
    fn is_cancelled(&self) -> bool;
    fn log(&self, level: u32, text: RStr<'_>);
    fn folders(&self, kind: RStr<'_>) -> RVec<RString>;
    fn node_id(&self) -> RString;
    fn prompt_json(&self) -> RString;
    fn extra_pnginfo_json(&self) -> RString;
    #[sabi(last_prefix_field)]
    fn threads(&self) -> u32;
}

pub type HostRef<'a> = HostOne_TO<'a, abi_stable::sabi_types::RRef<'a, ()>>;

#[sabi_trait]
pub trait NodeOne: Send + Sync {
    fn spec_json(&self) -> RResult<RString, WireError>;
    fn validate(&self, inputs: WireInputs) -> RResult<(), WireError>;
    fn fingerprint(&self, inputs: WireInputs, host: HostRef<'_>) -> RResult<RString, WireError>;
    #[sabi(last_prefix_field)]
    fn execute(&self, inputs: WireInputs, host: HostRef<'_>) -> RResult<WireOutputs, WireError>;
}

pub type NodeBox = NodeOne_TO<'static, RBox<()>>;

#[sabi_trait]
pub trait PluginOne: Send + Sync {
    fn nodes(&self) -> RResult<RVec<NodeBox>, WireError>;
    #[sabi(last_prefix_field)]
    fn import_state_dict(
        &self,
        kind: u32,
        tensors: Named<TensorBuf>,
        settings: Named<WireValue>,
        host: HostRef<'_>,
    ) -> RResult<WireValue, WireError>;
}

pub type PluginBox = PluginOne_TO<'static, RBox<()>>;
