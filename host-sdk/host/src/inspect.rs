//! `vocable inspect`: what a checkpoint is.

use serde_json::json;
use vocable_host_sdk::graph::Workflow;

use crate::cli::{InspectArgs, WatchArgs};
use crate::execute::Session;
use crate::failure::Failure;
use crate::places;

/// Runs the command: a graph of one node.
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let graph =
        json!({"1": {"class_type": "VocableInspectCheckpoint", "inputs": {"ckpt_name": args.checkpoint}}});
    let workflow =
        Workflow::from_json_text(&graph.to_string()).map_err(|error| Failure::Invalid(error.to_string()))?;
    let watch = WatchArgs { quiet: true, ..WatchArgs::default() };
    let session = Session::open(&args.places, &watch, places::folders(&args.places)?)?;
    let report = session.run(&workflow)?;
    session.say(&session.results(&workflow, &report).join("\n"));
    Ok(())
}
