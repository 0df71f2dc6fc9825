//! Finding an embedding's file by the name in a prompt.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

/// Extensions that are tried in this order after the name as it stands, as in ComfyUI.
const EXTENSIONS: [&str; 3] = [".safetensors", ".pt", ".bin"];
/// A folder tree deeper than this is a mistake or a trap.
const DEEPEST: usize = 16;

/// The file of `embedding:name`: in each folder and all folders below it (ComfyUI's rule; here in alphabetical order, so that of two files with one name always
/// the same is taken), `name` as it stands, else with `.safetensors`, `.pt`, `.bin`. A name may have a folder in it (`sub/name`). A name that leads out of the
/// folder is not found.
pub fn find_embedding(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    // A backslash or colon is a path on other systems; refusing them everywhere keeps prompts portable and safe.
    if name.is_empty() || !inside || name.contains(['\\', ':', '\0']) {
        return None;
    }
    let mut seen = HashSet::new();
    folders.iter().find_map(|folder| find_below(folder, name, 0, &mut seen))
}

fn find_below(folder: &Path, name: &str, depth: usize, seen: &mut HashSet<PathBuf>) -> Option<PathBuf> {
    // Links are followed, each real folder once.
    let real = folder.canonicalize().ok()?;
    if depth > DEEPEST || !seen.insert(real) {
        return None;
    }
    let plain = folder.join(name);
    if plain.is_file() {
        return Some(plain);
    }
    for extension in EXTENSIONS {
        let path = folder.join(format!("{name}{extension}"));
        if path.is_file() {
            return Some(path);
        }
    }
    let mut below: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|p| p.is_dir()).collect();
    below.sort();
    below.iter().find_map(|folder| find_below(folder, name, depth + 1, seen))
}
