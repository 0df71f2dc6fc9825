//! The arguments of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0    everything ran
  1    a node failed
  2    the arguments or the workflow are wrong; nothing was run
  3    a plugin could not be loaded
  130  stopped with Ctrl-C; training keeps what it has learned, and says where";

const FOLDERS: &str = "\
Folders:
  checkpoints  MODELS/checkpoints (or MODELS itself), then the model that ships in examples/models
  vae          MODELS/vae
  embeddings   MODELS/embeddings, if there are MODELS, then OUTPUT/embeddings; the first is written to
  input        INPUT, then the pictures that ship in examples/concepts
  temp         OUTPUT/vocable_temp, emptied at the start of each run
  A checkpoint or picture that is in none of them may be given by its path.

Plugins:
  Those of --plugin, of the variable VOCABLE_PLUGINS (a list of files and folders), of the folder `plugins`
  beside this program, and Vocable's own beside this program, unless another file of its name was given.";

/// Teaches a text-to-image model a new word, and runs ComfyUI workflows.
#[derive(Debug, Parser)]
#[command(name = "vocable", version, after_help = EXIT_CODES, after_long_help = format!("{FOLDERS}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a workflow in ComfyUI's API format
    #[command(after_help = EXIT_CODES, after_long_help = format!("{FOLDERS}\n\n{EXIT_CODES}"))]
    Run(RunArgs),
    /// List the nodes that workflows can use
    Nodes(NodesArgs),
    /// Teach a model a word from a few pictures
    #[command(after_help = EXIT_CODES, after_long_help = format!("{FOLDERS}\n\n{EXIT_CODES}"))]
    Learn(Box<LearnArgs>),
    /// Make pictures from a prompt; learned words in it are found by themselves
    #[command(after_help = EXIT_CODES, after_long_help = format!("{FOLDERS}\n\n{EXIT_CODES}"))]
    Generate(Box<GenerateArgs>),
    /// Tell what a checkpoint is, without loading it
    Inspect(InspectArgs),
    /// Write a checkpoint in the other layout: a diffusers folder as one file, a file as a diffusers folder
    #[command(after_help = EXIT_CODES, after_long_help = format!("{FOLDERS}\n\n{EXIT_CODES}"))]
    Export(ExportArgs),
}

/// Where things are.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlaceArgs {
    /// A plugin's file; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) plugin: Vec<PathBuf>,
    /// Folder with `checkpoints`, `vae` and `embeddings` [default: models, if there is one]
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Folder of the pictures that workflows read [default: input]
    #[arg(long, value_name = "DIR")]
    pub(crate) input: Option<PathBuf>,
    /// Folder for results
    #[arg(long, value_name = "DIR", default_value = "output")]
    pub(crate) output: PathBuf,
}

/// How a run is watched.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct WatchArgs {
    /// Threads that nodes keep busy [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
    /// Print each event of the run as a line of JSON, in ComfyUI's words, and nothing else on standard output
    #[arg(long, value_name = "FORMAT")]
    pub(crate) events: Option<EventFormat>,
    /// Show no progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Keep the newest preview picture in this PNG file
    #[arg(long, value_name = "FILE")]
    pub(crate) preview: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EventFormat {
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The workflow's file; `-` reads standard input
    #[arg(value_name = "WORKFLOW.json")]
    pub(crate) workflow: PathBuf,
    /// Change an input; NODE is an id, or a title or class that only one node has
    #[arg(long, value_name = "NODE.INPUT=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<String>,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// Print what ComfyUI's /object_info answers
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Name or path of the checkpoint
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: String,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name or path of the checkpoint
    #[arg(value_name = "CKPT")]
    pub(crate) checkpoint: String,
    /// The file or folder to write, which is not there yet; a file is given the ending .safetensors
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Layout of OUT [default: the one that CKPT does not have]
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) layout: Option<ExportLayout>,
    /// Type of the numbers: f32, bf16 or f16 [default: that of CKPT]
    #[arg(long, value_name = "TYPE")]
    pub(crate) precision: Option<String>,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportLayout {
    /// One .safetensors file, as ComfyUI has it
    SingleFile,
    /// A pipeline's folder, as diffusers has it
    Diffusers,
}

/// What `learn` and `generate` share: the model, and how its pictures are made.
#[derive(Clone, Debug, Args)]
pub(crate) struct PictureArgs {
    /// Name or path of the checkpoint [default: the small model that ships]
    #[arg(long, value_name = "CKPT")]
    pub(crate) model: Option<String>,
    /// What pictures should not show
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) negative: String,
    /// How strongly the prompt guides [default: 4 for small models, 7.5 for others]
    #[arg(long)]
    pub(crate) cfg: Option<f64>,
    /// Sampler, as in the node KSampler
    #[arg(long, value_name = "NAME", default_value = "dpmpp_2m")]
    pub(crate) sampler: String,
    /// Noise schedule, as in the node KSampler
    #[arg(long, value_name = "NAME", default_value = "karras")]
    pub(crate) scheduler: String,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Change an input of the graph; NODE is an id, or a title or class that only one node has
    #[arg(long, value_name = "NODE.INPUT=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<String>,
    /// Print the graph as a workflow for `vocable run` and ComfyUI, and do not run it
    #[arg(long)]
    pub(crate) print_workflow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LearnArgs {
    /// The pictures that show what the word shall mean: their folder, or their files
    #[arg(value_name = "PICTURES", required = true)]
    pub(crate) pictures: Vec<String>,
    /// The new word, such as "<zorvo>"
    #[arg(long)]
    pub(crate) word: String,
    /// A word that the model knows and that says roughly what the pictures show: where learning starts
    #[arg(long, value_name = "WORD")]
    pub(crate) init: String,
    /// The word is a drawing style, not a thing
    #[arg(long)]
    pub(crate) style: bool,
    /// Where the sentences come from that the word is learned in: templates, "text files" (a .txt beside each picture, with {} for the word) or "file names"
    /// [default: templates; text files with --style, since a style is learned well only where captions tell what else is on a picture]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) captions: Option<String>,
    /// Set of training values: recommended, paper, diffusers or mmagic [default: recommended]
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Training steps [default: the preset's]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<u64>,
    /// Vectors that stand for the word
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) vectors: u64,
    /// Pictures in a training step [default: the preset's]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// Learning rate [default: the preset's]
    #[arg(long, value_name = "RATE")]
    pub(crate) lr: Option<f64>,
    /// Side of the pictures in pixels [default: the model's]
    #[arg(long, value_name = "N")]
    pub(crate) resolution: Option<u64>,
    /// A prompt, with {} for the word, of which pictures are made before and after; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Vec<String>,
    /// How many pictures are made of each prompt; 0 makes none
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) count: u64,
    #[command(flatten)]
    pub(crate) picture: PictureArgs,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// What the pictures should show; may hold learned words and embedding:name
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: String,
    /// Sampling steps
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) steps: u64,
    /// Width in pixels [default: the model's]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<u64>,
    /// Height in pixels [default: the model's]
    #[arg(long, value_name = "N")]
    pub(crate) height: Option<u64>,
    /// How many pictures
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) count: u64,
    /// One more folder of learned words, searched first
    #[arg(long, value_name = "DIR")]
    pub(crate) embeddings: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) picture: PictureArgs,
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
    #[command(flatten)]
    pub(crate) watch: WatchArgs,
}

/// `NODE.INPUT=VALUE`; whether there are such a node and input is seen later.
fn assignment(text: &str) -> Result<String, String> {
    let target = text.split_once('=').map_or("", |(target, _)| target);
    match target.trim().rsplit_once('.') {
        Some((node, input)) if !node.is_empty() && !input.is_empty() => Ok(text.to_string()),
        _ => Err("wanted NODE.INPUT=VALUE, such as 3.steps=20 or KSampler.seed=7".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Command, String> {
        let arguments = std::iter::once(&"vocable").chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn assignments_are_checked_early() {
        let Ok(Command::Run(args)) =
            parse(&["run", "a.json", "--set", "3.steps=20", "--set", "My node.text=a=b"])
        else {
            panic!("not read");
        };
        assert_eq!(args.set, ["3.steps=20", "My node.text=a=b"]);
        for wrong in ["steps=20", "3.steps", ".steps=1", "3.=1", "=1"] {
            let message = parse(&["run", "a.json", "--set", wrong]).unwrap_err();
            assert!(message.contains("wanted NODE.INPUT=VALUE"), "{message}");
        }
    }

    #[test]
    fn pictures_may_be_several_and_stand_anywhere() {
        for arguments in [
            &["learn", "a.png", "b.png", "--word", "<a>", "--init", "cat"][..],
            &["learn", "--word", "<a>", "--init", "cat", "a.png", "b.png"],
            &["learn", "a.png", "--word", "<a>", "b.png", "--init", "cat"],
        ] {
            let Ok(Command::Learn(args)) = parse(arguments) else { panic!("not read: {arguments:?}") };
            assert_eq!(args.pictures, ["a.png", "b.png"]);
        }
        assert!(parse(&["learn", "--word", "<a>", "--init", "cat"]).unwrap_err().contains("PICTURES"));
    }

    #[test]
    fn plugins_and_prompts_may_be_several() {
        let Ok(Command::Learn(args)) = parse(&[
            "learn",
            "pictures",
            "--word",
            "<a>",
            "--init",
            "cat",
            "--prompt",
            "{}",
            "--prompt",
            "red {}",
            "--plugin",
            "x",
            "--plugin",
            "y",
            "--events",
            "json",
            "--threads",
            "2",
        ]) else {
            panic!("not read");
        };
        assert_eq!((args.prompt.len(), args.places.plugin.len(), args.vectors), (2, 2, 1));
        assert_eq!(args.watch.events, Some(EventFormat::Json));
        assert_eq!(args.places.output, PathBuf::from("output"));
        assert!(parse(&["learn", "pictures", "--word", "<a>"]).unwrap_err().contains("--init"));
        assert!(parse(&["run", "a.json", "--threads", "0"]).is_err());
        assert!(parse(&["run", "a.json", "--events", "xml"]).is_err());
    }
}
