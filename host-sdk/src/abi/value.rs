//! What travels along a link of the graph.

use std::collections::BTreeMap;

use super::{Handle, TensorBuf};

/// One value. Clones are cheap: tensors and handles are shared, not copied.
///
/// A value may be kept in the host's cache for as long as the host likes and be given to many nodes, so nobody may
/// change what it refers to.
///
/// The types of sockets carry ComfyUI's names and layouts:
///
/// | socket | value |
/// |---|---|
/// | `INT`, `FLOAT`, `STRING`, `BOOLEAN` | `Int`, `Float`, `String`, `Bool` |
/// | `IMAGE` | `Tensor [B,H,W,C]`, f32, 0..1 |
/// | `MASK` | `Tensor [B,H,W]`, f32 |
/// | `LATENT` | `Map {samples: Tensor [B,4,h,w]}`, unscaled |
/// | `CONDITIONING` | `List [[Tensor [1,77k,D], Map {pooled_output, …}], …]` |
/// | `LOSS_MAP` | `Map {loss: List of Float}` |
/// | `MODEL`, `CLIP`, `VAE` | `Handle` |
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing: an optional input that was left out.
    #[default]
    None,
    /// A switch.
    Bool(bool),
    /// A whole number. Wide enough for all of `i64` and all of `u64`, since seeds go up to 18446744073709551615 and
    /// must not wrap. [`Inputs::int`](super::Inputs::int) and [`Inputs::seed`](super::Inputs::seed) narrow it.
    Int(i128),
    /// A number.
    Float(f64),
    /// Text.
    String(String),
    /// A tensor.
    Tensor(TensorBuf),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
    /// An object that only its maker can open.
    Handle(Handle),
}

impl Value {
    /// The value's kind in words that stand in messages, such as `FLOAT` or, for a handle, its type tag.
    pub fn kind(&self) -> &str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "BOOLEAN",
            Self::Int(_) => "INT",
            Self::Float(_) => "FLOAT",
            Self::String(_) => "STRING",
            Self::Tensor(_) => "tensor",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Handle(handle) => handle.type_tag(),
        }
    }

    /// Kind and, where it is short, content: for messages.
    pub fn describe(&self) -> String {
        match self {
            Self::Bool(value) => format!("BOOLEAN {value}"),
            Self::Int(value) => format!("INT {value}"),
            Self::Float(value) => format!("FLOAT {value}"),
            Self::String(value) if value.chars().count() <= 60 => format!("STRING {value:?}"),
            Self::Tensor(tensor) => format!("tensor {:?} {}", tensor.shape(), tensor.dtype()),
            Self::List(values) => format!("list of {}", values.len()),
            Self::Map(values) => format!("map with {:?}", values.keys().collect::<Vec<_>>()),
            other => other.kind().to_string(),
        }
    }

    /// Whether this is [`None`](Self::None).
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// A map from pairs.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// The entry of that name, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(entries) => entries.get(name),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if this is one.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The number, if this is one, whole or not.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// The switch, if this is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The tensor, if this is one.
    pub fn as_tensor(&self) -> Option<&TensorBuf> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The handle, if this is one.
    pub fn as_handle(&self) -> Option<&Handle> {
        match self {
            Self::Handle(handle) => Some(handle),
            _ => None,
        }
    }

    /// The list's values, if this is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }

    /// The map's entries, if this is a map.
    pub fn as_map(&self) -> Option<&BTreeMap<String, Value>> {
        match self {
            Self::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value that a JSON literal of a workflow stands for. Numbers without fraction are `Int`.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::None,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value.into()),
                (None, Some(value)) => Self::Int(value.into()),
                // Without the feature `arbitrary_precision` every other number is an f64.
                (None, None) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::String(text.clone()),
            Json::Array(values) => Self::List(values.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Self::Map(
                entries.iter().map(|(name, value)| (name.clone(), Self::from_json(value))).collect(),
            ),
        }
    }

    /// The value as JSON, where it has such a form: tensors become `{"tensor": shape, "dtype": …}`, handles
    /// `{"handle": tag}`, numbers that JSON cannot write `null`.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value as Json, json};
        match self {
            Self::None => Json::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => json!(value),
                (_, Ok(value)) => json!(value),
                _ => json!(*value as f64),
            },
            Self::Float(value) => json!(value),
            Self::String(text) => json!(text),
            Self::Tensor(tensor) => json!({"tensor": tensor.shape(), "dtype": tensor.dtype().to_string()}),
            Self::List(values) => Json::Array(values.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                Json::Object(entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
            }
            Self::Handle(handle) => json!({"handle": handle.type_tag()}),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool, i32 => Int, u32 => Int, i64 => Int, u64 => Int, f32 => Float, f64 => Float, &str => String,
    String => String, TensorBuf => Tensor, Handle => Handle, BTreeMap<String, Value> => Map, Vec<Value> => List,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_keep_their_full_range() {
        let json: serde_json::Value = serde_json::from_str("18446744073709551615").unwrap();
        let value = Value::from_json(&json);
        assert_eq!(value.as_int(), Some(u64::MAX.into()));
        assert_eq!(value.to_json(), json);
    }

    #[test]
    fn json_goes_in_and_comes_out() {
        let json = serde_json::json!({"a": [1, 2.5, "x", true, null], "b": -3});
        assert_eq!(Value::from_json(&json).to_json(), json);
    }
}
