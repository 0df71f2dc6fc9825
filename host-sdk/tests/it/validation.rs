use serde_json::{Value as Json, json};
use vocable_host_sdk::abi::{Folders, Value};

use crate::nodes::{World, workflow};

/// Validates and gives ComfyUI's answer.
fn answer(nodes: Json) -> Json {
    let validation = World::new().executor.validate(&workflow(nodes), None);
    assert_eq!(validation.can_run(), validation.error.is_none());
    validation.to_json()
}

/// A number with these inputs, shown.
fn number(inputs: Json) -> Json {
    json!({"1": {"class_type": "Number", "inputs": inputs},
           "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})
}

/// The one problem of node `id`.
fn problem(nodes: Json, id: &str) -> Json {
    let answer = answer(nodes);
    assert_eq!(answer["error"]["type"], "prompt_outputs_failed_validation");
    let errors =
        answer["node_errors"][id]["errors"].as_array().unwrap_or_else(|| panic!("{answer:#}")).clone();
    assert_eq!(errors.len(), 1, "{answer:#}");
    errors[0].clone()
}

#[test]
fn a_sound_workflow_is_valid() {
    let answer = answer(number(json!({"value": 5})));
    assert_eq!(answer, json!({"error": null, "node_errors": {}}));
}

#[test]
fn each_problem_has_comfyuis_type_and_fields() {
    let rows = [
        (json!({}), "required_input_missing", "value"),
        (json!({"value": "five"}), "invalid_input_type", "value, \"five\""),
        (json!({"value": -1}), "value_smaller_than_min", "value"),
        (json!({"value": 1001}), "value_bigger_than_max", "value"),
        (json!({"value": 1, "unit": "mile"}), "value_not_in_list", "unit: 'mile' not in [\"cm\", \"inch\"]"),
        (json!({"value": 1, "file": "no.txt"}), "value_not_in_list", "the folder for input"),
        (json!({"value": ["9", 0]}), "bad_linked_input", "no node 9"),
        (json!({"value": ["1"]}), "bad_linked_input", "value"),
        (json!({"value": ["2", 1]}), "bad_linked_input", "slot 1"),
        (json!({"value": 13}), "custom_validation_failed", "value - 13 is unlucky"),
        (json!({"value": 666}), "exception_during_validation", "devilish"),
    ];
    for (inputs, error_type, details) in rows {
        let nodes = if error_type == "bad_linked_input" && details == "slot 1" {
            json!({"1": {"class_type": "Number", "inputs": {"value": ["3", 1]}},
                   "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}},
                   "3": {"class_type": "Add", "inputs": {"a": 1, "b": 2}}})
        } else {
            number(inputs.clone())
        };
        let problem = problem(nodes, "1");
        assert_eq!(problem["type"], error_type, "{inputs}: {problem:#}");
        assert!(problem["details"].as_str().unwrap().contains(details), "{inputs}: {problem:#}");
        assert!(!problem["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn extra_info_names_input_and_value() {
    let problem = problem(number(json!({"value": 2000})), "1");
    let info = &problem["extra_info"];
    assert_eq!(info["input_name"], "value");
    assert_eq!(info["received_value"], 2000);
    assert_eq!(info["input_config"], json!(["INT", {"default": 1, "min": 0, "max": 1000}]));
}

#[test]
fn a_choice_that_is_not_there_comes_with_the_config() {
    let problem = problem(number(json!({"value": 1, "unit": "mile"})), "1");
    assert_eq!(
        problem["extra_info"],
        json!({"input_name": "unit", "input_config": [["cm", "inch"], {"default": "cm"}], "received_value": "mile"})
    );
}

#[test]
fn what_the_node_itself_refuses_names_the_input_if_it_says_so() {
    let problem = problem(number(json!({"value": 13})), "1");
    assert_eq!(problem["extra_info"]["input_name"], "value");
    assert_eq!(problem["extra_info"]["exception_type"], "InvalidInput");
    assert_eq!(problem["details"], "value - 13 is unlucky\n  help: Take 12.");
    let problem = self::problem(number(json!({"value": 14})), "1");
    assert_eq!(problem["extra_info"]["input_name"], json!(null));
    assert_eq!(problem["details"], "14 is not liked");
}

#[test]
fn types_of_links_are_compared() {
    let nodes = json!({"1": {"class_type": "Number", "inputs": {"value": 1}},
                       "2": {"class_type": "Add", "inputs": {"a": ["1", 1], "b": ["1", 0]}},
                       "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}});
    let problem = problem(nodes, "2");
    assert_eq!(problem["type"], "return_type_mismatch");
    assert_eq!(problem["details"], "a, received_type(STRING) mismatch input_type(INT,FLOAT)");
    assert_eq!(problem["extra_info"]["linked_node"], json!(["1", 1]));
}

#[test]
fn a_model_cannot_be_typed_in() {
    let problem = problem(json!({"1": {"class_type": "UseModel", "inputs": {"model": "sd15"}}}), "1");
    assert_eq!(problem["type"], "invalid_input_type");
    assert!(problem["details"].as_str().unwrap().contains("link"));
    // Nor can what another plugin calls by a name of its own.
    let nodes = json!({"1": {"class_type": "UseModel", "inputs": {"model": ["1", 0], "words": "a word"}}});
    let errors = answer(nodes)["node_errors"]["1"]["errors"].clone();
    let words = errors.as_array().unwrap().iter().find(|error| error["extra_info"]["input_name"] == "words");
    assert_eq!(words.unwrap()["type"], "invalid_input_type");
}

#[test]
fn missing_types_and_outputs_stop_everything() {
    let answer = answer(
        json!({"1": {"class_type": "Nmber", "inputs": {}, "_meta": {"title": "N"}}, "2": {"inputs": {}}}),
    );
    assert_eq!(answer["error"]["type"], "missing_node_type");
    assert!(answer["error"]["message"].as_str().unwrap().contains("Did you mean 'Number'?"));
    assert_eq!(
        answer["error"]["extra_info"],
        json!({"node_id": "1", "class_type": "Nmber", "node_title": "N"})
    );
    assert_eq!(answer["node_errors"]["2"]["errors"][0]["type"], "missing_node_type");

    let answer = self::answer(json!({"1": {"class_type": "Number", "inputs": {"value": 1}}}));
    assert_eq!(answer["error"]["type"], "prompt_no_outputs");
    assert_eq!(self::answer(json!({}))["error"]["type"], "prompt_no_outputs");
}

#[test]
fn an_unknown_type_does_not_hide_the_other_problems() {
    let answer = answer(json!({"1": {"class_type": "Number", "inputs": {"value": -1}},
                               "2": {"class_type": "Ad", "inputs": {"a": ["1", 0], "b": ["5", 0]}},
                               "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}},
                               "4": {"class_type": "Show", "inputs": {}},
                               "5": {"class_type": "Number", "inputs": {"value": 1, "unit": "mile"}},
                               "6": {"class_type": "Shw", "inputs": {"x": ["7", 0]}},
                               "7": {"class_type": "Number", "inputs": {}}}));
    assert_eq!(answer["error"]["type"], "missing_node_type");
    let types = |id: &str| -> Vec<&str> {
        let errors = answer["node_errors"][id]["errors"].as_array();
        errors.into_iter().flatten().map(|error| error["type"].as_str().unwrap()).collect()
    };
    assert_eq!(types("1"), ["value_smaller_than_min"]);
    assert_eq!(types("2"), ["missing_node_type"]);
    assert_eq!(types("3"), Vec::<&str>::new(), "its link is sound as far as anyone knows");
    assert_eq!(types("4"), ["required_input_missing"]);
    assert_eq!(types("5"), ["value_not_in_list"]);
    assert_eq!(types("6"), ["missing_node_type"]);
    assert_eq!(types("7"), ["required_input_missing"], "needed by a node of unknown type");
    assert_eq!(answer["node_errors"]["2"]["dependent_outputs"], json!(["3"]));

    let sound = json!({"1": {"class_type": "Number", "inputs": {"value": 1}},
                       "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}},
                       "3": {"class_type": "Shw", "inputs": {}}});
    let validation = World::new().executor.validate(&workflow(sound), None);
    assert!(!validation.can_run() && validation.outputs.is_empty(), "as in ComfyUI nothing runs");
}

#[test]
fn cycles_are_reported_on_every_node_along_them() {
    let answer = answer(json!({"1": {"class_type": "Add", "inputs": {"a": ["2", 0], "b": 1}},
                               "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
                               "3": {"class_type": "Show", "inputs": {"x": ["1", 0]}}}));
    for id in ["1", "2"] {
        assert_eq!(answer["node_errors"][id]["errors"][0]["type"], "dependency_cycle", "{answer:#}");
    }
}

#[test]
fn all_problems_are_found_at_once_and_valid_outputs_survive() {
    let nodes = json!({"1": {"class_type": "Number", "inputs": {"value": -1, "unit": "mile"}},
                       "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}},
                       "3": {"class_type": "Number", "inputs": {"value": 1}},
                       "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}},
                       "5": {"class_type": "Show", "inputs": {}}});
    let validation = World::new().executor.validate(&workflow(nodes), None);
    assert!(validation.can_run());
    assert_eq!(validation.outputs, ["4"]);
    assert_eq!(validation.node_errors["1"].errors.len(), 2);
    assert_eq!(validation.node_errors["1"].dependent_outputs, ["2"]);
    assert_eq!(validation.node_errors["5"].dependent_outputs, ["5"]);
    assert!(validation.to_string().contains("node 1 (Number)"));
}

#[test]
fn files_are_looked_up_anew_and_paths_are_taken_where_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::with_folders(Folders::new().with("input", dir.path()));
    let valid = |file: &str| {
        world.executor.validate(&workflow(number(json!({"value": 1, "file": file}))), None).can_run()
    };
    let path = dir.path().join("a.txt");
    assert!(!valid("a.txt") && !valid(path.to_str().unwrap()));
    std::fs::write(&path, b"").unwrap();
    assert!(valid("a.txt") && valid(path.to_str().unwrap()));
    assert!(!valid("a.txt [output]"));
}

#[test]
fn relative_paths_become_whole_for_the_node_and_stay_in_the_workflow() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), b"").unwrap();
    let world = World::with_folders(Folders::new().with_base(dir.path()));
    let graph = workflow(json!({"1": {"class_type": "Read", "inputs": {"file": "a.txt"}}}));
    let report = world.executor.run(&graph, &world.options).unwrap();
    let seen = |slot: usize| report.value("1", slot).and_then(Value::as_str).unwrap().to_string();
    assert_eq!(seen(0), dir.path().join("a.txt").to_str().unwrap());
    assert_eq!(seen(1), graph.to_json().to_string());
    assert!(!seen(1).contains(dir.path().to_str().unwrap()));
    // Without a base, as in a host that others reach, a relative path is no choice.
    assert!(!World::new().executor.validate(&graph, None).can_run());
}
