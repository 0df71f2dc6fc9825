//! Small nodes of the test program itself, and the registry that has them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use vocable_host_sdk::abi::{
    Folders, HostContext, InputSpec, Inputs, Node, NodeError, NodeSpec, OutputSpec, Outputs, Value,
};
use vocable_host_sdk::graph::{Event, EventSink, Executor, RunOptions, Workflow};
use vocable_host_sdk::registry::Registry;

type Execute = dyn Fn(Inputs, &HostContext<'_>) -> Result<Outputs, NodeError> + Send + Sync;

/// A node made of a spec and a function, which counts its runs.
pub(crate) struct TestNode {
    spec: NodeSpec,
    execute: Box<Execute>,
    pub(crate) fingerprint: Mutex<String>,
    runs: AtomicUsize,
}

impl TestNode {
    pub(crate) fn new(
        spec: NodeSpec,
        execute: impl Fn(Inputs, &HostContext<'_>) -> Result<Outputs, NodeError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            spec,
            execute: Box::new(execute),
            fingerprint: Mutex::default(),
            runs: AtomicUsize::new(0),
        })
    }

    /// Runs since the last call.
    pub(crate) fn runs(&self) -> usize {
        self.runs.swap(0, Ordering::SeqCst)
    }
}

impl Node for TestNode {
    fn spec(&self) -> NodeSpec {
        self.spec.clone()
    }
    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        match inputs.get("value").and_then(Value::as_int) {
            Some(13) => Err(NodeError::invalid_input("input `value`: 13 is unlucky").help("Take 12.")),
            Some(14) => Err(NodeError::invalid_input("14 is not liked")),
            Some(666) => panic!("devilish"),
            _ => Ok(()),
        }
    }
    fn fingerprint(&self, _inputs: &Inputs, _host: &HostContext<'_>) -> Result<String, NodeError> {
        match self.fingerprint.lock().unwrap().as_str() {
            "unknown" => Err(NodeError::internal("unknown")),
            text => Ok(text.to_string()),
        }
    }
    fn execute(&self, inputs: Inputs, host: &HostContext<'_>) -> Result<Outputs, NodeError> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        (self.execute)(inputs, host)
    }
}

/// Events as JSON, in order.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<Json>>);

impl EventSink for Events {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.to_json());
    }
}

impl Events {
    pub(crate) fn take(&self) -> Vec<Json> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub(crate) fn types(&self) -> Vec<String> {
        self.take().iter().map(|event| event["type"].as_str().unwrap().to_string()).collect()
    }
}

/// A small host: `Number` → `Add` → `Show`, lists, and nodes that fail.
pub(crate) struct World {
    pub(crate) number: Arc<TestNode>,
    pub(crate) add: Arc<TestNode>,
    pub(crate) show: Arc<TestNode>,
    pub(crate) executor: Executor,
    pub(crate) events: Arc<Events>,
    pub(crate) options: RunOptions,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_folders(Folders::new())
    }

    pub(crate) fn with_folders(folders: Folders) -> Self {
        let number = TestNode::new(
            NodeSpec::new("Number", "Number")
                .input(InputSpec::int("value").default(1).range(0, 1000))
                .input(InputSpec::combo("unit", ["cm", "inch"]).optional().default("cm"))
                .input(InputSpec::files("file", "input", ["txt"]).optional().accepts_paths())
                .output(OutputSpec::new("number", "INT"))
                .output(OutputSpec::new("unit", "STRING")),
            |inputs, _| Ok(Outputs::one(inputs.int("value")?).result(inputs.string("unit")?)),
        );
        let add = TestNode::new(
            NodeSpec::new("Add", "Add")
                .input(InputSpec::new("a", "INT,FLOAT"))
                .input(InputSpec::int("b").default(0))
                .output(OutputSpec::new("sum", "INT")),
            |inputs, _| Ok(Outputs::one(inputs.int("a")? + inputs.int("b")?)),
        );
        let show = TestNode::new(
            NodeSpec::new("Show", "Show")
                .input(InputSpec::new("x", "*"))
                .input(InputSpec::hidden("prompt", "PROMPT"))
                .input(InputSpec::hidden("id", "UNIQUE_ID"))
                .output(OutputSpec::new("text", "STRING"))
                .output_node(),
            |inputs, _| {
                assert!(inputs.string("prompt")?.contains("class_type"));
                let text = format!("{}={}", inputs.string("id")?, inputs.value("x")?.to_json());
                Ok(Outputs::one(text.as_str()).ui_text(text.as_str()))
            },
        );
        let spread = TestNode::new(
            NodeSpec::new("Spread", "Spread")
                .input(InputSpec::int("count"))
                .output(OutputSpec::new("numbers", "INT").list()),
            |inputs, _| Ok(Outputs::one((0..inputs.int("count")?).map(Value::from).collect::<Vec<_>>())),
        );
        let sum =
            TestNode::new(
                NodeSpec::new("Sum", "Sum")
                    .input(InputSpec::int("numbers"))
                    .input_is_list()
                    .output(OutputSpec::new("sum", "INT")),
                |inputs, _| {
                    Ok(Outputs::one(
                        inputs.list("numbers")?.iter().filter_map(Value::as_int).sum::<i128>() as i64
                    ))
                },
            );
        let fail = TestNode::new(
            NodeSpec::new("Fail", "Fail")
                .input(InputSpec::boolean("panic"))
                .output(OutputSpec::new("x", "INT")),
            |inputs, _| match inputs.bool("panic")? {
                true => panic!("the node lost its nerve"),
                false => Err(NodeError::not_found("no file `a`").help("Look again.")),
            },
        );
        let slow = TestNode::new(
            NodeSpec::new("Slow", "Slow")
                .input(InputSpec::new("x", "INT"))
                .output(OutputSpec::new("x", "INT")),
            |inputs, host| {
                for step in 0..1000 {
                    host.check_cancelled().map_err(|error| error.help(format!("{step} steps are kept.")))?;
                    std::thread::sleep(Duration::from_millis(10));
                    host.progress(step, 1000, None);
                }
                Ok(Outputs::one(inputs.value("x")?.clone()))
            },
        );
        let model = TestNode::new(
            NodeSpec::new("UseModel", "Use Model")
                .input(InputSpec::new("model", "MODEL"))
                .input(InputSpec::new("words", "TI_EMBEDDING").optional())
                .output_node(),
            |_, _| Ok(Outputs::new()),
        );
        let read = TestNode::new(
            NodeSpec::new("Read", "Read")
                .input(InputSpec::files("file", "input", ["txt"]).accepts_paths())
                .input(InputSpec::hidden("prompt", "PROMPT"))
                .output(OutputSpec::new("file", "STRING"))
                .output(OutputSpec::new("prompt", "STRING"))
                .output_node(),
            |inputs, _| Ok(Outputs::one(inputs.string("file")?).result(inputs.string("prompt")?)),
        );
        let mut registry = Registry::new();
        let all = [&number, &add, &show, &spread, &sum, &fail, &slow, &model, &read];
        registry.register_native("test nodes", all.map(|node| node.clone() as Arc<dyn Node>)).unwrap();
        let events = Arc::new(Events::default());
        let options = RunOptions { sink: events.clone(), ..RunOptions::default() };
        Self { number, add, show, executor: Executor::new(Arc::new(registry), folders), events, options }
    }

    /// Runs of `Number`, `Add` and `Show` since the last call.
    pub(crate) fn runs(&self) -> [usize; 3] {
        [self.number.runs(), self.add.runs(), self.show.runs()]
    }
}

pub(crate) fn workflow(json: Json) -> Workflow {
    Workflow::from_json(json).unwrap()
}
