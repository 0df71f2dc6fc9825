//! Literals of a workflow, brought to the type that their input declares, as ComfyUI does it.

use serde_json::Value as Json;

use crate::abi::Value;

/// The value in its declared type, or what is wrong with it. Types that are not primitive are taken as they are.
///
/// As Python's `int()`, `float()`, `str()` and `bool()`, with one difference: the text `false` is not true.
pub(super) fn coerce(json: &Json, type_name: &str) -> Result<Value, String> {
    match type_name {
        "INT" => to_int(json).map(Value::Int),
        "FLOAT" => to_float(json).map(Value::Float),
        "STRING" => to_text(json).map(Value::String),
        "BOOLEAN" => to_bool(json).map(Value::Bool),
        _ => Ok(Value::from_json(json)),
    }
}

fn to_int(json: &Json) -> Result<i128, String> {
    let value = match json {
        Json::Bool(value) => i128::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => value.into(),
            (_, Some(value), _) => value.into(),
            (.., Some(value)) if value.abs() < 2_f64.powi(64) => value.trunc() as i128,
            _ => return Err(format!("{number} is out of range")),
        },
        Json::String(text) => text.trim().parse().map_err(|_| format!("{text:?} is not a whole number"))?,
        other => return Err(format!("{other} is not a whole number")),
    };
    if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{value} is out of range"))
    }
}

fn to_float(json: &Json) -> Result<f64, String> {
    match json {
        Json::Bool(value) => Ok(f64::from(u8::from(*value))),
        Json::Number(number) => number.as_f64().ok_or_else(|| format!("{number} is out of range")),
        Json::String(text) => {
            let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| format!("{text:?} is not a finite number"))
        }
        other => Err(format!("{other} is not a number")),
    }
}

fn to_text(json: &Json) -> Result<String, String> {
    match json {
        Json::String(text) => Ok(text.clone()),
        Json::Number(number) => Ok(number.to_string()),
        Json::Bool(true) => Ok("True".to_string()),
        Json::Bool(false) => Ok("False".to_string()),
        other => Err(format!("{other} is not text")),
    }
}

fn to_bool(json: &Json) -> Result<bool, String> {
    match json {
        Json::Bool(value) => Ok(*value),
        Json::Number(number) => Ok(number.as_f64() != Some(0.0)),
        Json::String(text) => Ok(!text.is_empty() && !text.trim().eq_ignore_ascii_case("false")),
        other => Err(format!("{other} is not a switch")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_are_coerced_as_comfyui_does() {
        let check = |json: Json, type_name: &str, expected: Result<Value, &str>| {
            let found = coerce(&json, type_name);
            match expected {
                Ok(value) => {
                    assert_eq!(format!("{found:?}"), format!("{:?}", Ok::<_, String>(value)), "{json}")
                }
                Err(why) => assert!(found.clone().unwrap_err().contains(why), "{json}: {found:?}"),
            }
        };
        check(json!("20"), "INT", Ok(Value::Int(20)));
        check(json!(20.9), "INT", Ok(Value::Int(20)));
        check(json!(u64::MAX), "INT", Ok(Value::Int(u64::MAX.into())));
        check(json!("18446744073709551616"), "INT", Err("out of range"));
        check(json!("20.5"), "INT", Err("not a whole number"));
        check(json!(1e300), "INT", Err("out of range"));
        check(json!(null), "INT", Err("not a whole number"));
        check(json!("0.5"), "FLOAT", Ok(Value::Float(0.5)));
        check(json!(2), "FLOAT", Ok(Value::Float(2.0)));
        check(json!("x"), "FLOAT", Err("not a finite number"));
        check(json!(7), "STRING", Ok(Value::String("7".into())));
        check(json!({}), "STRING", Err("not text"));
        check(json!("False"), "BOOLEAN", Ok(Value::Bool(false)));
        check(json!(1), "BOOLEAN", Ok(Value::Bool(true)));
        check(json!([]), "BOOLEAN", Err("not a switch"));
        check(json!([1]), "OTHER", Ok(Value::List(vec![Value::Int(1)])));
    }
}
