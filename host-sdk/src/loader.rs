//! Opens plugin files: open → check → read what the plugin says about itself → create its nodes.
//!
//! One [`LoadError`] for each step that can fail. A library that was opened stays in the process for good.

mod truncation;

use std::collections::HashSet;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi_stable::library::{LibraryError, ROOT_MODULE_LOADER_NAME, lib_header_from_path};

use crate::abi::border::foreign::ForeignPlugin;
use crate::abi::border::root::RootModule_Ref;
use crate::abi::border::{CONTRACT_VERSION, REVISION};
use crate::abi::{NodeError, NodeSpec, Plugin, PluginInfo, SpecProblem};

/// Why a plugin could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such file.
    #[error("no plugin file `{}`\n  help: Check the path, or build the plugin first (`cargo build --release`).", path.display())]
    FileMissing {
        /// The file.
        path: PathBuf,
    },
    /// The file is a folder or must not be read.
    #[error("`{}` cannot be read: {why}\n  help: Name a file that you may read.", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is not a dynamic library of this system, or one that it needs is missing.
    #[error("`{}` is not a library that this system can load: {why}\n  help: Use a plugin that was built for this system and processor.", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the system's loader says.
        why: String,
    },
    /// A library, but not a plugin.
    #[error("`{}` is a library but not a plugin: it does not export a root module\n  help: The plugin's crate needs one line `vocable_host_sdk::export_plugin!(…);` and the crate type `cdylib`.", path.display())]
    NoRootModule {
        /// The file.
        path: PathBuf,
    },
    /// Built with a version of abi_stable, or a C ABI, that does not fit.
    #[error("plugin `{}` was built with another abi_stable than this host: {why}\n  help: Build both with the same major version of vocable-host-sdk.", path.display())]
    AbiStable {
        /// The file.
        path: PathBuf,
        /// What was found and wanted.
        why: String,
    },
    /// The types of the contract are laid out differently.
    #[error("plugin `{}` lays out the contract's types differently than this host: {why}\n  help: Build the plugin against this host's version of vocable-host-sdk.", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Which type and field.
        why: String,
    },
    /// The plugin's root module could not be made.
    #[error("plugin `{}` failed while it was loaded: {why}\n  help: This is a bug in the plugin; please report it.", path.display())]
    RootModule {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// Another contract.
    #[error("plugin `{}` speaks version {found} of the contract, this host version {wanted}\n  help: Update whichever of the two is older.", path.display())]
    ContractVersion {
        /// The file.
        path: PathBuf,
        /// The plugin's version.
        found: u32,
        /// The host's version.
        wanted: u32,
    },
    /// The plugin could not say who it is or which nodes it has.
    #[error("plugin `{}` cannot describe itself: {source}", path.display())]
    Describe {
        /// The file.
        path: PathBuf,
        /// The plugin's error.
        source: NodeError,
    },
    /// What the plugin says about itself is not what the contract says.
    #[error("plugin `{}` describes itself in a way that cannot be read: {source}\n  help: This is a bug in the plugin; please report it.", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Where the description breaks.
        source: serde_json::Error,
    },
    /// A node's description contradicts itself.
    #[error("plugin `{}` has unsound nodes: {}\n  help: This is a bug in the plugin; please report it.", path.display(), join(problems))]
    UnsoundSpecs {
        /// The file.
        path: PathBuf,
        /// All contradictions.
        problems: Vec<SpecProblem>,
    },
    /// Two nodes of the plugin have the same id.
    #[error("plugin `{}` has two nodes with the id `{id}`\n  help: This is a bug in the plugin; please report it.", path.display())]
    DuplicateNode {
        /// The file.
        path: PathBuf,
        /// The id.
        id: String,
    },
    /// The plugin's nodes could not be created.
    #[error("plugin `{}` cannot be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The plugin's error.
        source: NodeError,
    },
}

fn join(problems: &[SpecProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A plugin that was loaded from a file.
pub struct LoadedPlugin {
    path: PathBuf,
    info: PluginInfo,
    plugin: Arc<dyn Plugin>,
}

impl LoadedPlugin {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who the plugin is.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// The plugin itself: its nodes, and its import of weights.
    pub fn plugin(&self) -> &Arc<dyn Plugin> {
        &self.plugin
    }
}

impl std::fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoadedPlugin({} {} from {})", self.info.name, self.info.version, self.path.display())
    }
}

/// The file name of the library that a crate of type `cdylib` becomes on this system: `plugin_file_name("vocable_plugin")`.
pub fn plugin_file_name(crate_name: &str) -> String {
    format!("{DLL_PREFIX}{}{DLL_SUFFIX}", crate_name.replace('-', "_"))
}

/// The plugins in a folder, sorted by name. Files are looked at but not opened as libraries, since opening runs code.
pub fn find_plugins(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable =
        |error: std::io::Error| LoadError::Unreadable { path: folder.into(), why: error.to_string() };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)?.flatten() {
        let path = entry.path();
        let is_library = entry.file_name().to_str().is_some_and(|name| name.ends_with(DLL_SUFFIX));
        if is_library && path.is_file() && fs::read(&path).is_ok_and(|bytes| exports_root_module(&bytes)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The plugins beside the running program, sorted by name.
pub fn find_plugins_beside_executable() -> Result<Vec<PathBuf>, LoadError> {
    let unreadable =
        |error: std::io::Error| LoadError::Unreadable { path: PathBuf::from("."), why: error.to_string() };
    let program = std::env::current_exe().map_err(unreadable)?;
    find_plugins(program.parent().unwrap_or(Path::new(".")))
}

fn exports_root_module(bytes: &[u8]) -> bool {
    let symbol = ROOT_MODULE_LOADER_NAME.as_bytes();
    bytes.windows(symbol.len()).any(|window| window == symbol)
}

/// Loads one plugin. Loading the same file twice gives the same library and new node objects.
///
/// Runs the library's initialisers: load only files that you trust.
pub fn load_plugin(path: &Path) -> Result<LoadedPlugin, LoadError> {
    check_file(path)?;
    // A bare file name would make the system search elsewhere.
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    check_library(path)?;
    let root = read_root_module(path)?;
    check_contract(path, root.contract_version()())?;
    let describe = |error| LoadError::Describe { path: path.clone(), source: NodeError::from(error) };
    let info = root.plugin_info()().into_result().map_err(describe)?;
    let info: PluginInfo = read_description(path, &info)?;
    let specs = root.node_specs()().into_result().map_err(describe)?;
    check_specs(path, &read_description::<Vec<NodeSpec>>(path, &specs)?)?;
    let open = |source| LoadError::Open { path: path.clone(), source };
    let plugin = root.open()(REVISION).into_result().map_err(|error| open(NodeError::from(error)))?;
    let plugin = ForeignPlugin::new(plugin, info.clone()).map_err(open)?;
    Ok(LoadedPlugin { path: path.clone(), info, plugin: Arc::new(plugin) })
}

fn check_file(path: &Path) -> Result<(), LoadError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(LoadError::FileMissing { path: path.into() })
        }
        Err(error) => Err(LoadError::Unreadable { path: path.into(), why: error.to_string() }),
        Ok(data) if data.is_dir() => {
            Err(LoadError::Unreadable { path: path.into(), why: "it is a folder".into() })
        }
        Ok(_) => Ok(()),
    }
}

/// Opens the library once without abi_stable, so that "not a library" and "not a plugin" stay apart.
fn check_library(path: &Path) -> Result<(), LoadError> {
    if let Some(why) = truncation::cut_off(path) {
        return Err(LoadError::NotALibrary { path: path.into(), why });
    }
    // SAFETY: initialisers of the library run; the caller was told to trust the file.
    let library = unsafe { libloading::Library::new(path) }
        .map_err(|error| LoadError::NotALibrary { path: path.into(), why: with_causes(&error) })?;
    // SAFETY: the symbol is only looked up, never used through this type.
    let symbol = unsafe { library.get::<*const ()>(ROOT_MODULE_LOADER_NAME) };
    match symbol {
        Err(_) => Err(LoadError::NoRootModule { path: path.into() }),
        Ok(_) => {
            // From here on the library is a plugin and stays.
            std::mem::forget(library);
            Ok(())
        }
    }
}

fn read_root_module(path: &Path) -> Result<RootModule_Ref, LoadError> {
    // Not `load_from_file`: it keeps one module for each type, so a second plugin would silently be the first.
    let module = lib_header_from_path(path).and_then(|header| header.init_root_module::<RootModule_Ref>());
    module.map_err(|error| {
        let (path, why) = (path.to_path_buf(), error.to_string().trim().to_string());
        match error {
            LibraryError::OpenError { .. } => LoadError::NotALibrary { path, why },
            LibraryError::GetSymbolError { .. } => LoadError::NoRootModule { path },
            LibraryError::InvalidAbiHeader(_) | LibraryError::InvalidCAbi { .. } => {
                LoadError::AbiStable { path, why }
            }
            LibraryError::RootModule { .. } => LoadError::RootModule { path, why },
            _ => LoadError::Layout { path, why },
        }
    })
}

fn check_contract(path: &Path, found: u32) -> Result<(), LoadError> {
    if found == CONTRACT_VERSION {
        Ok(())
    } else {
        Err(LoadError::ContractVersion { path: path.into(), found, wanted: CONTRACT_VERSION })
    }
}

fn read_description<T: serde::de::DeserializeOwned>(path: &Path, json: &str) -> Result<T, LoadError> {
    serde_json::from_str(json).map_err(|source| LoadError::Description { path: path.into(), source })
}

fn check_specs(path: &Path, specs: &[NodeSpec]) -> Result<(), LoadError> {
    let problems: Vec<_> = specs.iter().flat_map(NodeSpec::problems).collect();
    if !problems.is_empty() {
        return Err(LoadError::UnsoundSpecs { path: path.into(), problems });
    }
    let mut ids = HashSet::new();
    match specs.iter().find(|spec| !ids.insert(spec.id.as_str())) {
        Some(twice) => Err(LoadError::DuplicateNode { path: path.into(), id: twice.id.clone() }),
        None => Ok(()),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::InputSpec;

    #[test]
    fn contract_and_specs_are_checked() {
        let path = Path::new("some_plugin");
        assert!(check_contract(path, CONTRACT_VERSION).is_ok());
        let error = check_contract(path, 99).unwrap_err();
        assert!(matches!(error, LoadError::ContractVersion { found: 99, .. }));
        assert!(error.to_string().contains("some_plugin") && error.to_string().contains("version 99"));

        let sound = NodeSpec::new("A", "A");
        assert!(check_specs(path, std::slice::from_ref(&sound)).is_ok());
        let error = check_specs(path, &[sound.clone(), sound]).unwrap_err();
        assert!(matches!(error, LoadError::DuplicateNode { ref id, .. } if id == "A"), "{error}");
        let error = check_specs(path, &[NodeSpec::new("B", "B").input(InputSpec::int("x").default("no"))])
            .unwrap_err();
        assert!(
            matches!(error, LoadError::UnsoundSpecs { .. }) && error.to_string().contains("`x`"),
            "{error}"
        );
        let error = read_description::<PluginInfo>(path, "[").unwrap_err();
        assert!(matches!(error, LoadError::Description { .. }));
    }

    #[test]
    fn library_names_follow_the_system() {
        let name = plugin_file_name("write-a-plugin");
        assert!(name.contains("write_a_plugin") && name.ends_with(DLL_SUFFIX));
    }
}
