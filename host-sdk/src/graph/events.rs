//! What a run tells while it goes on, in ComfyUI's words.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::abi::{Level, NodeError, PreviewImage};

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub struct Event {
    /// The run.
    pub prompt_id: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// The run begins.
    ExecutionStart,
    /// These nodes need not run: their results are still there.
    ExecutionCached {
        /// Their ids.
        nodes: Vec<String>,
    },
    /// A node begins; `None`: the run is over.
    Executing {
        /// Its id.
        node: Option<String>,
    },
    /// A node did `value` of `max`.
    Progress {
        /// Its id.
        node: String,
        /// How much is done.
        value: u64,
        /// How much there is.
        max: u64,
    },
    /// A node shows how far it is.
    Preview {
        /// Its id.
        node: String,
        /// The picture.
        image: PreviewImage,
    },
    /// A node's line of text, which replaces the one before.
    ProgressText {
        /// Its id.
        node: String,
        /// The line.
        text: String,
    },
    /// A line for the log.
    Log {
        /// The node's id.
        node: String,
        /// How much it matters.
        level: Level,
        /// The line.
        text: String,
    },
    /// A node is done, or was cached, and shows something.
    Executed {
        /// Its id.
        node: String,
        /// What it shows: arrays by key, such as `images`.
        output: Json,
    },
    /// A node failed. Nodes that do not depend on it still run.
    ExecutionError {
        /// Its id.
        node: String,
        /// Its class.
        class_type: String,
        /// The nodes that ran before.
        executed: Vec<String>,
        /// Why.
        error: NodeError,
    },
    /// The user stopped the run.
    ExecutionInterrupted {
        /// The node that was running or next.
        node: String,
        /// Its class.
        class_type: String,
        /// The nodes that ran before.
        executed: Vec<String>,
    },
    /// Everything ran.
    ExecutionSuccess,
}

impl Event {
    /// An event of now.
    pub fn now(prompt_id: &str, kind: EventKind) -> Self {
        let timestamp =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        Self { prompt_id: prompt_id.to_string(), timestamp, kind }
    }

    /// The name that stands in `type`.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            EventKind::ExecutionStart => "execution_start",
            EventKind::ExecutionCached { .. } => "execution_cached",
            EventKind::Executing { .. } => "executing",
            EventKind::Progress { .. } => "progress",
            EventKind::Preview { .. } => "preview",
            EventKind::ProgressText { .. } => "progress_text",
            EventKind::Log { .. } => "log",
            EventKind::Executed { .. } => "executed",
            EventKind::ExecutionError { .. } => "execution_error",
            EventKind::ExecutionInterrupted { .. } => "execution_interrupted",
            EventKind::ExecutionSuccess => "execution_success",
        }
    }

    /// The event as `{"type": …, "data": …}`. A preview gives its size only, since pictures travel as bytes.
    pub fn to_json(&self) -> Json {
        let mut data = match &self.kind {
            EventKind::ExecutionStart | EventKind::ExecutionSuccess => json!({}),
            EventKind::ExecutionCached { nodes } => json!({"nodes": nodes}),
            EventKind::Executing { node } => json!({"node": node, "display_node": node}),
            EventKind::Progress { node, value, max } => json!({"value": value, "max": max, "node": node}),
            EventKind::Preview { node, image } => {
                json!({"node": node, "width": image.width(), "height": image.height()})
            }
            EventKind::ProgressText { node, text } => json!({"node": node, "text": text}),
            EventKind::Log { node, level, text } => {
                json!({"node": node, "level": level.name(), "text": text})
            }
            EventKind::Executed { node, output } => {
                json!({"node": node, "display_node": node, "output": output})
            }
            EventKind::ExecutionError { node, class_type, executed, error } => json!({
                "node_id": node,
                "node_type": class_type,
                "executed": executed,
                "exception_message": error.message,
                "exception_type": error.kind.name(),
                "traceback": error.causes,
                "help": error.help,
                "current_inputs": {},
                "current_outputs": executed,
            }),
            EventKind::ExecutionInterrupted { node, class_type, executed } => {
                json!({"node_id": node, "node_type": class_type, "executed": executed})
            }
        };
        data["prompt_id"] = json!(self.prompt_id);
        data["timestamp"] = json!(self.timestamp);
        json!({"type": self.type_name(), "data": data})
    }
}

/// Takes events. Called from the graph's thread and from nodes' own threads, so it must come back quickly.
pub trait EventSink: Send + Sync {
    /// Takes one event. `[any thread]`
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> EventSink for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// Takes events and does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct IgnoreEvents;

impl EventSink for IgnoreEvents {
    fn event(&self, _event: &Event) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_written_in_comfyuis_words() {
        let error = NodeError::not_found("no file").help("Look.");
        let kind = EventKind::ExecutionError {
            node: "3".into(),
            class_type: "X".into(),
            executed: vec!["1".into()],
            error,
        };
        let json = Event::now("p", kind).to_json();
        assert_eq!(json["type"], "execution_error");
        assert_eq!(json["data"]["exception_type"], "NotFound");
        assert_eq!(json["data"]["prompt_id"], "p");
        let json = Event::now("p", EventKind::Executing { node: None }).to_json();
        assert_eq!(json["data"]["node"], Json::Null);
    }
}
