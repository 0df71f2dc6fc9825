//! The folders that a host offers, by kind, and the files in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Kinds of folder that every host should know. A host may offer more.
pub mod folder {
    /// Model files.
    pub const CHECKPOINTS: &str = "checkpoints";
    /// Textual-inversion embeddings.
    pub const EMBEDDINGS: &str = "embeddings";
    /// Pictures that the user gives.
    pub const INPUT: &str = "input";
    /// Results.
    pub const OUTPUT: &str = "output";
    /// Results that may be thrown away.
    pub const TEMP: &str = "temp";
}

/// How deep [`Folders::files`] looks.
const MAX_DEPTH: usize = 8;

/// Folders by kind; several of a kind are searched in order, and the first is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    by_kind: BTreeMap<String, Vec<PathBuf>>,
}

impl Folders {
    /// No folders yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same folders and one more. It need not exist.
    #[must_use]
    pub fn with(mut self, kind: &str, path: impl Into<PathBuf>) -> Self {
        self.add(kind, path);
        self
    }

    /// Adds a folder, to be searched after those of its kind that are there.
    pub fn add(&mut self, kind: &str, path: impl Into<PathBuf>) {
        self.by_kind.entry(kind.to_string()).or_default().push(path.into());
    }

    /// The folders of a kind, in the order of search.
    pub fn paths(&self, kind: &str) -> &[PathBuf] {
        self.by_kind.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The kinds that have a folder.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.by_kind.keys().map(String::as_str)
    }

    /// Names of the files of a kind, relative to their folder, with `/` between parts, sorted, each once.
    ///
    /// `extensions` are written without the dot and compared without regard to case; an empty list means every file.
    /// An entry `/name` stands for folders that hold a file of that name (`/model_index.json`), the entry `/` for every folder.
    pub fn files(&self, kind: &str, extensions: &[String]) -> Vec<String> {
        let mut names = BTreeSet::new();
        for root in self.paths(kind) {
            list(root, "", extensions, 0, &mut names);
        }
        names.into_iter().collect()
    }

    /// The path of the file or folder that [`files`](Self::files) calls `name`, if it exists. A name that leaves the folders is not found.
    pub fn find(&self, kind: &str, name: &str) -> Option<PathBuf> {
        let relative = Path::new(name);
        let inside =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if name.is_empty() || !inside {
            return None;
        }
        self.paths(kind).iter().map(|root| root.join(relative)).find(|path| path.exists())
    }
}

fn list(dir: &Path, prefix: &str, extensions: &[String], depth: usize, names: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        if file_name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let name = format!("{prefix}{file_name}");
        if path.is_dir() {
            if extensions.iter().any(|marker| is_marked(&path, marker)) {
                names.insert(name.clone());
            }
            if depth < MAX_DEPTH {
                list(&path, &format!("{name}/"), extensions, depth + 1, names);
            }
        } else if extensions.is_empty() || extensions.iter().any(|wanted| has_extension(&path, wanted)) {
            names.insert(name);
        }
    }
}

fn is_marked(dir: &Path, marker: &str) -> bool {
    match marker.strip_prefix('/') {
        None => false,
        Some("") => true,
        Some(file) => dir.join(file).is_file(),
    }
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_listed_by_extension_and_folders_by_marker() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/tiny")).unwrap();
        for file in [
            "b.safetensors",
            "a.CKPT",
            "notes.txt",
            ".hidden.ckpt",
            "sub/c.ckpt",
            "sub/tiny/model_index.json",
        ] {
            fs::write(dir.path().join(file), b"").unwrap();
        }
        let folders = Folders::new()
            .with(folder::CHECKPOINTS, dir.path())
            .with(folder::CHECKPOINTS, dir.path().join("none"));
        let extensions = ["safetensors", "ckpt", "/model_index.json"].map(String::from);
        assert_eq!(
            folders.files("checkpoints", &extensions),
            ["a.CKPT", "b.safetensors", "sub/c.ckpt", "sub/tiny"]
        );
        assert_eq!(folders.files("checkpoints", &["/".to_string()]), ["sub", "sub/tiny"]);
        assert!(folders.files("embeddings", &[]).is_empty());
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.txt"), b"").unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        let folders = Folders::new().with("input", dir.path().join("in"));
        assert_eq!(folders.find("input", "../a.txt"), None);
        assert_eq!(folders.find("input", dir.path().join("a.txt").to_str().unwrap()), None);
        assert_eq!(
            Folders::new().with("input", dir.path()).find("input", "a.txt"),
            Some(dir.path().join("a.txt"))
        );
    }
}
