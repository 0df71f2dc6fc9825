//! What a running node sees of its host: the run's folders, its events and its cancel flag.

use std::path::PathBuf;

use super::events::{Event, EventKind, EventSink};
use super::run::CancelFlag;
use crate::abi::{Folders, Host, Level, PreviewImage};

/// What is the same for all nodes of a run.
pub(crate) struct Run<'a> {
    pub(crate) prompt_id: String,
    pub(crate) sink: &'a dyn EventSink,
    pub(crate) cancel: CancelFlag,
    pub(crate) folders: &'a Folders,
    pub(crate) prompt_json: String,
    pub(crate) extra_pnginfo_json: String,
    pub(crate) threads: usize,
}

impl Run<'_> {
    pub(crate) fn emit(&self, kind: EventKind) {
        self.sink.event(&Event::now(&self.prompt_id, kind));
    }
}

/// The host of one node.
pub(crate) struct NodeHost<'a> {
    pub(crate) run: &'a Run<'a>,
    pub(crate) node: &'a str,
}

impl Host for NodeHost<'_> {
    fn progress(&self, step: u64, total: u64, preview: Option<&PreviewImage>) {
        let node = self.node.to_string();
        self.run.emit(EventKind::Progress { node: node.clone(), value: step, max: total });
        if let Some(image) = preview {
            self.run.emit(EventKind::Preview { node, image: image.clone() });
        }
    }
    fn status(&self, text: &str) {
        self.run.emit(EventKind::ProgressText { node: self.node.to_string(), text: text.to_string() });
    }
    fn is_cancelled(&self) -> bool {
        self.run.cancel.is_cancelled()
    }
    fn log(&self, level: Level, text: &str) {
        self.run.emit(EventKind::Log { node: self.node.to_string(), level, text: text.to_string() });
    }
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.run.folders.paths(kind).to_vec()
    }
    fn node_id(&self) -> String {
        self.node.to_string()
    }
    fn prompt_json(&self) -> String {
        self.run.prompt_json.clone()
    }
    fn extra_pnginfo_json(&self) -> String {
        self.run.extra_pnginfo_json.clone()
    }
    fn threads(&self) -> usize {
        self.run.threads
    }
}
