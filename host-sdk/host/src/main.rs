//! `vocable` runs ComfyUI workflows with the nodes of loaded plugins, and teaches a model a word in one command.
//!
//! | file | what it does |
//! |---|---|
//! | `cli.rs` | the arguments |
//! | `places.rs`, `plugins.rs`, `checkpoint.rs`, `words.rs` | find folders, plugins, the model and learned words |
//! | `template.rs`, `learn.rs`, `generate.rs` | make the graphs of `learn` and `generate` |
//! | `run.rs`, `nodes.rs`, `inspect.rs`, `export.rs` | the other commands |
//! | `execute.rs`, `problems.rs`, `show/`, `interrupt.rs` | run a graph, show how far it is, stop it |

mod checkpoint;
mod cli;
mod execute;
mod export;
mod failure;
mod generate;
#[cfg(test)]
mod graphs_fit;
mod inspect;
mod interrupt;
mod learn;
mod nodes;
mod places;
mod plugins;
mod print;
mod problems;
mod run;
mod show;
mod template;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("vocable: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Nodes(args) => nodes::nodes(&args),
        Command::Learn(args) => learn::learn(&args),
        Command::Generate(args) => generate::generate(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Export(args) => export::export(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the process would exit with.
    fn exit_code(arguments: &[&str]) -> u8 {
        match Cli::try_parse_from(std::iter::once(&"vocable").chain(arguments)) {
            Err(error) => u8::try_from(error.exit_code()).unwrap(),
            Ok(cli) => start(cli).map_or_else(|failure| failure.exit_code(), |()| 0),
        }
    }

    #[test]
    fn the_exit_code_tells_what_went_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        std::fs::write(path("broken.json"), "{").unwrap();
        std::fs::write(path("empty.json"), "{}").unwrap();
        assert_eq!(exit_code(&["run"]), 2, "no workflow named");
        assert_eq!(exit_code(&["paint"]), 2, "no such command");
        assert_eq!(exit_code(&["run", &path("none.json")]), 2, "no such file");
        assert_eq!(exit_code(&["run", &path("broken.json")]), 2, "not JSON");
        assert_eq!(exit_code(&["run", &path("empty.json"), "--plugin", &path("none")]), 3, "no such plugin");
        assert_eq!(exit_code(&["nodes", "--plugin", &path("empty.json")]), 3, "not a plugin");
        assert_eq!(exit_code(&["--help"]), 0);
        assert_eq!(exit_code(&["--version"]), 0);
    }
}
