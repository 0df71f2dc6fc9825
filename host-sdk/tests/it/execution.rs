use std::time::{Duration, Instant};

use serde_json::json;
use vocable_host_sdk::abi::{ErrorKind, Value};
use vocable_host_sdk::graph::{CancelFlag, RunError, RunOptions, Workflow};

use crate::nodes::{World, workflow};

/// 2 + 3, and 2 again, shown.
fn sums() -> Workflow {
    workflow(json!({"1": {"class_type": "Number", "inputs": {"value": "2"}},
                    "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 3}},
                    "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}},
                    "4": {"class_type": "Show", "inputs": {"x": ["1", 0]}}}))
}

#[test]
fn a_workflow_runs_in_order_and_tells_about_it() {
    let world = World::new();
    let report = world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(report.executed, ["1", "2", "3", "4"]);
    assert_eq!(report.value("3", 0).and_then(Value::as_str), Some("3=5"));
    assert_eq!(report.nodes["4"].ui, Some(json!({"text": ["4=2"]})));
    let events = world.events.take();
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "execution_start",
        "execution_cached",
        "executing",
        "executing",
        "executing",
        "executed",
        "executing",
        "executed",
        "execution_success",
        "executing",
    ];
    assert_eq!(types, expected);
    assert!(events.iter().all(|event| event["data"]["prompt_id"] == json!(report.prompt_id)));
    assert_eq!(events[9]["data"]["node"], json!(null));
}

#[test]
fn a_second_run_repeats_nothing() {
    let world = World::new();
    world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(world.runs(), [1, 1, 2]);
    world.events.take();
    let report = world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(world.runs(), [0, 0, 0]);
    assert_eq!(report.cached, ["1", "2", "3", "4"]);
    assert!(report.nodes["3"].cached);
    assert_eq!(
        world.events.types(),
        ["execution_start", "execution_cached", "executed", "executed", "execution_success", "executing"]
    );
    world.executor.clear_cache();
    world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(world.runs(), [1, 1, 2]);
}

#[test]
fn a_changed_literal_repeats_what_depends_on_it() {
    let world = World::new();
    let mut workflow = sums();
    world.executor.run(&workflow, &world.options).unwrap();
    world.runs();
    workflow.set("Add.b=4", world.executor.registry()).unwrap();
    let report = world.executor.run(&workflow, &world.options).unwrap();
    assert_eq!(world.runs(), [0, 1, 1]);
    assert_eq!(report.value("3", 0).and_then(Value::as_str), Some("3=6"));
    assert_eq!(report.cached, ["1", "4"]);
}

#[test]
fn a_changed_fingerprint_repeats_and_an_unknown_one_always_does() {
    let world = World::new();
    world.executor.run(&sums(), &world.options).unwrap();
    world.runs();
    *world.add.fingerprint.lock().unwrap() = "changed".into();
    world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(world.runs(), [0, 1, 1]);
    *world.add.fingerprint.lock().unwrap() = "unknown".into();
    world.executor.run(&sums(), &world.options).unwrap();
    world.executor.run(&sums(), &world.options).unwrap();
    assert_eq!(world.runs(), [0, 2, 2]);
}

#[test]
fn only_targets_run() {
    let world = World::new();
    let options = RunOptions { targets: Some(vec!["2".into()]), ..world.options.clone() };
    let report = world.executor.run(&sums(), &options).unwrap();
    assert_eq!(report.executed, ["1", "2"]);
    assert_eq!(report.value("2", 0).and_then(Value::as_int), Some(5));
}

#[test]
fn lists_are_mapped_and_gathered() {
    let world = World::new();
    let workflow = workflow(json!({"1": {"class_type": "Spread", "inputs": {"count": 4}},
                                   "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 10}},
                                   "3": {"class_type": "Sum", "inputs": {"numbers": ["2", 0]}},
                                   "4": {"class_type": "Show", "inputs": {"x": ["2", 0]}},
                                   "5": {"class_type": "Show", "inputs": {"x": ["3", 0]}}}));
    let report = world.executor.run(&workflow, &world.options).unwrap();
    assert_eq!(world.runs(), [0, 4, 5]);
    assert_eq!(report.value("5", 0).and_then(Value::as_str), Some("5=46"));
    assert_eq!(report.nodes["4"].ui, Some(json!({"text": ["4=10", "4=11", "4=12", "4=13"]})));
}

#[test]
fn a_failure_stops_what_depends_on_it_and_nothing_else() {
    let world = World::new();
    for (panic, kind, message) in
        [(false, ErrorKind::NotFound, "no file `a`"), (true, ErrorKind::Panicked, "the node lost its nerve")]
    {
        let workflow = workflow(json!({"1": {"class_type": "Fail", "inputs": {"panic": panic}},
                                       "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
                                       "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}},
                                       "4": {"class_type": "Number", "inputs": {"value": 7}},
                                       "5": {"class_type": "Show", "inputs": {"x": ["4", 0]}}}));
        for _ in 0..2 {
            let error = world.executor.run(&workflow, &world.options).unwrap_err();
            assert!(error.to_string().starts_with("node 1 (Fail) failed: "), "{error}");
            let RunError::Failed { report } = error else { panic!("{error}") };
            assert_eq!(report.failures[0].error.kind, kind);
            assert!(report.failures[0].error.message.contains(message));
            assert_eq!(report.skipped, ["2", "3"]);
            assert_eq!(report.value("5", 0).and_then(Value::as_str), Some("5=7"));
        }
        let events = world.events.take();
        let errors: Vec<_> = events.iter().filter(|event| event["type"] == "execution_error").collect();
        assert_eq!(errors.len(), 2, "the failure is not kept");
        assert_eq!(errors[0]["data"]["node_id"], "1");
        assert_eq!(errors[0]["data"]["exception_type"], kind.name());
    }
}

#[test]
fn an_invalid_workflow_does_not_run() {
    let world = World::new();
    let workflow = workflow(json!({"1": {"class_type": "Show", "inputs": {}}}));
    let Err(RunError::Invalid(validation)) = world.executor.run(&workflow, &world.options) else { panic!() };
    assert_eq!(validation.to_json()["node_errors"]["1"]["errors"][0]["type"], "required_input_missing");
    assert!(world.events.take().is_empty());
}

#[test]
fn cancel_stops_within_a_second_and_keeps_what_was_done() {
    let world = World::new();
    let workflow = workflow(json!({"1": {"class_type": "Number", "inputs": {"value": 7}},
                                   "2": {"class_type": "Slow", "inputs": {"x": ["1", 0]}},
                                   "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}}));
    let cancel = CancelFlag::new();
    let options = RunOptions { cancel: cancel.clone(), ..world.options.clone() };
    let started = Instant::now();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(150));
        cancel.cancel();
    });
    let error = world.executor.run(&workflow, &options).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(1));
    stopper.join().unwrap();
    let RunError::Cancelled { node, report, error: said, .. } = error else { panic!("{error}") };
    assert_eq!(node, "2");
    let said = said.unwrap();
    assert_eq!(said.kind, ErrorKind::Cancelled);
    assert!(said.help.ends_with("steps are kept."), "what the node says of it comes along: {said}");
    assert_eq!(report.executed, ["1"]);
    let types = world.events.types();
    assert!(types.contains(&"execution_interrupted".to_string()) && types.contains(&"progress".to_string()));
    assert_eq!(world.runs()[0], 1);

    let error = world.executor.run(&workflow, &options).unwrap_err();
    let between = matches!(&error, RunError::Cancelled { node, error: None, .. } if node == "1");
    assert!(between, "still set: {error}");
    options.cancel.reset();
    let options = RunOptions { targets: Some(vec!["1".into()]), ..options };
    assert_eq!(world.executor.run(&workflow, &options).unwrap().cached, ["1"], "kept");
}
