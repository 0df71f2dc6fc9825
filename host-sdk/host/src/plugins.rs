//! Which plugins are loaded.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vocable_host_sdk::loader::{find_plugins, load_plugin, plugin_file_name};
use vocable_host_sdk::registry::Registry;

use crate::failure::Failure;

/// A list of files and folders, written like `PATH`.
const VARIABLE: &str = "VOCABLE_PLUGINS";

/// Loads the plugins that were given, those of the environment, and those beside this program.
pub(crate) fn load(given: &[PathBuf]) -> Result<Arc<Registry>, Failure> {
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent);
    let files = choose(given, std::env::var_os(VARIABLE).as_deref(), beside)?;
    if files.is_empty() {
        let place = beside.map_or_else(|| "this program".to_string(), |folder| folder.display().to_string());
        return Err(Failure::Plugin(format!(
            "there is no plugin: {} is not in {place}\n  help: Build it (`cargo build --release`), or name it with --plugin.",
            plugin_file_name("vocable_plugin")
        )));
    }
    let mut registry = Registry::new();
    for file in files {
        let plugin = load_plugin(&file).map_err(|error| Failure::Plugin(error.to_string()))?;
        registry.register_plugin(plugin).map_err(|error| Failure::Plugin(error.to_string()))?;
    }
    Ok(Arc::new(registry))
}

/// The plugins' files, each once, ours first.
fn choose(
    given: &[PathBuf],
    variable: Option<&OsStr>,
    beside: Option<&Path>,
) -> Result<Vec<PathBuf>, Failure> {
    let listed = variable.map(|list| std::env::split_paths(list).collect::<Vec<_>>()).unwrap_or_default();
    let mut found = Vec::new();
    for path in given.iter().chain(listed.iter().filter(|path| !path.as_os_str().is_empty())) {
        add(&mut found, path)?;
    }
    if let Some(folder) = beside {
        let folder_of_plugins = folder.join("plugins");
        if folder_of_plugins.is_dir() {
            add(&mut found, &folder_of_plugins)?;
        }
        let ours = folder.join(plugin_file_name("vocable_plugin"));
        if ours.is_file() && !found.iter().any(|path| path.file_name() == ours.file_name()) {
            found.insert(0, ours);
        }
    }
    Ok(found)
}

fn add(found: &mut Vec<PathBuf>, path: &Path) -> Result<(), Failure> {
    let files = if path.is_dir() {
        find_plugins(path).map_err(|error| Failure::Plugin(error.to_string()))?
    } else {
        vec![path.to_path_buf()]
    };
    for file in files {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if !found.iter().any(|other| real(other) == real(&file)) {
            found.push(file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_added_unless_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join(plugin_file_name("vocable_plugin"));
        std::fs::write(&ours, b"").unwrap();
        let other = PathBuf::from(plugin_file_name("other"));
        let chosen = choose(&[other.clone(), other.clone()], None, Some(dir.path())).unwrap();
        assert_eq!(chosen, [ours.clone(), other]);
        let elsewhere = Path::new("elsewhere").join(plugin_file_name("vocable_plugin"));
        let given = std::slice::from_ref(&elsewhere);
        assert_eq!(choose(given, None, Some(dir.path())).unwrap(), given);
        assert_eq!(choose(&[], Some(elsewhere.as_os_str()), None).unwrap(), given);
        assert_eq!(choose(&[], Some(OsStr::new("")), Some(dir.path())).unwrap(), [ours]);
    }
}
