//! Where a result goes: prefix with tokens, subfolder, and a counter that continues.

use std::fs;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, Local};
use vocable_host_sdk::abi::NodeError;

/// A place for a batch of pictures: `folder/stem_00001_.png`, `folder/stem_00002_.png`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Where the files go.
    pub(crate) folder: PathBuf,
    /// The same, relative to the root, with `/` between parts.
    pub(crate) subfolder: String,
    stem: String,
    next: u64,
}

impl Slot {
    /// The place that `prefix` asks for under `root`. `prefix` may hold a subfolder and the tokens `%width%`, `%height%`, `%year%`, `%month%`,
    /// `%day%`, `%hour%`, `%minute%`, `%second%` and `%date:yyyy-MM-dd%`.
    pub(crate) fn find(root: &Path, prefix: &str, width: usize, height: usize) -> Result<Self, NodeError> {
        let (folder, subfolder, stem) = place(root, prefix, width, height)?;
        let next = highest(&folder, &stem) + 1;
        Ok(Self { folder, subfolder, stem, next })
    }

    /// The name for the next picture, which is number `index` of its batch.
    pub(crate) fn next_name(&mut self, index: usize) -> String {
        let stem = self.stem.replace("%batch_num%", &index.to_string());
        let name = format!("{stem}_{:05}_.png", self.next);
        self.next += 1;
        name
    }
}

/// The folder, its name relative to the root, and the beginning of the file's name that `prefix` asks for under `root`.
fn place(
    root: &Path,
    prefix: &str,
    width: usize,
    height: usize,
) -> Result<(PathBuf, String, String), NodeError> {
    let name = expand(prefix, width, height, Local::now());
    let mut parts: Vec<&str> =
        name.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".").collect();
    let inside = !name.starts_with(['/', '\\'])
        && parts.iter().all(|part| matches!(Path::new(part).components().next(), Some(Component::Normal(_))));
    let stem = parts.pop().unwrap_or_default().to_string();
    if !inside || stem.is_empty() || stem.contains(['<', '>', ':', '"', '|', '?', '*']) {
        return Err(NodeError::invalid_input(format!(
            "filename prefix {prefix:?} is not a name inside the folder for results"
        ))
        .help("Use letters, digits and, for a subfolder, a slash: `pets/zorvo`."));
    }
    let folder = parts.iter().fold(root.to_path_buf(), |path, part| path.join(part));
    Ok((folder, parts.join("/"), stem))
}

/// `stem<ending>` for what is made now and then and has no use for a counter, or with a number behind, as *Save Embedding* numbers, if there is something
/// of that name. The folder is made if need be. `prefix` may hold what [`Slot::find`] knows of it that is no size.
pub(crate) fn free_place(root: &Path, prefix: &str, ending: &str) -> Result<PathBuf, NodeError> {
    let (folder, _, stem) = place(root, prefix, 0, 0)?;
    make_folder(&folder)?;
    let names = (1u64..).map(|number| match number {
        1 => format!("{stem}{ending}"),
        number => format!("{stem}-{number}{ending}"),
    });
    let mut places = names.map(|name| folder.join(name));
    let free = places.find(|path| path.symlink_metadata().is_err());
    free.ok_or_else(|| NodeError::internal(format!("{}: all names are taken", folder.display())))
}

/// Makes a folder for results, and those above it, if need be.
pub(crate) fn make_folder(folder: &Path) -> Result<(), NodeError> {
    fs::create_dir_all(folder).map_err(|error| {
        NodeError::internal(format!("{}: cannot be made", folder.display()))
            .caused_by(&error)
            .help("Is the disk full, or the folder write-protected?")
    })
}

/// The highest counter among the files `stem_<counter>_….` of a folder.
fn highest(folder: &Path, stem: &str) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let counter = |name: &str| -> Option<u64> {
        let rest = name.strip_prefix(stem)?.strip_prefix('_')?;
        rest.split(['.', '_']).next()?.parse().ok()
    };
    entries.flatten().filter_map(|entry| counter(entry.file_name().to_str()?)).max().unwrap_or(0)
}

fn expand(prefix: &str, width: usize, height: usize, now: DateTime<Local>) -> String {
    let mut text = prefix.replace("%width%", &width.to_string()).replace("%height%", &height.to_string());
    let clock = [
        ("%year%", "%Y"),
        ("%month%", "%m"),
        ("%day%", "%d"),
        ("%hour%", "%H"),
        ("%minute%", "%M"),
        ("%second%", "%S"),
    ];
    for (token, format) in clock {
        if text.contains(token) {
            text = text.replace(token, &now.format(format).to_string());
        }
    }
    while let Some(start) = text.find("%date:") {
        let Some(length) = text[start + 6..].find('%') else { break };
        let mut date = text[start + 6..start + 6 + length].to_string();
        for (part, format) in [
            ("yyyy", "%Y"),
            ("yy", "%y"),
            ("MM", "%m"),
            ("dd", "%d"),
            ("hh", "%H"),
            ("mm", "%M"),
            ("ss", "%S"),
        ] {
            date = date.replace(part, &now.format(format).to_string());
        }
        text.replace_range(start..=start + 6 + length, &date);
    }
    text
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn counters_continue() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a_00004_.png", "a_00002_.png", "ab_00009_.png", "a_x.png", "a.png"] {
            fs::write(dir.path().join(file), b"").unwrap();
        }
        let mut slot = Slot::find(dir.path(), "a", 8, 8).unwrap();
        assert_eq!(
            (slot.next_name(0), slot.next_name(1)),
            ("a_00005_.png".to_string(), "a_00006_.png".to_string())
        );
        let mut slot = Slot::find(dir.path(), "new/b_%batch_num%", 8, 8).unwrap();
        assert_eq!(slot.subfolder, "new");
        assert_eq!(slot.next_name(3), "b_3_00001_.png");
    }

    #[test]
    fn tokens_are_filled_in() {
        let now = Local.with_ymd_and_hms(2026, 3, 4, 5, 6, 7).unwrap();
        assert_eq!(expand("%year%-%month%/x_%width%x%height%", 64, 96, now), "2026-03/x_64x96");
        assert_eq!(expand("%date:yyyy-MM-dd hhmmss%_a%", 1, 1, now), "2026-03-04 050607_a%");
        assert_eq!(expand("%date:open", 1, 1, now), "%date:open");
    }

    #[test]
    fn a_prefix_cannot_leave_the_folder() {
        for prefix in ["../a", "/etc/a", "a/../../b", "", "sub/..", "\\\\host\\a", "a:b"] {
            assert!(Slot::find(Path::new("out"), prefix, 1, 1).is_err(), "{prefix}");
        }
    }
}
