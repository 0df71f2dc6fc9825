//! A plugin whose nodes misbehave, each in one way, so that tests can see what a host makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vocable_host_sdk::abi::{
    Handle, HostContext, InputSpec, Inputs, Level, Node, NodeError, NodeSpec, OutputSpec, Outputs, Plugin,
    PluginInfo, PreviewImage, StateKind, TensorBuf, Value,
};

/// Panics in the function that is asked for, with or without a message.
struct PanickingNode;

impl PanickingNode {
    fn panic_if(inputs: &Inputs, place: &str) {
        match inputs.optional_string("where") {
            Ok(Some(wanted)) if wanted == place => panic!("a panic in {place}"),
            Ok(Some("execute without message")) if place == "execute" => std::panic::panic_any(7_u32),
            _ => {}
        }
    }
}

impl Node for PanickingNode {
    fn spec(&self) -> NodeSpec {
        let places = ["execute", "execute without message", "validate", "fingerprint", "nowhere"];
        NodeSpec::new("PanickingNode", "Panicking Node")
            .input(InputSpec::combo("where", places))
            .output(OutputSpec::new("done", "INT"))
            .output_node()
    }
    fn validate(&self, inputs: &Inputs) -> Result<(), NodeError> {
        Self::panic_if(inputs, "validate");
        Ok(())
    }
    fn fingerprint(&self, inputs: &Inputs, _host: &HostContext) -> Result<String, NodeError> {
        Self::panic_if(inputs, "fingerprint");
        Ok(String::new())
    }
    fn execute(&self, inputs: Inputs, _host: &HostContext) -> Result<Outputs, NodeError> {
        Self::panic_if(&inputs, "execute");
        Ok(Outputs::one(1))
    }
}

/// Sleeps for some seconds in steps of 10 ms, with progress, previews and a look at the cancel flag.
struct SleepingNode;

impl Node for SleepingNode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("SleepingNode", "Sleeping Node")
            .input(InputSpec::float("seconds").default(0.1).range(0.0, 600.0))
            .output(OutputSpec::new("slept", "FLOAT"))
            .output_node()
    }
    fn execute(&self, inputs: Inputs, host: &HostContext) -> Result<Outputs, NodeError> {
        let seconds = inputs.float("seconds")?;
        let steps = (seconds * 100.0).ceil() as u64;
        let start = Instant::now();
        host.log(Level::Debug, "good night");
        for step in 0..steps {
            host.check_cancelled()?;
            std::thread::sleep(Duration::from_millis(10));
            let preview = PreviewImage::new(1, 1, vec![step as u8; 3])?;
            host.progress(step + 1, steps, Some(&preview));
            host.status(&format!("slept {} of {steps}", step + 1));
        }
        Ok(Outputs::one(start.elapsed().as_secs_f64()))
    }
}

/// Answers fewer results than its spec has outputs.
struct WrongOutputsNode;

impl Node for WrongOutputsNode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("WrongOutputsNode", "Wrong Outputs Node")
            .output(OutputSpec::new("a", "INT"))
            .output(OutputSpec::new("b", "INT"))
            .output_node()
    }
    fn execute(&self, _inputs: Inputs, _host: &HostContext) -> Result<Outputs, NodeError> {
        Ok(Outputs::one(1))
    }
}

/// Answers what it was given: sends every kind of value over the border and back.
struct EchoNode;

impl Node for EchoNode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("EchoNode", "Echo Node")
            .input(InputSpec::new("value", "*"))
            .output(OutputSpec::new("value", "*"))
    }
    fn execute(&self, mut inputs: Inputs, _host: &HostContext) -> Result<Outputs, NodeError> {
        Ok(Outputs::one(inputs.take("value").unwrap_or_default()))
    }
}

/// How many of this plugin's objects are alive.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

struct Counted;

impl Counted {
    fn new() -> Arc<Self> {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
        // Runs in the host's call: the panic must not reach it.
        panic!("a panic in drop");
    }
}

/// Makes a handle, or opens one, and says how many of its objects are alive.
struct HandleNode;

impl Node for HandleNode {
    fn spec(&self) -> NodeSpec {
        NodeSpec::new("HandleNode", "Handle Node")
            .input(InputSpec::new("model", "MODEL").optional())
            .output(OutputSpec::new("model", "MODEL"))
            .output(OutputSpec::new("alive", "INT"))
    }
    fn execute(&self, inputs: Inputs, _host: &HostContext) -> Result<Outputs, NodeError> {
        let handle = match inputs.optional_handle("model")? {
            Some(handle) => {
                handle.open::<Counted>()?;
                handle.clone()
            }
            None => Handle::new("MODEL", Counted::new()),
        };
        Ok(Outputs::one(handle).result(ALIVE.load(Ordering::SeqCst) as u64))
    }
}

struct FaultyPlugin;

impl Plugin for FaultyPlugin {
    fn info(&self) -> PluginInfo {
        PluginInfo::new("faulty", env!("CARGO_PKG_VERSION")).description("Misbehaves.")
    }
    fn nodes(&self) -> Vec<Arc<dyn Node>> {
        vec![
            Arc::new(PanickingNode),
            Arc::new(SleepingNode),
            Arc::new(WrongOutputsNode),
            Arc::new(EchoNode),
            Arc::new(HandleNode),
        ]
    }
    fn import_state_dict(
        &self,
        kind: StateKind,
        tensors: Vec<(String, TensorBuf)>,
        settings: BTreeMap<String, Value>,
        _host: &HostContext<'_>,
    ) -> Result<Value, NodeError> {
        match (kind, settings.keys().next()) {
            (StateKind::Vae, None) => Ok(Handle::new("VAE", Arc::new(tensors)).into()),
            (_, Some(name)) => {
                Err(NodeError::incompatible(format!("the setting `{name}` cannot be honoured")))
            }
            (kind, None) => panic!("no {kind} here"),
        }
    }
}

vocable_host_sdk::export_plugin!(FaultyPlugin);
