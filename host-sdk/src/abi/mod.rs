//! The contract: what a host and a plugin promise each other.
//!
//! The **host** owns the graph and the files; the **plugin** is a dynamic library with nodes. An author writes ordinary Rust
//! against the types of this module and exports the plugin with [`export_plugin!`](crate::export_plugin); what
//! really crosses between two separately compiled programs is in the hidden module `border`, and nobody else touches it.
//!
//! # Lifecycle
//!
//! load → check → describe → create → execute → drop. Libraries are never unloaded.
//!
//! | step | who | what |
//! |---|---|---|
//! | load, check | host | [`loader`](crate::loader) opens the file and compares its layout with its own |
//! | describe | plugin | [`Plugin::info`], [`Node::spec`]; files in lists are looked up by the host at each listing |
//! | create | plugin | [`Plugin::nodes`], once for each process |
//! | execute | plugin | [`Node::validate`], [`Node::fingerprint`], [`Node::execute`], many times |
//! | drop | host | values may be kept in the host's cache; a plugin's objects die with the last clone of their [`Handle`] |
//!
//! # Promises
//!
//! * Text is UTF-8. Tensors are in the machine's own byte order, row-major unless their strides say else.
//! * No unwinding crosses: every entry catches panics and answers with an error of kind
//!   [`Panicked`](ErrorKind::Panicked). Node and host stay usable.
//! * Nothing that is borrowed for a call is kept after it.
//! * Thread tags: `[any thread]` may be called from several threads at once; `[graph thread]` is called by the
//!   host from the thread that runs the graph; `[worker thread]` is called by a plugin from any thread while `execute` lasts.
//!
//! # How this contract changes
//!
//! * The root module is frozen. It MUST NOT grow: abi_stable lets an old host load a plugin with a longer root, but
//!   not the reverse.
//! * A revision (its traits and the types in their signatures) is frozen once a plugin outside this repository has
//!   been published against it. Growth is a new revision beside it, asked for by number through `open`.
//! * [`NodeSpec`] and [`PluginInfo`] cross as JSON: a new field gets a default, an unknown field is ignored.
//! * [`ErrorKind`] and log levels cross as numbers: an unknown one is read as [`ErrorKind::Internal`] or [`Level::Info`].
//!
//! # What is deliberately not here
//!
//! Tensor libraries, model formats, unloading, asynchronous functions and windows.

#[doc(hidden)]
pub mod border;
mod error;
mod folders;
mod handle;
mod host;
mod input_spec;
mod inputs;
mod node;
mod object_info;
mod outputs;
mod plugin;
mod spec;
mod tensor;
mod value;

pub use border::CONTRACT_VERSION;
pub use error::{ErrorKind, NodeError, catch_panic};
pub(crate) use folders::annotated;
pub use folders::{Folders, folder};
pub use handle::Handle;
pub use host::{Host, HostContext, Level, PreviewImage, SilentHost};
pub use input_spec::{Choices, InputSpec, Presence};
pub use inputs::Inputs;
pub use node::Node;
pub use outputs::Outputs;
pub use plugin::{Plugin, PluginInfo, StateKind};
pub use spec::{NodeSpec, OutputSpec, SpecProblem};
pub use tensor::{DType, Device, Element, TensorBuf, TensorParts};
pub use value::Value;
