//! The folders that a host offers, by kind, and the files in them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Kinds of folder that every host should know. A host may offer more.
pub mod folder {
    /// Model files.
    pub const CHECKPOINTS: &str = "checkpoints";
    /// Autoencoders by themselves.
    pub const VAE: &str = "vae";
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
/// The entry of [`Folders::files`] that stands for every folder.
const ANY_FOLDER: &str = "/";

/// Folders by kind; several of a kind are searched in order, and the first is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders {
    by_kind: BTreeMap<String, Vec<PathBuf>>,
    base: Option<PathBuf>,
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

    /// Adds a folder, to be searched before those of its kind that are there, and to be written to.
    pub fn add_first(&mut self, kind: &str, path: impl Into<PathBuf>) {
        self.by_kind.entry(kind.to_string()).or_default().insert(0, path.into());
    }

    /// The same folders, and where relative paths start that are given in place of a name. Without a base they are not taken.
    #[must_use]
    pub fn with_base(mut self, base: impl Into<PathBuf>) -> Self {
        self.base = Some(base.into());
        self
    }

    /// The absolute path of what `path` names, if it exists: for names that are in no folder.
    pub fn whole_path(&self, path: &str) -> Option<PathBuf> {
        let given = Path::new(path);
        let whole = match &self.base {
            _ if path.is_empty() => return None,
            _ if given.is_absolute() => given.to_path_buf(),
            Some(base) => std::path::absolute(base.join(given)).ok()?,
            None => return None,
        };
        whole.exists().then_some(whole)
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
    /// An entry `/name` stands for folders that hold a file of that name (`/model_index.json`); what lies in such a folder is a part of it and not
    /// listed. The entry `/` stands for every folder.
    pub fn files(&self, kind: &str, extensions: &[String]) -> Vec<String> {
        let mut names = BTreeSet::new();
        for root in self.paths(kind) {
            list(root, "", extensions, &mut Vec::new(), &mut names);
        }
        names.into_iter().collect()
    }

    /// The path of the file or folder that [`files`](Self::files) calls `name`, if it exists. A name that leaves the folders is not found.
    /// Among the pictures of the kind `input`, `cat.png [output]` and `cat.png [temp]` are those of the other folders, as in ComfyUI.
    pub fn find(&self, kind: &str, name: &str) -> Option<PathBuf> {
        self.find_plain(kind, name).or_else(|| {
            let (kind, name) = annotated(kind, name)?;
            self.find_plain(kind, name)
        })
    }

    fn find_plain(&self, kind: &str, name: &str) -> Option<PathBuf> {
        let relative = Path::new(name);
        let inside =
            relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if name.is_empty() || !inside {
            return None;
        }
        self.paths(kind).iter().map(|root| root.join(relative)).find(|path| path.exists())
    }
}

/// The folder and the name that ComfyUI's annotation asks for: `cat.png [output]` is `cat.png` of the folder `output`. Only a name among the
/// pictures of the folder `input` may have one.
pub(crate) fn annotated<'a>(kind: &str, name: &'a str) -> Option<(&'static str, &'a str)> {
    if kind != folder::INPUT {
        return None;
    }
    [folder::INPUT, folder::OUTPUT, folder::TEMP].into_iter().find_map(|other| {
        let plain = name.strip_suffix(']')?.strip_suffix(other)?.strip_suffix('[')?;
        Some((other, plain.trim_end()))
    })
}

/// `above` are the folders on the way down: links may lead back into one of them.
fn list(
    dir: &Path,
    prefix: &str,
    extensions: &[String],
    above: &mut Vec<PathBuf>,
    names: &mut BTreeSet<String>,
) {
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    if above.contains(&real) {
        return;
    }
    above.push(real);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(file_name) = entry.file_name().into_string() else { continue };
        if file_name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let name = format!("{prefix}{file_name}");
        if path.is_dir() {
            let whole = extensions.iter().any(|marker| is_marked(&path, marker));
            if whole || extensions.iter().any(|marker| marker == ANY_FOLDER) {
                names.insert(name.clone());
            }
            if !whole && above.len() <= MAX_DEPTH {
                list(&path, &format!("{name}/"), extensions, above, names);
            }
        } else if extensions.is_empty() || extensions.iter().any(|wanted| has_extension(&path, wanted)) {
            names.insert(name);
        }
    }
    above.pop();
}

/// Whether the folder holds the file that makes it one thing.
fn is_marked(dir: &Path, marker: &str) -> bool {
    marker.strip_prefix('/').is_some_and(|file| !file.is_empty() && dir.join(file).is_file())
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
        fs::create_dir_all(dir.path().join("sub/tiny/unet")).unwrap();
        for file in [
            "b.safetensors",
            "a.CKPT",
            "notes.txt",
            ".hidden.ckpt",
            "sub/c.ckpt",
            "sub/tiny/model_index.json",
            "sub/tiny/unet/part.safetensors",
        ] {
            fs::write(dir.path().join(file), b"").unwrap();
        }
        let folders = Folders::new()
            .with(folder::CHECKPOINTS, dir.path())
            .with(folder::CHECKPOINTS, dir.path().join("none"));
        let extensions = ["safetensors", "ckpt", "/model_index.json"].map(String::from);
        assert_eq!(
            folders.files("checkpoints", &extensions),
            ["a.CKPT", "b.safetensors", "sub/c.ckpt", "sub/tiny"],
            "the parts of a pipeline are no checkpoints"
        );
        assert_eq!(folders.files("checkpoints", &["/".to_string()]), ["sub", "sub/tiny", "sub/tiny/unet"]);
        assert!(folders.files("embeddings", &[]).is_empty());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_back_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.txt"), b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("sub/back")).unwrap();
        let folders = Folders::new().with(folder::INPUT, dir.path());
        assert_eq!(folders.files(folder::INPUT, &["txt".into()]), ["sub/a.txt"]);
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

    #[test]
    fn an_annotation_chooses_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [folder::INPUT, folder::OUTPUT, folder::EMBEDDINGS] {
            fs::create_dir(dir.path().join(kind)).unwrap();
            fs::write(dir.path().join(kind).join("a.png"), b"").unwrap();
        }
        fs::write(dir.path().join("input/b [output]"), b"").unwrap();
        let kinds = [folder::INPUT, folder::OUTPUT, folder::TEMP, folder::EMBEDDINGS];
        let folders = kinds.iter().fold(Folders::new(), |all, kind| all.with(kind, dir.path().join(kind)));
        let found = |kind: &str, name: &str| {
            let path = folders.find(kind, name)?;
            Some(path.strip_prefix(dir.path()).unwrap().to_str().unwrap().replace('\\', "/"))
        };
        assert_eq!(found("input", "a.png [output]").as_deref(), Some("output/a.png"));
        assert_eq!(found("input", "a.png[output]").as_deref(), Some("output/a.png"));
        assert_eq!(found("input", "a.png [input]").as_deref(), Some("input/a.png"));
        assert_eq!(
            found("input", "b [output]").as_deref(),
            Some("input/b [output]"),
            "a file of that very name"
        );
        assert_eq!(found("input", "a.png [temp]"), None);
        assert_eq!(found("input", "../input/a.png [output]"), None);
        assert_eq!(found("input", "[output]"), None);
        assert_eq!(found("embeddings", "a.png [output]"), None, "only pictures of the input folder");
    }

    #[test]
    fn relative_paths_need_a_base() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        fs::write(&file, b"").unwrap();
        let (none, based) = (Folders::new(), Folders::new().with_base(dir.path()));
        assert_eq!(none.whole_path("a.txt"), None);
        assert_eq!(based.whole_path("a.txt"), Some(file.clone()));
        assert_eq!(based.whole_path("b.txt"), None);
        assert_eq!(based.whole_path(""), None);
        assert_eq!(based.whole_path("."), Some(dir.path().to_path_buf()));
        assert_eq!(none.whole_path(file.to_str().unwrap()), Some(file));
    }

    #[test]
    fn a_folder_may_come_first() {
        let mut folders = Folders::new().with("embeddings", "a").with("input", "b");
        folders.add_first("embeddings", "c");
        assert_eq!(folders.paths("embeddings"), [Path::new("c"), Path::new("a")]);
        assert_eq!(folders.paths("input"), [Path::new("b")]);
    }
}
