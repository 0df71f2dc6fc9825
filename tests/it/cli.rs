//! The command line from outside: the built program on the tiny model, in a folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::host::files;
use crate::support::tiny;

/// A current folder for the program, with pictures in it.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("pictures");
        std::fs::create_dir(&folder).unwrap();
        for i in 0..2u8 {
            let colour = |x: u32, y: u32| image::Rgb([(x * 4) as u8, (y * 4) as u8, i * 100]);
            image::RgbImage::from_fn(64, 64, colour).save(folder.join(format!("{i}.png"))).unwrap();
        }
        Self { home }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The program, where `cargo build --release` puts it.
    fn command(&self, arguments: &[&str]) -> Command {
        let test = std::env::current_exe().unwrap();
        let target = test.parent().and_then(Path::parent).unwrap();
        let program = target.join(format!("vocable{}", std::env::consts::EXE_SUFFIX));
        assert!(program.is_file(), "{} is missing: run `cargo build --release` first", program.display());
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.home.path()).env_remove("VOCABLE_PLUGINS");
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::from(self.command(arguments).output().unwrap())
    }

    /// `vocable run` of a graph.
    fn workflow(&self, graph: &Json, more: &[&str]) -> Said {
        std::fs::write(self.path("workflow.json"), graph.to_string()).unwrap();
        self.run(&[&["run", "workflow.json"][..], more].concat())
    }

    /// `vocable learn` with the tiny model, without pictures of the word.
    fn learn(&self, steps: &str) -> Vec<String> {
        let fixed =
            ["learn", "pictures", "--word", "<zorvo>", "--init", "cat", "--batch", "1", "--count", "0"];
        let model = tiny().to_str().unwrap().to_owned();
        let more = ["--steps", steps, "--model", &model];
        fixed.iter().chain(&more).map(ToString::to_string).collect()
    }
}

/// What a program that ended has said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    #[track_caller]
    fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Each line of standard output as JSON.
    fn events(&self) -> Vec<Json> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A picture from the tiny model, and one that is shown as it is.
fn paint() -> Json {
    json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": tiny().to_str().unwrap()}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "photo of cat", "clip": ["1", 1]}},
        "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "4": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 7, "steps": 2, "cfg": 2.0, "sampler_name": "euler",
            "scheduler": "normal", "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0], "denoise": 1.0}},
        "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "cat"},
            "_meta": {"title": "Save", "colour": "red"}, "note": "kept"},
        "7": {"class_type": "LoadImage", "inputs": {"image": "pictures/0.png"}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["7", 0]}},
    })
}

#[test]
fn a_workflow_is_run_and_kept_in_its_pictures() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("output/vocable_temp")).unwrap();
    std::fs::write(place.path("output/vocable_temp/old.png"), b"").unwrap();
    let said = place.workflow(&paint(), &["--set", "Save.filename_prefix=dog"]).ended_with(0);
    assert_eq!(files(&place.path("output")), ["dog_00001_.png", "vocable_temp"]);
    assert!(said.out.contains("dog_00001_.png"), "{}", said.out);
    // What was to be thrown away is: only the new preview is there.
    let shown = files(&place.path("output/vocable_temp"));
    assert!(shown.len() == 1 && shown[0].starts_with("ComfyUI_temp_"), "{shown:?}");
    // The graph as it was read, but for what was set: nothing is dropped, no path becomes whole.
    let mut graph = paint();
    graph["6"]["inputs"]["filename_prefix"] = json!("dog");
    let png = std::fs::read(place.path("output/dog_00001_.png")).unwrap();
    assert!(String::from_utf8_lossy(&png).contains(&graph.to_string()));
    // A result of one run is an input of the next.
    let graph = json!({"1": {"class_type": "LoadImage", "inputs": {"image": "dog_00001_.png [output]"}},
                       "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "again"}}});
    place.workflow(&graph, &["--quiet"]).ended_with(0);
    assert_eq!(files(&place.path("output")), ["again_00001_.png", "dog_00001_.png"]);
}

#[test]
fn all_problems_of_a_workflow_are_said_and_nothing_is_run() {
    let place = Place::new();
    let mut graph = paint();
    graph["1"]["inputs"]["ckpt_name"] = json!("nothing");
    graph["3"]["inputs"]["batch_size"] = json!(99_999);
    graph["4"]["class_type"] = json!("KSamplr");
    graph["6"]["inputs"].as_object_mut().unwrap().shift_remove("filename_prefix");
    graph["7"]["inputs"]["image"] = json!("pictures/none.png");
    graph["5"]["inputs"]["vae"] = json!("the usual one");
    let said = place.workflow(&graph, &[]).ended_with(2);
    for wanted in [
        "has 6 problems, nothing was run",
        "'nothing' not in",
        "input `batch_size`: Value 99999 bigger than max of 4096",
        "Did you mean 'KSampler'?",
        "input `filename_prefix`: Required input is missing",
        "'pictures/none.png' not in",
        "it needs a link to another node",
    ] {
        assert!(said.err.contains(wanted), "wanted {wanted} in: {}", said.err);
    }
    assert!(said.out.is_empty() && !place.path("output").exists());

    let said = place.workflow(&graph, &["--events", "json"]).ended_with(2);
    let events = said.events();
    assert_eq!(events[0]["type"], "validation_failed");
    assert_eq!(events[0]["data"]["error"]["type"], "missing_node_type");
    assert_eq!(events[0]["data"]["node_errors"]["6"]["errors"][0]["type"], "required_input_missing");
}

#[test]
fn a_word_is_learned_and_used_by_name() {
    let place = Place::new();
    let model = tiny().to_str().unwrap().to_owned();
    let arguments = [
        &["learn", "pictures/1.png", "pictures/0.png", "--word", "<zorvo>", "--init", "cat", "--steps", "3"]
            [..],
        &["--batch", "1", "--count", "1", "--prompt", "photo of {}", "--model", &model],
    ]
    .concat();
    let said = place.run(&arguments).ended_with(0);
    for wanted in ["the word: ", "zorvo.safetensors", "sheet_00001_.png", "loss_00001_.png", "vocable"] {
        assert!(said.out.contains(wanted), "wanted {wanted} in: {}", said.out);
    }
    assert_eq!(files(&place.path("output/embeddings")), ["zorvo.safetensors"]);
    assert_eq!(files(&place.path("output/zorvo")), ["loss_00001_.png", "sheet_00001_.png"]);

    let generate = |prompt: &str| place.run(&["generate", prompt, "--steps", "2", "--model", &model]);
    let said = generate("photo of <zorvo>").ended_with(0);
    assert!(said.err.contains("the word <zorvo> is read from zorvo.safetensors"), "{}", said.err);
    assert!(said.out.contains("picture_00001_.png"), "{}", said.out);
    // A word that is spelled otherwise is no junk in the prompt.
    let said = generate("photo of <zorvos>").ended_with(1);
    assert!(said.err.contains("no saved word is called <zorvos>; saved words: <zorvo>"), "{}", said.err);
    assert!(said.err.contains("VocableEncodePromptWithEmbeddings"), "the node says it, too: {}", said.err);
    assert!(!place.path("output/picture_00002_.png").exists());
}

#[test]
fn what_cannot_be_done_has_its_exit_code() {
    let place = Place::new();
    let said = place.run(&["nodes", "--plugin", "nowhere"]).ended_with(3);
    assert!(said.err.contains("nowhere"), "{}", said.err);
    place.run(&["run", "none.json"]).ended_with(2);
    let said =
        place.run(&["learn", "pictures", "pictures/0.png", "--word", "<a>", "--init", "cat"]).ended_with(2);
    assert!(said.err.contains("pictures is not the file of a picture"), "{}", said.err);
    // A node that fails while it runs.
    std::fs::write(place.path("pictures/broken.png"), b"no picture").unwrap();
    let mut graph = paint();
    graph["7"]["inputs"]["image"] = json!("pictures/broken.png");
    let said = place.workflow(&graph, &["--set", "4.steps=1"]).ended_with(1);
    assert!(
        said.err.contains("node 7 (LoadImage) failed: ") && said.err.contains("broken.png"),
        "{}",
        said.err
    );
    assert!(said.err.contains("not run because of that: nodes 8"), "{}", said.err);
    assert!(place.path("output/cat_00001_.png").exists(), "what does not depend on it is made");
}

#[test]
fn events_are_lines_of_json_in_comfyuis_order() {
    let place = Place::new();
    let arguments = [place.learn("3"), vec!["--events".into(), "json".into()]].concat();
    let said = place.run(&texts(&arguments)).ended_with(0);
    let events = said.events();
    let at = |kind: &str, node: Json| {
        let found = events.iter().position(|event| event["type"] == kind && event["data"]["node"] == node);
        found.unwrap_or_else(|| panic!("no {kind} of {node} in {}", said.out))
    };
    let (begins, moves, ends) =
        (at("executing", json!("3")), at("progress", json!("3")), at("executed", json!("3")));
    assert!(begins < moves && moves < ends, "{}", said.out);
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types[..2], ["execution_start", "execution_cached"]);
    assert_eq!(types[types.len() - 2..], ["execution_success", "executing"]);
    assert_eq!(events[events.len() - 1]["data"]["node"], Json::Null);
    let id = &events[0]["data"]["prompt_id"];
    assert!(id.is_string() && events.iter().all(|event| event["data"]["prompt_id"] == *id));
    let last =
        events.iter().rfind(|event| event["type"] == "progress" && event["data"]["node"] == "3").unwrap();
    assert_eq!((&last["data"]["value"], &last["data"]["max"]), (&json!(3), &json!(3)));
    assert!(said.err.contains("the word: "), "results are beside the events: {}", said.err);
}

#[test]
fn nodes_are_listed_as_object_info() {
    let said = Place::new().run(&["nodes", "--json"]).ended_with(0);
    let info: Json = serde_json::from_str(&said.out).unwrap();
    for (id, node) in info.as_object().unwrap() {
        assert_eq!(node["name"], id.as_str());
        assert!(node["output_node"].is_boolean() && node["category"].is_string(), "{id}");
        let required = node["input"]["required"].as_object().unwrap();
        let order: Vec<&str> = node["input_order"]["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        assert_eq!(required.keys().collect::<Vec<_>>(), order, "{id}");
        assert!(required.values().all(|input| input[0].is_string() || input[0].is_array()), "{id}");
        let outputs = node["output"].as_array().unwrap().len();
        for list in ["output_name", "output_is_list", "output_tooltips"] {
            assert_eq!(node[list].as_array().unwrap().len(), outputs, "{id}.{list}");
        }
    }
    assert_eq!(info["KSampler"]["input"]["required"]["seed"][0], "INT");
    assert_eq!(info["KSampler"]["output"], json!(["LATENT"]));
    assert_eq!(info["SaveImage"]["output_node"], true);
    assert_eq!(info["VocableTrainTextualInversion"]["python_module"], "custom_nodes.vocable");
    let table = Place::new().run(&["nodes"]).ended_with(0);
    assert!(table.out.contains("VocableTrainTextualInversion") && table.out.contains("plugin vocable"));
}

/// The program while it runs, with `--events json`.
struct Running {
    child: Child,
    events: Receiver<Json>,
    err: JoinHandle<String>,
}

impl Running {
    fn start(place: &Place, arguments: &[String]) -> Self {
        let mut command = place.command(&texts(arguments));
        let mut child =
            command.args(["--events", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (send, events) = channel();
        // Both are read all the time, so that the program never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = send.send(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")));
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        Self { child, events, err }
    }

    /// The first event that is wanted; the others before it are passed over.
    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) if wanted(&event) => return event,
                Ok(_) => {}
                Err(error) => {
                    let _ = self.child.kill();
                    panic!("waited for {what}: {error}");
                }
            }
        }
    }

    /// What Ctrl-C does; the exit code and standard error.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
                panic!("the program did not stop within 5 s: {}", self.err.join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (status.code(), self.err.join().unwrap())
    }
}

/// The pixels of a picture that a model makes.
fn painted(place: &Place, model: &str) -> Vec<u8> {
    let mut graph = paint();
    graph["1"]["inputs"]["ckpt_name"] = model.into();
    let said = place.workflow(&graph, &["--quiet"]).ended_with(0);
    let file = said.out.lines().find(|line| line.contains("cat_")).unwrap();
    image::open(place.path(file)).unwrap().into_rgb8().into_raw()
}

#[test]
fn a_checkpoint_is_written_in_the_other_layout() {
    let place = Place::new();
    let model = tiny().to_str().unwrap().to_owned();
    let export = |more: &[&str]| place.run(&[&["export", "--quiet"], more].concat());
    let said = export(&[&model, "sub/one"]).ended_with(0);
    assert!(said.out.trim_end().ends_with("sub/one.safetensors"), "{}", said.out);
    assert!(said.err.contains("other programs cannot tell"), "{}", said.err);
    export(&["sub/one.safetensors", "sub/two"]).ended_with(0);
    export(&[
        "sub/one.safetensors",
        "sub/three.safetensors",
        "--layout",
        "single-file",
        "--precision",
        "f32",
    ])
    .ended_with(0);
    assert_eq!(files(&place.path("sub")), ["one.safetensors", "three.safetensors", "two"]);
    let size = |name: &str| std::fs::metadata(place.path(name)).unwrap().len();
    // The tiny model is saved in f16.
    assert!(size("sub/one.safetensors") < size("sub/three.safetensors") * 3 / 5);
    let pixels = painted(&place, &model);
    for written in ["sub/one.safetensors", "sub/two", "sub/three.safetensors"] {
        assert!(painted(&place, written) == pixels, "{written}");
    }

    let said = export(&[&model, "sub/one"]).ended_with(2);
    assert!(said.err.contains("one.safetensors is there already"), "{}", said.err);
    export(&["no-such-model", "sub/four"]).ended_with(2);
    export(&[&model, "sub/four", "--precision", "int8"]).ended_with(2);
    assert_eq!(files(&place.path("sub")), ["one.safetensors", "three.safetensors", "two"]);
}

#[test]
#[cfg_attr(not(unix), ignore = "there is no ulimit")]
fn a_full_disk_leaves_nothing_of_an_export() {
    let place = Place::new();
    for (layout, name) in [("single-file", "a.safetensors"), ("diffusers", "a")] {
        let program = place.command(&[]).get_program().to_owned();
        // Files end at 100 blocks; the signal that would end the program, too, is not sent.
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""]).arg(program);
        limited.args(["export", "--quiet", "--layout", layout]).arg(tiny()).arg(format!("sub/{name}"));
        let output = limited.current_dir(place.home.path()).env_remove("VOCABLE_PLUGINS").output().unwrap();
        let said = Said::from(output).ended_with(1);
        assert!(said.err.contains(name), "{}", said.err);
        assert!(files(&place.path("sub")).is_empty());
    }
}

#[test]
#[cfg_attr(not(unix), ignore = "there is no kill -INT")]
fn ctrl_c_keeps_what_was_learned_and_the_same_command_goes_on() {
    let place = Place::new();
    let arguments = place.learn("100000");
    let trains = |event: &Json| {
        let data = &event["data"];
        event["type"] == "progress"
            && data["max"] == 100_000
            && data["value"].as_u64().is_some_and(|step| step >= 3)
    };
    let mut running = Running::start(&place, &arguments);
    running.wait_for("training", trains);
    let (code, err) = running.interrupt();
    assert_eq!(code, Some(130), "{err}");
    let told = err.split("stopped at node 3").nth(1).unwrap_or_else(|| panic!("{err}"));
    let kept = told.split("kept in ").nth(1).and_then(|rest| rest.split([';', '\n']).next());
    let kept = kept.unwrap_or_else(|| panic!("it does not say where: {err}")).trim();
    assert!(place.path(kept).is_file(), "{kept} is promised in: {err}");

    let mut running = Running::start(&place, &arguments);
    let said = running.wait_for("the word that it goes on", |event| {
        event["type"] == "log" && event["data"]["text"].as_str().is_some_and(|text| text.contains("goes on"))
    });
    let text = said["data"]["text"].as_str().unwrap();
    let step = text.split("at step ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(step.parse::<u64>().unwrap() >= 3, "{text}");
    running.wait_for("training", trains);
    assert_eq!(running.interrupt().0, Some(130));
}
