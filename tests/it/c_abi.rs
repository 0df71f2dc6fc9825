//! The C functions of the built library: what goes in comes out, what is lent is given back once, jobs can be listened to, stopped and forgotten,
//! and nonsense is answered with an error.

use std::ffi::{CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::{Value as Json, json};

use crate::c_library::{
    CDType, CJob, CTensor, CValue, Event, F32, Failure, Job, Value, answer, c, checked, empty_tensor, text,
};
use crate::host::files;
use crate::support::{root, tiny};

const INVALID_INPUT: u32 = 1;
const NOT_FOUND: u32 = 2;
const INCOMPATIBLE: u32 = 3;
const CANCELLED: u32 = 5;

/// A folder that is `output`, `embeddings` and `temp`, with the tiny model and the concepts that ship.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn host(&self) -> Json {
        let own = [self.0.path()];
        json!({
            "folders": {"checkpoints": [tiny().parent()], "input": [root().join("examples/concepts")],
                "output": own, "embeddings": own, "temp": own},
            "node_id": "7", "threads": 2,
        })
    }

    fn start(&self, node: &str, inputs: &Value) -> Result<Job, Failure> {
        Job::start(node, inputs, &self.host())
    }

    fn run(&self, node: &str, inputs: &Value) -> Result<Value, Failure> {
        self.start(node, inputs)?.finish().map(|(outputs, _)| outputs)
    }

    /// A run of training with all that it needs, not yet started.
    fn learn(&self, steps: u32) -> Value {
        let checkpoint =
            self.run("CheckpointLoaderSimple", &Value::new(&json!({"ckpt_name": "tiny"}))).unwrap();
        let concept = json!({"folder": "mibbet", "resolution": 64});
        let concept = self.run("VocableLoadConceptImages", &Value::new(&concept)).unwrap();
        let inputs = json!({"placeholder": "<x>", "init_words": "cat", "vectors": 1, "preset": "recommended", "seed": u64::MAX,
            "steps": steps, "batch_size": 1, "preview_count": 1, "preview_steps": 1});
        let links = [("model", 0), ("clip", 1), ("vae", 2)];
        let inputs = links
            .into_iter()
            .fold(Value::new(&inputs), |inputs, (name, slot)| inputs.with(name, &checkpoint.at(slot)));
        inputs.with("concept", &concept.at(0))
    }
}

fn failed<T>(result: Result<T, Failure>, code: u32, wanted: &str) {
    let Err(failure) = result else { panic!("went well, wanted {wanted}") };
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.message.contains(wanted), "wanted {wanted} in {failure:?}");
}

#[test]
fn the_library_says_who_it_is_and_what_it_has() {
    assert_eq!((c().abi_version)(), 1);
    let info: Json = serde_json::from_str(&text(|out| (c().info_json)(out)).unwrap()).unwrap();
    assert_eq!(info["name"], "vocable");
    let nodes = text(|out| (c().nodes_json)(out)).unwrap();
    assert_eq!(text(|out| (c().nodes_json)(out)).unwrap(), nodes);
    let nodes: Json = serde_json::from_str(&nodes).unwrap();
    let nodes = nodes.as_array().unwrap();
    let trainer = nodes.iter().find(|node| node["id"] == "VocableTrainTextualInversion").unwrap();
    assert_eq!(trainer["display_name"], "Train Textual Inversion");
    assert_eq!(trainer["inputs"][8]["max"], u64::MAX);
    assert!(trainer["inputs"][7]["choices"]["fixed"].as_array().unwrap().contains(&json!("recommended")));
    assert_eq!(trainer["outputs"][0]["type"], "TI_EMBEDDING");
    let loader = nodes.iter().find(|node| node["id"] == "CheckpointLoaderSimple").unwrap();
    assert_eq!(loader["inputs"][0]["choices"]["files"]["kind"], "checkpoints");
}

#[test]
fn values_go_in_and_come_out() {
    let json = json!({
        "z": [1, -9223372036854775808i64, 18446744073709551615u64, 2.5, "ü\u{0}", true, null, [], {}],
        "a": {"b": {"c": [[1]]}},
    });
    let value = Value::new(&json);
    assert_eq!(value.json(), json);
    assert_eq!(((c().value_get_kind)(value.0), (c().value_count)(value.0)), (7, 2));
    let name = |index| text(|out| (c().map_name_at)(value.0, index, out));
    assert_eq!((name(0).unwrap().as_str(), name(1).unwrap().as_str()), ("a", "z"), "by name");
    let list = value.at(1);
    drop(value);
    let kinds: Vec<_> = (0..9).map(|index| (c().value_get_kind)(list.at(index).0)).collect();
    assert_eq!(kinds, [2, 2, 2, 3, 4, 1, 0, 6, 7]);
    assert_eq!((c().value_count)(list.at(4).0), 0);

    let list = Value(answer(|out| (c().list_new)(out)).unwrap());
    for item in [json!(1), json!({"x": 2})] {
        checked((c().list_push)(list.0, Value::new(&item).0)).unwrap();
    }
    checked((c().list_push)(list.0, list.0)).unwrap();
    assert_eq!(list.json(), json!([1, {"x": 2}, [1, {"x": 2}]]), "a list in itself is a copy");
    let map = Value(answer(|out| (c().map_new)(out)).unwrap());
    let map = map.with("k", &list).with("k", &list.at(0)).with("ü", &list.at(0));
    assert_eq!(map.json(), json!({"k": 1, "ü": 1}));
}

#[test]
fn values_that_are_asked_for_what_they_are_not() {
    let at = |value: &Value, index| answer::<CValue>(|out| (c().value_at)(value.0, index, out));
    let (list, map, text_value) =
        (Value::new(&json!([1])), Value::new(&json!({"a\u{0}": 1})), Value::new(&json!("x")));
    failed(at(&list, 1), INVALID_INPUT, "there is no item 1 in a list of 1");
    failed(at(&map, usize::MAX), INVALID_INPUT, "there is no item");
    failed(at(&text_value, 0), INVALID_INPUT, "should be a list or a map, found STRING \"x\"");
    failed(
        text(|out| (c().map_name_at)(list.0, 0, out)),
        INVALID_INPUT,
        "`map` should be a map, found list of 1",
    );
    failed(text(|out| (c().map_name_at)(map.0, 0, out)), INVALID_INPUT, "holds a zero byte");
    failed(text(|out| (c().handle_type)(map.0, out)), INVALID_INPUT, "`handle` should be a handle");
    failed(checked((c().list_push)(map.0, list.0)), INVALID_INPUT, "`list` should be a list");
    failed(checked((c().map_set)(list.0, c"a".as_ptr(), map.0)), INVALID_INPUT, "`map` should be a map");
    failed(
        checked((c().value_tensor)(list.0, &mut empty_tensor())),
        INVALID_INPUT,
        "`value` should be a tensor",
    );
    let parse = |json: &str| {
        let json = CString::new(json).unwrap();
        answer::<CValue>(|out| (c().value_from_json)(json.as_ptr(), out))
    };
    for wrong in ["", "{", "[1,]", "1 2", "nan", "1e999"] {
        failed(parse(wrong), INVALID_INPUT, "`json` is not JSON");
    }
    failed(parse(&"[".repeat(100_000)), INVALID_INPUT, "recursion limit");
    let mut deep = Value::new(&json!([]));
    let result = (0..1000).try_for_each(|_| {
        let next = Value::new(&json!([]));
        checked((c().list_push)(next.0, deep.0))?;
        deep = next;
        Ok(())
    });
    failed(result, INVALID_INPUT, "128 levels");
}

/// Counts how often a tensor's memory is released; each test has its own counter.
extern "C" fn count(context: *mut c_void) {
    // SAFETY: the tests lend with a counter that lives for ever.
    unsafe { &*context.cast::<AtomicUsize>() }.fetch_add(1, Ordering::SeqCst);
}

fn counter() -> &'static AtomicUsize {
    Box::leak(Box::default())
}

fn lend(tensor: &CTensor, bytes: u64, counter: &'static AtomicUsize) -> Result<Value, Failure> {
    let context = (&raw const *counter).cast_mut().cast();
    answer(|out| (c().value_from_tensor)(tensor, bytes, Some(count), context, out)).map(Value)
}

/// `numbers`, to be read with other shapes and strides.
fn tensor(numbers: &[f32], shape: &[i64], strides: Option<&[i64]>) -> CTensor {
    CTensor {
        data: numbers.as_ptr().cast_mut().cast(),
        ndim: shape.len() as i32,
        shape: shape.as_ptr(),
        strides: strides.map_or(null(), <[i64]>::as_ptr),
        ..empty_tensor()
    }
}

/// The numbers behind a value, in the order in which they lie.
fn numbers(value: &Value) -> Vec<f32> {
    let tensor = value.tensor();
    // SAFETY: the fields of a tensor of the library are sound, and this is used for contiguous ones of f32.
    unsafe {
        let shape = std::slice::from_raw_parts(tensor.shape, tensor.ndim as usize);
        let data = tensor.data.cast::<u8>().add(tensor.byte_offset as usize).cast::<f32>();
        std::slice::from_raw_parts(data, shape.iter().product::<i64>() as usize).to_vec()
    }
}

#[test]
fn a_lent_tensor_is_not_copied_and_released_once() {
    let released = counter();
    let data = [0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0];
    // Two rows of two, beginning with the last number but one of the first row, backwards.
    let shape = [2, 2];
    let strides = [3, -1];
    let lent = CTensor { byte_offset: 4, ..tensor(&data, &shape, Some(&strides)) };
    let value = lend(&lent, 24, released).unwrap();
    let view = value.tensor();
    assert_eq!(view.data, lent.data);
    assert_eq!((view.ndim, view.dtype, view.device_type, view.byte_offset), (2, F32, 1, 4));
    // SAFETY: borrowed from the value, two entries each.
    let (sizes, steps) =
        unsafe { (std::slice::from_raw_parts(view.shape, 2), std::slice::from_raw_parts(view.strides, 2)) };
    assert_eq!((sizes, steps), (&shape[..], &strides[..]));
    assert_eq!(value.json(), json!({"tensor": [2, 2], "dtype": "f32"}));

    let copy = answer(|out| (c().value_from_tensor_copy)(&value.tensor(), 24, out)).map(Value).unwrap();
    assert_eq!(numbers(&copy), [1.0, 0.0, 4.0, 3.0]);
    let map = Value::new(&json!({})).with("a", &value).with("b", &value);
    drop(value);
    let item = map.at(1);
    drop(map);
    assert_eq!(released.load(Ordering::SeqCst), 0, "one reference is left");
    drop(item);
    assert_eq!(released.load(Ordering::SeqCst), 1);
    assert_eq!(numbers(&copy)[0], 1.0);

    // Nothing to release, and nothing to point at.
    drop(Value(answer(|out| (c().value_from_tensor)(&lent, 24, None, null_mut(), out)).unwrap()));
    let none = lend(&tensor(&[], &[0, 3], None), 0, released).unwrap();
    assert_eq!(none.json()["tensor"], json!([0, 3]));
    drop(
        answer(|out| {
            (c().value_from_tensor_copy)(&CTensor { data: null_mut(), ..tensor(&[], &[0], None) }, 0, out)
        })
        .map(Value)
        .unwrap(),
    );
    drop(none);
    assert_eq!(released.load(Ordering::SeqCst), 2);
    assert_eq!(numbers(&lend(&tensor(&data, &[], None), 4, released).unwrap()), [0.0], "a single number");
}

#[test]
fn a_tensor_that_is_refused_stays_with_its_owner() {
    let released = counter();
    let data = [0.0_f32; 6];
    let good = tensor(&data, &[2, 3], None);
    let refused = |tensor: &CTensor, bytes, code, wanted: &str| {
        failed(lend(tensor, bytes, released), code, wanted);
        failed(answer::<CValue>(|out| (c().value_from_tensor_copy)(tensor, bytes, out)), code, wanted);
    };
    refused(&good, 23, INVALID_INPUT, "reaches bytes 0..24 of 23");
    refused(&CTensor { byte_offset: 1, ..good }, 24, INVALID_INPUT, "1..25 of 24");
    refused(
        &CTensor { dtype: CDType { code: 5, bits: 64, lanes: 1 }, ..good },
        24,
        INVALID_INPUT,
        "code 5, 64 bits",
    );
    refused(&CTensor { dtype: CDType { lanes: 4, ..F32 }, ..good }, 24, INVALID_INPUT, "4 lanes");
    refused(&CTensor { ndim: -1, ..good }, 24, INVALID_INPUT, "0 to 64 dimensions, not -1");
    refused(&CTensor { ndim: 65, ..good }, 24, INVALID_INPUT, "0 to 64 dimensions, not 65");
    refused(&CTensor { shape: null(), ..good }, 24, INVALID_INPUT, "`tensor->shape` is NULL");
    refused(&CTensor { data: null_mut(), ..good }, 24, INVALID_INPUT, "data pointer is null");
    refused(&good, u64::MAX, INVALID_INPUT, "`byte_length`");
    refused(&tensor(&data, &[-1, 3], None), 24, INVALID_INPUT, "-1");
    refused(&tensor(&data, &[i64::MAX, i64::MAX], None), 24, INVALID_INPUT, "");
    refused(&tensor(&data, &[2, 3], Some(&[i64::MAX, 1])), 24, INVALID_INPUT, "");
    refused(&tensor(&data, &[2, 3], Some(&[-3, 1])), 24, INVALID_INPUT, "reaches bytes -12");
    let elsewhere = CTensor { device_type: 2, ..good };
    failed(
        answer::<CValue>(|out| (c().value_from_tensor_copy)(&elsewhere, 24, out)),
        INCOMPATIBLE,
        "device type 2",
    );
    assert_eq!(released.load(Ordering::SeqCst), 0);
}

#[test]
fn null_and_broken_text_are_errors_that_name_the_argument() {
    let (none, value, job): (*mut CValue, _, *mut CJob) = (null_mut(), Value::new(&json!({})), null_mut());
    let (v, t, tensor) = (value.0, c"{}".as_ptr(), empty_tensor());
    let mut out = null_mut();
    let broken = c"\xff\xfe".as_ptr();
    let c = c();
    for (error, wanted) in [
        ((c.info_json)(null_mut()), "`out` is NULL"),
        ((c.nodes_json)(null_mut()), "`out` is NULL"),
        ((c.value_from_json)(null(), &mut out), "`json` is NULL"),
        ((c.value_from_json)(t, null_mut()), "`out` is NULL"),
        ((c.value_from_json)(broken, &mut out), "`json` is not UTF-8"),
        ((c.value_to_json)(none, null_mut()), "`value` is NULL"),
        ((c.value_to_json)(v, null_mut()), "`out` is NULL"),
        ((c.value_from_tensor)(null(), 0, None, null_mut(), &mut out), "`tensor` is NULL"),
        ((c.value_from_tensor)(&tensor, 0, None, null_mut(), null_mut()), "`out` is NULL"),
        ((c.value_from_tensor_copy)(null(), 0, &mut out), "`tensor` is NULL"),
        ((c.value_tensor)(none, null_mut()), "`value` is NULL"),
        ((c.list_new)(null_mut()), "`out` is NULL"),
        ((c.list_push)(none, v), "`list` is NULL"),
        ((c.list_push)(v, none), "`item` is NULL"),
        ((c.map_new)(null_mut()), "`out` is NULL"),
        ((c.map_set)(none, t, v), "`map` is NULL"),
        ((c.map_set)(v, null(), v), "`name` is NULL"),
        ((c.map_set)(v, broken, v), "`name` is not UTF-8"),
        ((c.map_set)(v, t, none), "`item` is NULL"),
        ((c.value_at)(none, 0, &mut out), "`value` is NULL"),
        ((c.map_name_at)(none, 0, null_mut()), "`map` is NULL"),
        ((c.handle_type)(none, null_mut()), "`handle` is NULL"),
        ((c.node_validate)(null(), v, t), "`node_id` is NULL"),
        ((c.node_validate)(t, none, t), "`inputs` is NULL"),
        ((c.node_validate)(t, v, null()), "`host_json` is NULL"),
        ((c.node_validate)(broken, v, t), "`node_id` is not UTF-8"),
        ((c.node_fingerprint)(t, none, t, null_mut()), "`inputs` is NULL"),
        ((c.job_start)(null(), none, null(), null_mut()), "`node_id` is NULL"),
        ((c.job_start)(c"VocableLoadConceptImages".as_ptr(), v, t, null_mut()), "`out` is NULL"),
        (
            (c.job_start)(c"VocableLoadConceptImages".as_ptr(), v, broken, null_mut()),
            "`host_json` is not UTF-8",
        ),
        ((c.import_start)(1, none, v, t, null_mut()), "`tensors` is NULL"),
        ((c.import_start)(1, v, none, t, null_mut()), "`settings` is NULL"),
        ((c.import_start)(1, v, v, null(), null_mut()), "`host_json` is NULL"),
        ((c.import_start)(1, v, v, t, null_mut()), "`out` is NULL"),
        ((c.job_poll)(job, 0, null_mut()), "`job` is NULL"),
        ((c.job_take_outputs)(job, null_mut(), null_mut()), "`job` is NULL"),
    ] {
        failed(checked(error), INVALID_INPUT, wanted);
    }
    assert!(out.is_null(), "nothing was written");
    (c.string_free)(null_mut());
    (c.value_free)(none);
    (c.error_free)(null_mut());
    (c.event_free)(null_mut());
    (c.job_cancel)(job);
    (c.job_free)(job);
    assert_eq!(((c.error_code)(null()), (c.value_get_kind)(none), (c.value_count)(none)), (0, 0, 0));
    assert_eq!(((c.event_get_kind)(null()), (c.event_step)(null()), (c.event_total)(null())), (0, 0, 0));
    assert!((c.event_level)(null()) == 0 && (c.event_picture)(null(), null_mut(), null_mut()).is_null());
    for text in
        [(c.error_message)(null()), (c.error_help)(null()), (c.error_causes)(null()), (c.event_text)(null())]
    {
        // SAFETY: text that ends with a zero byte.
        assert_eq!(unsafe { *text }, 0);
    }
}

#[test]
fn inputs_are_checked_as_in_a_workflow() {
    let home = Home::new();
    let check = |node: &str, inputs: Json, linked: &[&str]| {
        let mut host = home.host();
        host["linked"] = json!(linked);
        let (node, host) = (CString::new(node).unwrap(), CString::new(host.to_string()).unwrap());
        checked((c().node_validate)(node.as_ptr(), Value::new(&inputs).0, host.as_ptr()))
    };
    let trainer = "VocableTrainTextualInversion";
    let links = ["model", "clip", "vae", "concept"];
    let good = json!({"placeholder": "<x>", "init_words": "cat", "vectors": "2", "preset": "recommended", "seed": u64::MAX});
    let with = |name: &str, value: Json| {
        let mut inputs = good.clone();
        inputs[name] = value;
        inputs
    };
    check(trainer, good.clone(), &links).unwrap();
    failed(check(trainer, good.clone(), &links[1..]), INVALID_INPUT, "Required input is missing: model");
    failed(
        check(trainer, with("steps", json!(100_001)), &links),
        INVALID_INPUT,
        "Value 100001 bigger than max of 100000: steps",
    );
    failed(
        check(trainer, with("preset", json!("x")), &links),
        INVALID_INPUT,
        "preset: 'x' not in [\"recommended\"",
    );
    failed(
        check(trainer, with("model", json!("x")), &["clip", "vae", "concept"]),
        INVALID_INPUT,
        "it needs a link",
    );
    let mut adam = with("optimiser", json!("adam"));
    adam["weight_decay"] = json!(0.5);
    failed(
        check(trainer, adam, &links),
        INVALID_INPUT,
        "VocableTrainTextualInversion: input `weight_decay` is 0.5",
    );
    failed(check("VocableSaveEmbedding", json!({"filename": "a/b"}), &["embedding"]), INVALID_INPUT, "a/b");
    failed(check("VocableNothing", json!({}), &[]), NOT_FOUND, "node type `VocableNothing` is not known");
    failed(check(trainer, json!([]), &[]), INVALID_INPUT, "`inputs` should be a map, found list of 0");
    // The job says the same.
    let result = home.run("CheckpointLoaderSimple", &Value::new(&json!({"ckpt_name": "no"})));
    failed(result, INVALID_INPUT, "CheckpointLoaderSimple: Value not in list: ckpt_name: 'no' not in [");
    let result = Job::start("EmptyLatentImage", &Value::new(&json!({})), &json!({"threads": "four"}));
    failed(result.map(drop), INVALID_INPUT, "field `threads` of `host_json`");
}

#[test]
fn a_fingerprint_follows_the_files() {
    let home = Home::new();
    let pictures = home.0.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let picture = |name: &str| image::RgbImage::new(64, 64).save(pictures.join(name)).unwrap();
    picture("a.png");
    let host = CString::new(json!({"folders": {"input": [home.0.path()]}}).to_string()).unwrap();
    let inputs = Value::new(&json!({"folder": ["pictures"]}));
    let node = c"VocableLoadConceptImages".as_ptr();
    let fingerprint = || text(|out| (c().node_fingerprint)(node, inputs.0, host.as_ptr(), out)).unwrap();
    let before = fingerprint();
    assert_eq!(fingerprint(), before);
    picture("b.png");
    assert_ne!(fingerprint(), before);
}

#[test]
fn a_word_is_learned_and_its_events_come_in_order() {
    let home = Home::new();
    let job = home.start("VocableTrainTextualInversion", &home.learn(3)).unwrap();
    failed(job.take(), INVALID_INPUT, "not done");
    let events = job.events();
    assert_eq!(job.poll(0), Some(Event::Done), "again and again");
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).expect("an event");
    let learning = place(&|event| matches!(event, Event::Log(2, text) if text.starts_with("learning <x>")));
    let learned = place(&|event| matches!(event, Event::Log(2, text) if text.starts_with("learned <x>")));
    let step = place(&|event| matches!(event, Event::Progress { step: 3, total: 3, .. }));
    assert!(learning < step && learning < learned && learned < events.len() - 1, "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Status(_))));
    let pictures =
        events.iter().filter(|event| matches!(event, Event::Progress { picture: Some((64, 64)), .. }));
    assert!(pictures.count() > 0, "{events:?}");

    let (outputs, ui) = job.take().unwrap();
    assert!(ui.unwrap().contains("<x>: clip_l"));
    failed(job.take(), INVALID_INPUT, "taken already");
    let outputs_json = outputs.json();
    assert_eq!(outputs_json[0][0]["name"], "<x>");
    assert_eq!(outputs_json[1]["loss"].as_array().unwrap().len(), 3);
    drop(job);
    // What came out lives on, and goes into the next node.
    let saved =
        home.run("VocableSaveEmbedding", &Value::new(&json!({})).with("embedding", &outputs.at(0))).unwrap();
    assert!(saved.json()[0].as_str().unwrap().ends_with("x.safetensors"));
    assert_eq!(files(home.0.path()), ["vocable_runs", "x.safetensors"]);
}

/// Polls until training goes on.
fn wait_for_steps(job: &Job) {
    loop {
        match job.poll(60_000) {
            Some(Event::Progress { step: 2.., total: 100_000, .. }) => return,
            Some(Event::Done) => panic!("{:?}", job.take().err()),
            _ => {}
        }
    }
}

#[test]
fn cancel_keeps_what_was_learned_and_freeing_does_not_wait() {
    let home = Home::new();
    let inputs = home.learn(100_000);
    let job = home.start("VocableTrainTextualInversion", &inputs).unwrap();
    wait_for_steps(&job);
    let start = Instant::now();
    job.cancel();
    job.events();
    // A second on a quiet machine; this one may be busy with other tests.
    assert!(start.elapsed() < Duration::from_secs(5), "cancel took {:?}", start.elapsed());
    let failure = job.take().unwrap_err();
    assert_eq!(failure.code, CANCELLED);
    assert!(failure.help.contains("are kept in"), "{failure:?}");
    let runs = home.0.path().join("vocable_runs");
    let run = runs.join(&files(&runs)[0]);
    assert!(files(&run).iter().any(|name| name.starts_with("x-") && name.ends_with(".safetensors")));
    failed(job.take(), CANCELLED, "cancelled");

    let job = home.start("VocableTrainTextualInversion", &inputs).unwrap();
    wait_for_steps(&job);
    let start = Instant::now();
    drop(job);
    assert!(start.elapsed() < Duration::from_secs(1), "freeing waited {:?}", start.elapsed());
    // It never knew of it: the same objects still work.
    let (_, outputs) = (
        inputs,
        home.run("EmptyLatentImage", &Value::new(&json!({"width": 64, "height": 64, "batch_size": 2}))),
    );
    assert_eq!(outputs.unwrap().json()[0]["samples"]["tensor"], json!([2, 4, 8, 8]));
}

#[test]
fn weights_of_the_host_become_a_handle_and_are_given_back() {
    let home = Home::new();
    let vae = tiny().join("vae");
    let bytes = std::fs::read(vae.join("diffusion_pytorch_model.safetensors")).unwrap().leak();
    let file = SafeTensors::deserialize(bytes).unwrap();
    let released = counter();
    let mut tensors = Value::new(&json!({}));
    for (name, view) in file.tensors() {
        assert_eq!(view.dtype(), safetensors::Dtype::F16);
        let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
        let data = view.data().as_ptr().cast_mut().cast();
        let lent = CTensor { data, dtype: CDType { bits: 16, ..F32 }, ..tensor(&[], &shape, None) };
        tensors = tensors.with(&name, &lend(&lent, view.data().len() as u64, released).unwrap());
    }
    let import = |kind, tensors: &Value, settings: &Json| {
        let host = CString::new(home.host().to_string()).unwrap();
        let settings = Value::new(settings);
        answer(|out| (c().import_start)(kind, tensors.0, settings.0, host.as_ptr(), out)).map(Job)
    };
    let config = std::fs::read_to_string(vae.join("config.json")).unwrap();
    let settings = json!({"config": config});
    failed(
        import(4, &tensors, &settings).map(drop),
        INVALID_INPUT,
        "`state_kind` should be 1, 2 or 3, found 4",
    );
    let result = import(3, &Value::new(&json!({"w": 1})), &settings).map(drop);
    failed(result, INVALID_INPUT, "`tensors[\"w\"]` should be a tensor, found INT 1");
    let refused = import(3, &tensors, &json!({"config": config, "quantisation": "int8"})).unwrap();
    failed(refused.finish().map(drop), INCOMPATIBLE, "`quantisation` of a VAE");

    let job = import(3, &tensors, &settings).unwrap();
    drop(tensors);
    job.events();
    assert_eq!(released.load(Ordering::SeqCst), file.len(), "before the outputs are taken");
    let (outputs, _) = job.take().unwrap();
    let handle = outputs.at(0);
    assert_eq!(text(|out| (c().handle_type)(handle.0, out)).unwrap(), "VAE");
    assert_eq!(handle.json(), json!({"handle": "VAE"}));

    // It decodes what the checkpoint's own decodes, to the same picture.
    let latent = home
        .run("EmptyLatentImage", &Value::new(&json!({"width": 64, "height": 64, "batch_size": 1})))
        .unwrap();
    let checkpoint = home.run("CheckpointLoaderSimple", &Value::new(&json!({"ckpt_name": "tiny"}))).unwrap();
    let decode = |vae: &Value| {
        let inputs = Value::new(&json!({})).with("samples", &latent.at(0)).with("vae", vae);
        numbers(&home.run("VAEDecode", &inputs).unwrap().at(0))
    };
    assert_eq!(decode(&handle), decode(&checkpoint.at(2)));
    let result = home.run(
        "VAEDecode",
        &Value::new(&json!({})).with("samples", &latent.at(0)).with("vae", &checkpoint.at(0)),
    );
    failed(result, INCOMPATIBLE, "input `vae`");
}
