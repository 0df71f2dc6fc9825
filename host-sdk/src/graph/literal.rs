//! Values that stand in a workflow: whether they fit their input, and what the node gets.

use std::cmp::Ordering;

use serde_json::{Value as Json, json};

use super::coerce::coerce;
use super::problem::Problem;
use crate::abi::{Choices, Folders, InputSpec, Presence, Value, annotated};

/// ComfyUI does not send longer lists of choices along with a problem.
const LONGEST_LIST: usize = 20;

/// What stands for an input that was left out: its default, if it has one. A required one must be there.
pub(super) fn left_out(input: &InputSpec) -> Result<Option<Value>, Box<Problem>> {
    if input.presence == Presence::Required {
        let problem = Problem::new("required_input_missing", "Required input is missing", input.name.clone());
        return Err(problem.info(json!({"input_name": input.name})));
    }
    Ok(input.default.as_ref().and_then(|json| coerce(json, &input.type_name).ok()))
}

/// The value for the node: in its declared type, and whole where it is a relative path.
pub(super) fn literal(input: &InputSpec, json: &Json, folders: &Folders) -> Result<Value, Box<Problem>> {
    let name = &input.name;
    let info =
        || json!({"input_name": name, "input_config": input.object_info(folders), "received_value": json});
    let unfit = |why: String| {
        let message = format!("Failed to convert an input value to a {} value", input.type_name);
        let mut info = info();
        info["exception_message"] = json!(why);
        Problem::new("invalid_input_type", message, format!("{name}, {json}, {why}")).info(info)
    };
    if !input.takes_literals() {
        return Err(unfit("it needs a link to another node".to_string()));
    }
    let value = coerce(json, &input.type_name).map_err(unfit)?;
    let bound = |error_type, word: &str, bound: &Json| {
        let message = format!("Value {json} {word} of {bound}");
        Problem::new(error_type, message, name.clone()).info(info())
    };
    match (&input.min, &input.max) {
        (Some(min), _) if below(&value, min) => {
            return Err(bound("value_smaller_than_min", "smaller than min", min));
        }
        (_, Some(max)) if above(&value, max) => {
            return Err(bound("value_bigger_than_max", "bigger than max", max));
        }
        _ => {}
    }
    match &input.choices {
        None => Ok(value),
        Some(choices) => choose(input, choices, json, folders),
    }
}

/// The choice, or the list of choices, if each can be made.
fn choose(
    input: &InputSpec,
    choices: &Choices,
    json: &Json,
    folders: &Folders,
) -> Result<Value, Box<Problem>> {
    let options = choices.list(folders);
    let one = |value: &Json| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        if options.contains(&text) || is_elsewhere(choices, &text, folders) {
            return Ok(Value::from_json(value));
        }
        whole_path(choices, &text, folders)
            .map(Value::String)
            .ok_or_else(|| not_in_list(input, choices, &options, &text, json, folders))
    };
    match json {
        Json::Array(values) => values.iter().map(one).collect::<Result<_, _>>().map(Value::List),
        value => one(value),
    }
}

/// Whether it names a picture of another folder, as `cat.png [output]`.
fn is_elsewhere(choices: &Choices, name: &str, folders: &Folders) -> bool {
    let Choices::Files { kind, extensions, .. } = choices else { return false };
    annotated(kind, name)
        .is_some_and(|(kind, name)| folders.files(kind, extensions).iter().any(|file| file == name))
}

/// The absolute path of a file that is in none of the folders, where paths are taken.
fn whole_path(choices: &Choices, name: &str, folders: &Folders) -> Option<String> {
    let Choices::Files { accepts_paths: true, .. } = choices else { return None };
    folders.whole_path(name)?.to_str().map(str::to_string)
}

fn not_in_list(
    input: &InputSpec,
    choices: &Choices,
    options: &[String],
    text: &str,
    received: &Json,
    folders: &Folders,
) -> Box<Problem> {
    let is_long = options.len() > LONGEST_LIST;
    let list = match choices {
        Choices::Files { kind, .. } if options.is_empty() => {
            let searched: Vec<_> =
                folders.paths(kind).iter().map(|path| path.display().to_string()).collect();
            format!("the folder for {kind}, which has no such files ({})", searched.join(", "))
        }
        _ if is_long => format!("(list of length {})", options.len()),
        _ => format!("{options:?}"),
    };
    let config = if is_long { Json::Null } else { input.object_info(folders) };
    let details = format!("{}: '{text}' not in {list}", input.name);
    Problem::new("value_not_in_list", "Value not in list", details)
        .info(json!({"input_name": input.name, "input_config": config, "received_value": received}))
}

fn below(value: &Value, bound: &Json) -> bool {
    compare(value, bound).is_some_and(Ordering::is_lt)
}

fn above(value: &Value, bound: &Json) -> bool {
    compare(value, bound).is_some_and(Ordering::is_gt)
}

/// Whole numbers are compared as such: seeds do not fit into an f64.
fn compare(value: &Value, bound: &Json) -> Option<Ordering> {
    match (value, Value::from_json(bound)) {
        (Value::Int(value), Value::Int(bound)) => Some(value.cmp(&bound)),
        (value, bound) => value.as_float()?.partial_cmp(&bound.as_float()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_compared_exactly() {
        assert!(!above(&Value::Int(u64::MAX.into()), &json!(u64::MAX)));
        assert!(above(&Value::Int(u64::MAX.into()), &json!(u64::MAX - 1)));
        assert!(below(&Value::Float(0.5), &json!(1)));
    }

    #[test]
    fn the_config_of_a_long_list_is_left_out() {
        let config = |count: usize| {
            let input = InputSpec::combo("x", (0..count).map(|index| index.to_string()));
            let problem = literal(&input, &json!("none"), &Folders::new()).unwrap_err();
            assert_eq!(problem.error_type, "value_not_in_list");
            assert_eq!(problem.extra_info["input_name"], "x");
            assert_eq!(problem.extra_info["received_value"], "none");
            (problem.extra_info["input_config"].clone(), problem.details)
        };
        let (short, details) = config(20);
        assert_eq!(short, InputSpec::combo("x", (0..20).map(|i| i.to_string())).object_info(&Folders::new()));
        assert!(details.contains("\"19\""), "{details}");
        assert_eq!(config(21), (Json::Null, "x: 'none' not in (list of length 21)".to_string()));
    }

    #[test]
    fn a_path_becomes_whole_and_a_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["input", "output", "here"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join(format!("{folder}.png")), b"").unwrap();
        }
        let folders = Folders::new()
            .with("input", dir.path().join("input"))
            .with("output", dir.path().join("output"))
            .with_base(dir.path());
        let listed = InputSpec::files("image", "input", ["png"]);
        let found = |input: &InputSpec, json: Json| {
            literal(input, &json, &folders).map(|value| value.to_json()).map_err(|problem| problem.details)
        };
        let open = listed.clone().accepts_paths();
        let whole = dir.path().join("here").join("here.png").to_str().unwrap().to_string();
        assert_eq!(found(&open, json!("input.png")), Ok(json!("input.png")));
        assert_eq!(found(&open, json!("output.png [output]")), Ok(json!("output.png [output]")));
        assert_eq!(found(&open, json!("here/here.png")), Ok(json!(whole)));
        assert_eq!(found(&open, json!(["input.png", whole])), Ok(json!(["input.png", whole])));
        assert!(found(&listed, json!("here/here.png")).is_err() && found(&listed, json!(whole)).is_err());
        for missing in ["", "here.png", "input.png [output]", "../none.png"] {
            assert!(
                found(&open, json!(missing)).unwrap_err().contains("not in [\"input.png\"]"),
                "{missing}"
            );
        }
    }
}
