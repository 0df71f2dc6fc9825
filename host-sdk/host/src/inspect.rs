//! `vocable inspect`: what a checkpoint is.

use serde_json::json;

use crate::cli::{InspectArgs, WatchArgs};
use crate::execute::Session;
use crate::failure::Failure;
use crate::places;
use crate::template::{Graph, INSPECT};

/// Runs the command: a graph of one node.
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let mut graph = Graph::default();
    graph.add(INSPECT, 0, &[("model", json!(args.checkpoint))])?;
    let workflow = graph.into_workflow()?;
    let watch = WatchArgs { quiet: true, ..WatchArgs::default() };
    let session = Session::open(&args.places, &watch, places::folders(&args.places)?)?;
    let report = session.run(&workflow)?;
    session.say(&session.results(&workflow, &report).join("\n"));
    Ok(())
}
