//! What really crosses between two separately compiled programs. Not for plugin authors.
//!
//! Every type here has abi_stable's checked layout. [`root`] is frozen for ever, [`traits`] and [`wire`] are frozen with their revision;
//! [`export`] is the plugin's side and [`foreign`] the host's.
#![allow(missing_docs, non_camel_case_types, non_local_definitions, unreachable_pub)]

pub mod export;
pub mod foreign;
pub mod root;
pub mod traits;
pub mod wire;

pub use traits::{Opaque, Opaque_TO};

/// The number that host and plugin must share.
pub const CONTRACT_VERSION: u32 = 1;

/// The revision of the traits in [`traits`], asked for through the root module's `open`.
pub const REVISION: u32 = 1;
