//! `vocable export`: a checkpoint in the other layout.

use std::path::{Path, PathBuf};

use serde_json::json;
use vocable_host_sdk::abi::{Folders, folder};
use vocable_host_sdk::graph::Workflow;

use crate::cli::{ExportArgs, ExportLayout, PlaceArgs};
use crate::execute::Session;
use crate::failure::Failure;
use crate::places;

/// What single files end in.
const FILE_ENDING: &str = "safetensors";

/// Runs the command: a graph of two nodes, whose folder for results is the one that OUT lies in.
pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let out = Out::of(args, &places::folders(&args.places)?)?;
    let places = PlaceArgs { output: out.folder.clone(), ..args.places.clone() };
    let session = Session::open(&places, &args.watch, places::folders(&places)?)?;
    let workflow = workflow(args, &out)?;
    let report = session.run(&workflow)?;
    session.say(&session.results(&workflow, &report).join("\n"));
    Ok(())
}

/// What is to be written, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Out {
    folder: PathBuf,
    name: String,
    layout: ExportLayout,
}

impl Out {
    /// # Errors
    /// For a place where something is already: nothing is ever replaced; and for a folder with the name of a file.
    pub(crate) fn of(args: &ExportArgs, folders: &Folders) -> Result<Self, Failure> {
        let out = &args.out;
        let checkpoint = folders.find(folder::CHECKPOINTS, &args.checkpoint);
        // What is not there is told of by the node that looks for it.
        let is_folder = checkpoint.unwrap_or_else(|| PathBuf::from(&args.checkpoint)).is_dir();
        let other = if is_folder { ExportLayout::SingleFile } else { ExportLayout::Diffusers };
        let layout = args.layout.unwrap_or(other);
        let is_file = out.extension().is_some_and(|ending| ending == FILE_ENDING);
        let invalid = |path: &Path, why: &str, help: &str| {
            Err(Failure::Invalid(format!("OUT: {} {why}\n  help: {help}", path.display())))
        };
        let whole = match layout {
            ExportLayout::Diffusers if is_file => {
                return invalid(
                    out,
                    "has the name of a file, but a folder is to be written",
                    "Give it another name, or ask for --layout single-file.",
                );
            }
            ExportLayout::SingleFile if !is_file => PathBuf::from(format!("{}.{FILE_ENDING}", out.display())),
            _ => out.clone(),
        };
        if whole.symlink_metadata().is_ok() {
            return invalid(&whole, "is there already", "Give another name, or take away what is there.");
        }
        let Some(name) = whole.file_name().and_then(|name| name.to_str()) else {
            return invalid(&whole, "is no name", "Give the name of the file or folder to write.");
        };
        let folder = whole.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        Ok(Self { folder: folder.to_owned(), name: name.to_string(), layout })
    }
}

/// The graph: load, write.
pub(crate) fn workflow(args: &ExportArgs, out: &Out) -> Result<Workflow, Failure> {
    let layout = match out.layout {
        ExportLayout::SingleFile => "single file",
        ExportLayout::Diffusers => "diffusers folder",
    };
    let precision = args.precision.as_deref().unwrap_or("as saved");
    let graph = json!({
        "1": {"class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": args.checkpoint, "device": "cpu", "precision": precision}},
        "2": {"class_type": "VocableExportModel", "inputs": {
            "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2],
            "layout": layout, "precision": "as loaded", "filename_prefix": out.name}},
    });
    Workflow::from_json(graph).map_err(|error| Failure::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(arguments: &[&str]) -> ExportArgs {
        let arguments = ["vocable", "export"].iter().chain(arguments);
        let Command::Export(args) = Cli::parse_from(arguments).command else { unreachable!() };
        args
    }

    #[test]
    fn the_other_layout_is_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tiny")).unwrap();
        std::fs::write(dir.path().join("one.ckpt"), "").unwrap();
        std::fs::write(dir.path().join("old.safetensors"), "").unwrap();
        let folders = Folders::new().with(folder::CHECKPOINTS, dir.path());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let out = |arguments: &[&str]| Out::of(&args(arguments), &folders).map_err(|error| error.to_string());
        let written =
            |folder: PathBuf, name: &str, layout| Ok(Out { folder, name: name.to_string(), layout });

        let here = PathBuf::from(".");
        let file = |name| written(here.clone(), name, ExportLayout::SingleFile);
        assert_eq!(out(&["tiny", "a"]), file("a.safetensors"));
        assert_eq!(out(&["tiny", "v1.5"]), file("v1.5.safetensors"));
        assert_eq!(out(&["one.ckpt", "a.safetensors", "--layout", "single-file"]), file("a.safetensors"));
        let inside = written(dir.path().join("sub"), "a", ExportLayout::Diffusers);
        assert_eq!(out(&["one.ckpt", &path("sub/a")]), inside);
        assert_eq!(out(&["tiny", &path("sub/a"), "--layout", "diffusers"]), inside);

        assert!(out(&["tiny", &path("old")]).unwrap_err().contains("is there already"));
        assert!(out(&["one.ckpt", "a.safetensors"]).unwrap_err().contains("name of a file"));
        assert!(out(&["one.ckpt", "..", "--layout", "diffusers"]).is_err());
    }
}
