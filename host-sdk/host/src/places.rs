//! The folders of a run.

use std::path::{Path, PathBuf};

use vocable_host_sdk::abi::{Folders, folder};

use crate::cli::PlaceArgs;
use crate::failure::Failure;

/// The folder, among the results, of what is not to stay. Its name is ours alone: it is emptied at the start of each run.
const TEMP: &str = "vocable_temp";

/// The folders that the arguments ask for, and those that ship. Paths start at the current folder.
pub(crate) fn folders(args: &PlaceArgs) -> Result<Folders, Failure> {
    for (option, path) in [("--models", &args.models), ("--input", &args.input)] {
        if let Some(path) = path.as_ref().filter(|path| !path.is_dir()) {
            return Err(Failure::Invalid(format!("{option}: there is no folder {}", path.display())));
        }
    }
    if args.output.is_file() {
        return Err(Failure::Invalid(format!("--output: {} is a file, not a folder", args.output.display())));
    }
    let models = args.models.clone().or_else(|| Some(PathBuf::from("models")).filter(|path| path.is_dir()));
    let mut folders = match std::env::current_dir() {
        Ok(current) => Folders::new().with_base(current),
        // It was deleted: names in the folders can still be found.
        Err(_) => Folders::new(),
    };
    if let Some(models) = &models {
        let checkpoints = models.join("checkpoints");
        folders.add(folder::CHECKPOINTS, if checkpoints.is_dir() { checkpoints } else { models.clone() });
        folders.add(folder::VAE, models.join("vae"));
        folders.add(folder::EMBEDDINGS, models.join("embeddings"));
    }
    folders.add(folder::EMBEDDINGS, args.output.join("embeddings"));
    folders.add(folder::INPUT, args.input.clone().unwrap_or_else(|| "input".into()));
    folders.add(folder::OUTPUT, &args.output);
    folders.add(folder::TEMP, args.output.join(TEMP));
    let examples =
        [(folder::CHECKPOINTS, "models"), (folder::EMBEDDINGS, "embeddings"), (folder::INPUT, "concepts")];
    for (kind, name) in examples {
        if let Some(path) = shipped(name) {
            folders.add(kind, path);
        }
    }
    Ok(folders)
}

/// `examples/<name>` under the current folder, or beside one of the folders that this program lies in.
fn shipped(name: &str) -> Option<PathBuf> {
    let relative = Path::new("examples").join(name);
    let beside = std::env::current_exe().ok()?;
    let beside = beside.ancestors().skip(1).map(|folder| folder.join(&relative));
    std::iter::once(relative.clone()).chain(beside).find(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(root: &Path) -> PlaceArgs {
        PlaceArgs { plugin: vec![], models: Some(root.join("m")), input: None, output: root.join("out") }
    }

    #[test]
    fn models_may_be_laid_out_as_in_comfyui_or_flat() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        assert!(folders(&args).unwrap_err().to_string().contains("--models"));
        std::fs::create_dir_all(dir.path().join("m")).unwrap();
        let flat = folders(&args).unwrap();
        assert_eq!(flat.paths(folder::CHECKPOINTS)[0], dir.path().join("m"));
        std::fs::create_dir_all(dir.path().join("m/checkpoints")).unwrap();
        let deep = folders(&args).unwrap();
        assert_eq!(deep.paths(folder::CHECKPOINTS)[0], dir.path().join("m/checkpoints"));
        let embeddings = &deep.paths(folder::EMBEDDINGS)[..2];
        assert_eq!(embeddings, [dir.path().join("m/embeddings"), dir.path().join("out/embeddings")]);
    }

    #[test]
    fn paths_start_at_the_current_folder_and_what_is_emptied_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("m")).unwrap();
        let folders = folders(&args(dir.path())).unwrap();
        // Tests run in the crate's folder.
        let manifest = std::path::absolute("Cargo.toml").unwrap();
        assert_eq!(folders.whole_path("Cargo.toml"), Some(manifest));
        // Somebody's own `temp` may lie in the folder of results.
        assert_eq!(folders.paths(folder::TEMP), [dir.path().join("out/vocable_temp")]);
    }

    #[test]
    fn the_examples_are_found_from_the_program() {
        // The test program lies in the target folder; a target folder elsewhere has no examples above it.
        if let Some(models) = shipped("models") {
            assert!(models.ends_with(Path::new("examples").join("models")));
        }
        assert_eq!(shipped("no such thing"), None);
    }
}
