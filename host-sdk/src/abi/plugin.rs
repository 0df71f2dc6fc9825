//! What a plugin is, and how it is exported.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ErrorKind, HostContext, Node, NodeError, TensorBuf, Value};

/// Who a plugin is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginInfo {
    /// Short name, in small letters: `vocable`.
    pub name: String,
    /// Version, such as `0.1.0`.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// Where to read more.
    pub homepage: String,
    /// What it was built to compute on: `cpu`, `cuda`. Empty if it does not say.
    pub devices: Vec<String>,
}

impl PluginInfo {
    /// A plugin of that name and version.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), ..Self::default() }
    }

    /// What it is for.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// What it was built to compute on: `cpu`, `cuda`.
    #[must_use]
    pub fn devices<T: Into<String>>(mut self, devices: impl IntoIterator<Item = T>) -> Self {
        self.devices = devices.into_iter().map(Into::into).collect();
        self
    }

    /// Where to read more.
    #[must_use]
    pub fn homepage(mut self, url: impl Into<String>) -> Self {
        self.homepage = url.into();
        self
    }
}

/// The parts of a model that a host may hand in as weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum StateKind {
    /// The denoising network.
    Model = 1,
    /// The text encoders.
    Clip = 2,
    /// The image autoencoder.
    Vae = 3,
}

impl StateKind {
    /// The socket type: `MODEL`, `CLIP` or `VAE`.
    pub fn type_tag(self) -> &'static str {
        match self {
            Self::Model => "MODEL",
            Self::Clip => "CLIP",
            Self::Vae => "VAE",
        }
    }

    /// The kind with that number.
    pub fn from_code(code: u32) -> Option<Self> {
        [Self::Model, Self::Clip, Self::Vae].into_iter().find(|kind| *kind as u32 == code)
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_tag())
    }
}

/// A plugin. Made once for each process, on first use, and never dropped.
pub trait Plugin: Send + Sync {
    /// Who the plugin is. `[any thread]`
    fn info(&self) -> PluginInfo;

    /// Its nodes. Their ids are unique among all plugins of a host. `[any thread]`
    fn nodes(&self) -> Vec<Arc<dyn Node>>;

    /// Makes a handle of weights that the host already holds. The result is a [`Value::Handle`].
    ///
    /// Tensors are shared, not copied; the plugin keeps what it needs. `host` is borrowed for the call, as for [`Node::execute`]: gigabytes take
    /// their time, and the user may want to stop. `settings` says what the weights cannot (prediction
    /// type, latent scale, layer of the text encoder): a plugin MUST refuse, by name, a setting that it cannot honour.
    /// The plugin as it comes refuses everything. `[graph thread]`
    fn import_state_dict(
        &self,
        kind: StateKind,
        tensors: Vec<(String, TensorBuf)>,
        settings: BTreeMap<String, Value>,
        host: &HostContext<'_>,
    ) -> Result<Value, NodeError> {
        let _ = (tensors, settings, host);
        let name = self.info().name;
        Err(NodeError::new(
            ErrorKind::Incompatible,
            format!("plugin `{name}` does not take the weights of a {kind}"),
        )
        .help("Give it the model's file instead."))
    }
}

/// Exports a plugin from a `cdylib`: `export_plugin!(MyPlugin);`, once, at the root of the crate.
///
/// The expression is evaluated once, on first use; it must have a type that implements [`Plugin`].
#[macro_export]
macro_rules! export_plugin {
    ($plugin:expr) => {
        #[doc(hidden)]
        struct __VocableExport;

        impl $crate::__export::Exported for __VocableExport {
            fn plugin() -> &'static dyn $crate::abi::Plugin {
                static PLUGIN: ::std::sync::OnceLock<::std::boxed::Box<dyn $crate::abi::Plugin>> =
                    ::std::sync::OnceLock::new();
                &**PLUGIN.get_or_init(|| ::std::boxed::Box::new($plugin))
            }
        }

        $crate::__export_root_module!(__VocableExport);
    };
}
