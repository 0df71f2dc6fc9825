//! Shows how far a run is: bars on a terminal, plain lines elsewhere, JSON for programs, or nothing.

mod bars;
mod lines;
mod preview;

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;
use vocable_host_sdk::abi::Level;
use vocable_host_sdk::graph::{Event, EventKind, EventSink, Workflow};
use vocable_host_sdk::registry::Registry;

use crate::cli::WatchArgs;
use crate::print;

/// Shows one node at a time.
trait Painter: Send {
    /// A node begins.
    fn begin(&mut self, name: &str);
    /// It did `value` of `max`.
    fn progress(&mut self, value: u64, max: u64);
    /// Its line of text.
    fn status(&mut self, text: &str);
    /// It ends, if there is one.
    fn end(&mut self);
    /// A line that stays.
    fn say(&mut self, line: &str);
}

/// Shows nothing but what must be said.
struct Silent;

impl Painter for Silent {
    fn begin(&mut self, _name: &str) {}
    fn progress(&mut self, _value: u64, _max: u64) {}
    fn status(&mut self, _text: &str) {}
    fn end(&mut self) {}
    fn say(&mut self, line: &str) {
        eprintln!("{line}");
    }
}

/// Takes the events of a run.
pub(crate) struct Screen {
    json: bool,
    quiet: bool,
    preview: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    painter: Box<dyn Painter>,
    names: HashMap<String, String>,
}

impl Screen {
    /// What the arguments ask for.
    pub(crate) fn new(watch: &WatchArgs) -> Self {
        let json = watch.events.is_some();
        let painter: Box<dyn Painter> = if json || watch.quiet {
            Box::new(Silent)
        } else if std::io::stderr().is_terminal() {
            Box::new(bars::Bars::default())
        } else {
            Box::new(lines::Lines::default())
        };
        let state = State { painter, names: HashMap::new() };
        Self { json, quiet: watch.quiet, preview: watch.preview.clone(), state: Mutex::new(state) }
    }

    /// Whether standard output is for events.
    pub(crate) fn prints_json(&self) -> bool {
        self.json
    }

    /// Learns what the workflow's nodes are called.
    pub(crate) fn name_nodes(&self, workflow: &Workflow, registry: &Registry) {
        let name = |class: &str| registry.get(class).map(|known| known.node.spec().display_name);
        self.lock().names = workflow
            .nodes()
            .iter()
            .map(|node| {
                let title = node.title.clone().or_else(|| name(node.class()));
                (node.id.clone(), title.unwrap_or_else(|| node.class().to_string()))
            })
            .collect();
    }

    /// A line on standard error that stays.
    pub(crate) fn say(&self, line: &str) {
        self.lock().painter.say(line);
    }

    /// A line of JSON, if they are wanted.
    pub(crate) fn event_json(&self, json: &Json) {
        if self.json {
            print::line(json);
        }
    }

    /// Takes away what is not to stay.
    pub(crate) fn finish(&self) {
        self.lock().painter.end();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self, state: &mut State, node: &str, level: Level, text: &str) {
        let least = if self.quiet { Level::Warn } else { Level::Info };
        if level < least {
            return;
        }
        let name = state.names.get(node).map_or(node, String::as_str);
        let line = match level {
            Level::Warn => format!("{name}: warning: {text}"),
            Level::Error => format!("{name}: error: {text}"),
            _ => format!("{name}: {text}"),
        };
        state.painter.say(&line);
    }
}

impl EventSink for Screen {
    fn event(&self, event: &Event) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if self.json {
            print::line(event.to_json());
        }
        match &event.kind {
            EventKind::Executing { node } => {
                state.painter.end();
                if let Some(node) = node {
                    state.painter.begin(state.names.get(node).map_or(node, String::as_str));
                }
            }
            EventKind::Progress { value, max, .. } => state.painter.progress(*value, *max),
            EventKind::ProgressText { text, .. } => state.painter.status(text),
            EventKind::Log { node, level, text } => self.log(state, node, *level, text),
            EventKind::ExecutionError { .. } | EventKind::ExecutionInterrupted { .. } => state.painter.end(),
            EventKind::Preview { image, .. } => {
                if let Some(path) = &self.preview
                    && let Err(error) = preview::write(path, image)
                {
                    state.painter.say(&format!("{}: the preview cannot be written: {error}", path.display()));
                }
            }
            _ => {}
        }
    }
}
