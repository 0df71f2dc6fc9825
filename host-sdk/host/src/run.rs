//! `vocable run`: runs a workflow's file.

use std::io::Read;
use std::path::Path;

use vocable_host_sdk::graph::Workflow;

use crate::cli::RunArgs;
use crate::execute::Session;
use crate::failure::Failure;
use crate::places;

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let folders = places::folders(&args.places)?;
    let workflow = read(&args.workflow)?;
    let session = Session::open(&args.places, &args.watch, folders)?;
    let workflow = session.set(workflow, &args.set)?;
    let report = session.run(&workflow)?;
    session.say(&session.results(&workflow, &report).join("\n"));
    Ok(())
}

fn read(path: &Path) -> Result<Workflow, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text =
        text.map_err(|error| Failure::Invalid(format!("{} cannot be read: {error}", path.display())))?;
    Workflow::from_json_text(&text).map_err(|error| Failure::Invalid(format!("{}: {error}", path.display())))
}
