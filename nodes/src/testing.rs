//! What tests of several nodes need.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vocable_host_sdk::abi::{
    Folders, Host, HostContext, Inputs, Level, Node, NodeError, Outputs, PreviewImage, SilentHost,
};

/// A host whose user wants to stop after a while.
pub(crate) struct ImpatientHost {
    cancel_at: Instant,
}

impl ImpatientHost {
    pub(crate) fn after(patience: Duration) -> Self {
        Self { cancel_at: Instant::now() + patience }
    }
}

impl Host for ImpatientHost {
    fn progress(&self, _step: u64, _total: u64, _preview: Option<&PreviewImage>) {}
    fn status(&self, _text: &str) {}
    fn is_cancelled(&self) -> bool {
        Instant::now() >= self.cancel_at
    }
    fn log(&self, _level: Level, _text: &str) {}
    fn folders(&self, _kind: &str) -> Vec<PathBuf> {
        Vec::new()
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
        1
    }
}

/// A silent host with one folder for each kind, all under a directory that goes away at the end.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: SilentHost,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut folders = Folders::new();
        for kind in ["checkpoints", "embeddings", "input", "output", "temp"] {
            std::fs::create_dir(dir.path().join(kind)).unwrap();
            folders.add(kind, dir.path().join(kind));
        }
        Self { dir, host: SilentHost { folders } }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn run(&self, node: &dyn Node, inputs: Inputs) -> Result<Outputs, NodeError> {
        node.execute(inputs, &HostContext::new(&self.host))
    }
}

/// A host that remembers what was said, by status, log and progress, and whose user may want to stop once something is said.
pub(crate) struct ListeningHost<'a> {
    inner: &'a SilentHost,
    stop_at: Option<&'static str>,
    stopped: AtomicBool,
    heard: Mutex<Vec<String>>,
}

impl<'a> ListeningHost<'a> {
    pub(crate) fn new(inner: &'a SilentHost) -> Self {
        Self { inner, stop_at: None, stopped: AtomicBool::new(false), heard: Mutex::default() }
    }

    pub(crate) fn stopping_at(inner: &'a SilentHost, words: &'static str) -> Self {
        Self { stop_at: Some(words), ..Self::new(inner) }
    }

    pub(crate) fn run(&self, node: &dyn Node, inputs: Inputs) -> Result<Outputs, NodeError> {
        node.execute(inputs, &HostContext::new(self))
    }

    /// What was said that holds these words.
    pub(crate) fn heard(&self, words: &str) -> Vec<String> {
        self.heard.lock().unwrap().iter().filter(|text| text.contains(words)).cloned().collect()
    }

    fn hear(&self, text: &str) {
        self.heard.lock().unwrap().push(text.to_string());
        if self.stop_at.is_some_and(|words| text.contains(words)) {
            self.stopped.store(true, Ordering::Relaxed);
            // The watcher looks every 20 ms.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Host for ListeningHost<'_> {
    fn progress(&self, step: u64, total: u64, _preview: Option<&PreviewImage>) {
        self.hear(&format!("progress {step} of {total}"));
    }
    fn status(&self, text: &str) {
        self.hear(text);
    }
    fn is_cancelled(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
    fn log(&self, _level: Level, text: &str) {
        self.hear(text);
    }
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.inner.folders(kind)
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
        self.inner.threads()
    }
}
