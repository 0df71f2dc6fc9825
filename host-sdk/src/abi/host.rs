//! What a node may ask of its host while it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Folders, NodeError, annotated};

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// For the plugin's author.
    Debug = 1,
    /// For the user, in passing.
    Info = 2,
    /// For the user, who should do something.
    Warn = 3,
    /// Something failed.
    Error = 4,
}

impl Level {
    /// The level of that number; [`Info`](Self::Info) for numbers of a later contract.
    pub fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Debug,
            3 => Self::Warn,
            4 => Self::Error,
            _ => Self::Info,
        }
    }

    /// The level in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// A small picture that shows how far a node is: RGB, 8 bits, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewImage {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl PreviewImage {
    /// `rgb` must hold three bytes for each pixel.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self, NodeError> {
        let wanted = u128::from(width) * u128::from(height) * 3;
        if wanted != rgb.len() as u128 || wanted == 0 {
            let found = rgb.len();
            return Err(NodeError::invalid_input(format!(
                "a preview of {width}x{height} needs {wanted} bytes and at least one pixel, {found} bytes were given"
            )));
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The bytes: red, green, blue of the first pixel of the top row, and so on.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// What a host offers to a node for the length of one call. Implemented by hosts; nodes see a [`HostContext`].
///
/// Every function may be called from several threads at once and must come back quickly. `[worker thread]`
pub trait Host: Send + Sync {
    /// `step` of `total` is done; both count from the start of the call and may start anew when a node begins another part of its work.
    fn progress(&self, step: u64, total: u64, preview: Option<&PreviewImage>);
    /// One line that replaces the line before: "step 420 of 3000, loss 0.083".
    fn status(&self, text: &str);
    /// Whether the user wants the run to stop. Cheap: look at least ten times a second.
    fn is_cancelled(&self) -> bool;
    /// A line for the log.
    fn log(&self, level: Level, text: &str);
    /// The folders of a kind (see [`folder`](super::folder)) in the order of search; the first is the one to write to.
    fn folders(&self, kind: &str) -> Vec<PathBuf>;
    /// The id of the running node in its workflow.
    fn node_id(&self) -> String;
    /// The workflow that is running, in API format; empty if the host does not tell.
    fn prompt_json(&self) -> String;
    /// What the front end sent along to be kept in pictures (`{"workflow": …}`); empty if there is nothing.
    fn extra_pnginfo_json(&self) -> String;
    /// How many threads the node may keep busy; at least 1.
    fn threads(&self) -> usize;
}

/// The host as a node sees it: valid for one call, usable from several threads by reference.
#[derive(Clone, Copy)]
pub struct HostContext<'a> {
    host: &'a dyn Host,
}

impl<'a> HostContext<'a> {
    /// Wraps a host for one call.
    pub fn new(host: &'a dyn Host) -> Self {
        Self { host }
    }

    /// The host itself, to be handed on.
    pub fn host(&self) -> &'a dyn Host {
        self.host
    }

    /// Says that `step` of `total` is done, with a picture if there is one. `[worker thread]`
    pub fn progress(&self, step: u64, total: u64, preview: Option<&PreviewImage>) {
        self.host.progress(step, total, preview);
    }

    /// Shows one line that replaces the line before. `[worker thread]`
    pub fn status(&self, text: &str) {
        self.host.status(text);
    }

    /// Whether the user wants the run to stop. Look at least ten times a second, leave things in order, and answer
    /// [`NodeError::cancelled`]. `[worker thread]`
    pub fn is_cancelled(&self) -> bool {
        self.host.is_cancelled()
    }

    /// [`is_cancelled`](Self::is_cancelled) as an error, for use with `?`. `[worker thread]`
    pub fn check_cancelled(&self) -> Result<(), NodeError> {
        if self.is_cancelled() { Err(NodeError::cancelled()) } else { Ok(()) }
    }

    /// Writes a line to the log. `[worker thread]`
    pub fn log(&self, level: Level, text: &str) {
        self.host.log(level, text);
    }

    /// The folders of a kind in the order of search; the first is the one to write to. `[worker thread]`
    pub fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.host.folders(kind)
    }

    /// The folder of a kind that results are written to. It need not exist yet. `[worker thread]`
    pub fn folder(&self, kind: &str) -> Result<PathBuf, NodeError> {
        self.folders(kind)
            .into_iter()
            .next()
            .ok_or_else(|| NodeError::not_found(format!("the host has no folder for {kind}")))
    }

    /// The file or folder that a list of the folders of `kind` calls `name`, see [`Folders::find`]; an absolute path stands for itself.
    /// `[worker thread]`
    pub fn find_file(&self, kind: &str, name: &str) -> Result<PathBuf, NodeError> {
        let path = Path::new(name);
        if path.is_absolute() && path.exists() {
            return Ok(path.to_path_buf());
        }
        // `cat.png [output]` is of the kind `output`.
        let (place, _) = annotated(kind, name).unwrap_or((kind, name));
        let mut folders = Folders::new();
        for kind in BTreeSet::from([kind, place]) {
            for path in self.folders(kind) {
                folders.add(kind, path);
            }
        }
        folders.find(kind, name).ok_or_else(|| {
            let searched: Vec<_> =
                folders.paths(place).iter().map(|path| format!("{}", path.display())).collect();
            NodeError::not_found(format!(
                "no file `{name}` among the {place} (looked in: {})",
                searched.join(", ")
            ))
            .help("Check the name, or put the file into one of these folders.")
        })
    }

    /// The id of the running node in its workflow. `[worker thread]`
    pub fn node_id(&self) -> String {
        self.host.node_id()
    }

    /// The workflow that is running, in API format; empty if the host does not tell. `[worker thread]`
    pub fn prompt_json(&self) -> String {
        self.host.prompt_json()
    }

    /// What the front end sent along to be kept in pictures; empty if there is nothing. `[worker thread]`
    pub fn extra_pnginfo_json(&self) -> String {
        self.host.extra_pnginfo_json()
    }

    /// How many threads the node may keep busy; at least 1. `[worker thread]`
    pub fn threads(&self) -> usize {
        self.host.threads().max(1)
    }
}

/// A host that shows nothing and is never cancelled: for the tests of a node.
#[derive(Clone, Debug, Default)]
pub struct SilentHost {
    /// The folders it offers.
    pub folders: Folders,
}

impl Host for SilentHost {
    fn progress(&self, _step: u64, _total: u64, _preview: Option<&PreviewImage>) {}
    fn status(&self, _text: &str) {}
    fn is_cancelled(&self) -> bool {
        false
    }
    fn log(&self, _level: Level, _text: &str) {}
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.folders.paths(kind).to_vec()
    }
    fn node_id(&self) -> String {
        String::new()
    }
    fn prompt_json(&self) -> String {
        String::new()
    }
    fn extra_pnginfo_json(&self) -> String {
        String::new()
    }
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preview_has_all_its_bytes() {
        assert!(PreviewImage::new(2, 1, vec![0; 6]).is_ok());
        assert!(PreviewImage::new(2, 1, vec![0; 5]).unwrap_err().message.contains("needs 6 bytes"));
        assert!(PreviewImage::new(0, 1, vec![]).is_err());
        assert!(PreviewImage::new(u32::MAX, u32::MAX, vec![0; 3]).is_err());
    }

    #[test]
    fn a_missing_file_names_where_it_was_looked_for() {
        let host = SilentHost { folders: Folders::new().with("input", "some/where") };
        let error = HostContext::new(&host).find_file("input", "cat.png").unwrap_err();
        assert_eq!(error.kind, crate::abi::ErrorKind::NotFound);
        assert!(error.message.contains("`cat.png`") && error.message.contains("where"), "{error}");
    }

    #[test]
    fn a_picture_of_another_folder_is_found_by_its_annotation() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cat.png"), b"").unwrap();
        let host =
            SilentHost { folders: Folders::new().with("input", "some/where").with("output", dir.path()) };
        let find = |name: &str| HostContext::new(&host).find_file("input", name);
        assert_eq!(find("cat.png [output]").unwrap(), dir.path().join("cat.png"));
        let error = find("dog.png [output]").unwrap_err().message;
        assert!(
            error.contains("among the output") && error.contains(dir.path().to_str().unwrap()),
            "{error}"
        );
        assert!(find("cat.png").is_err() && find("cat.png [temp]").is_err());
    }
}
