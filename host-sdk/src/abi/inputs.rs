//! A node's inputs, by name, with getters whose errors a user understands.

use std::collections::{BTreeMap, BTreeSet};

use super::{Handle, NodeError, TensorBuf, Value};

/// The inputs of one call.
///
/// In [`Node::execute`](super::Node::execute) everything is there. In [`validate`](super::Node::validate) and
/// [`fingerprint`](super::Node::fingerprint) only literals are: linked inputs are not computed yet, see [`is_linked`](Self::is_linked).
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    values: BTreeMap<String, Value>,
    linked: BTreeSet<String>,
}

impl Inputs {
    /// No inputs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same inputs and one more: for tests, `Inputs::new().with("steps", 20)`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.insert(name, value);
        self
    }

    /// Sets an input.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.values.insert(name.into(), value.into());
    }

    /// Notes that an input is linked, whether its value is known or not.
    pub fn mark_linked(&mut self, name: impl Into<String>) {
        self.linked.insert(name.into());
    }

    /// Whether the input comes from another node.
    pub fn is_linked(&self, name: &str) -> bool {
        self.linked.contains(name)
    }

    /// The names of linked inputs.
    pub fn linked(&self) -> impl Iterator<Item = &str> {
        self.linked.iter().map(String::as_str)
    }

    /// All inputs, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value, if there is one that is not [`Value::None`].
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_none())
    }

    /// Takes the value out, if there is one that is not [`Value::None`].
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_none())
    }

    /// A value of any type.
    pub fn value(&self, name: &str) -> Result<&Value, NodeError> {
        self.get(name).ok_or_else(|| NodeError::invalid_input(format!("input `{name}` is missing")))
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> Result<i64, NodeError> {
        self.narrow(name, "a whole number of 64 bits")
    }

    /// A whole number from 0 to 18446744073709551615.
    pub fn seed(&self, name: &str) -> Result<u64, NodeError> {
        self.narrow(name, "a whole number from 0 to 18446744073709551615")
    }

    /// A whole number from 0 on, as Rust counts.
    pub fn count(&self, name: &str) -> Result<usize, NodeError> {
        self.narrow(name, "a whole number from 0 on")
    }

    /// A number; whole ones are taken too.
    pub fn float(&self, name: &str) -> Result<f64, NodeError> {
        self.typed(name, "FLOAT", Value::as_float)
    }

    /// Text.
    pub fn string(&self, name: &str) -> Result<&str, NodeError> {
        self.typed(name, "STRING", Value::as_str)
    }

    /// A switch.
    pub fn bool(&self, name: &str) -> Result<bool, NodeError> {
        self.typed(name, "BOOLEAN", Value::as_bool)
    }

    /// A tensor.
    pub fn tensor(&self, name: &str) -> Result<&TensorBuf, NodeError> {
        self.typed(name, "a tensor", Value::as_tensor)
    }

    /// A handle.
    pub fn handle(&self, name: &str) -> Result<&Handle, NodeError> {
        self.typed(name, "a handle", Value::as_handle)
    }

    /// A list.
    pub fn list(&self, name: &str) -> Result<&[Value], NodeError> {
        self.typed(name, "a list", Value::as_list)
    }

    /// A map.
    pub fn map(&self, name: &str) -> Result<&BTreeMap<String, Value>, NodeError> {
        self.typed(name, "a map", Value::as_map)
    }

    /// [`int`](Self::int), or `None` if the input was left out.
    pub fn optional_int(&self, name: &str) -> Result<Option<i64>, NodeError> {
        self.optional(name, Self::int)
    }

    /// [`seed`](Self::seed), or `None` if the input was left out.
    pub fn optional_seed(&self, name: &str) -> Result<Option<u64>, NodeError> {
        self.optional(name, Self::seed)
    }

    /// [`count`](Self::count), or `None` if the input was left out.
    pub fn optional_count(&self, name: &str) -> Result<Option<usize>, NodeError> {
        self.optional(name, Self::count)
    }

    /// [`float`](Self::float), or `None` if the input was left out.
    pub fn optional_float(&self, name: &str) -> Result<Option<f64>, NodeError> {
        self.optional(name, Self::float)
    }

    /// [`string`](Self::string), or `None` if the input was left out.
    pub fn optional_string(&self, name: &str) -> Result<Option<&str>, NodeError> {
        self.optional(name, Self::string)
    }

    /// [`bool`](Self::bool), or `None` if the input was left out.
    pub fn optional_bool(&self, name: &str) -> Result<Option<bool>, NodeError> {
        self.optional(name, Self::bool)
    }

    /// [`tensor`](Self::tensor), or `None` if the input was left out.
    pub fn optional_tensor(&self, name: &str) -> Result<Option<&TensorBuf>, NodeError> {
        self.optional(name, Self::tensor)
    }

    /// [`handle`](Self::handle), or `None` if the input was left out.
    pub fn optional_handle(&self, name: &str) -> Result<Option<&Handle>, NodeError> {
        self.optional(name, Self::handle)
    }

    /// [`list`](Self::list), or `None` if the input was left out.
    pub fn optional_list(&self, name: &str) -> Result<Option<&[Value]>, NodeError> {
        self.optional(name, Self::list)
    }

    /// [`map`](Self::map), or `None` if the input was left out.
    pub fn optional_map(&self, name: &str) -> Result<Option<&BTreeMap<String, Value>>, NodeError> {
        self.optional(name, Self::map)
    }

    fn typed<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<T, NodeError> {
        let value = self.value(name)?;
        read(value).ok_or_else(|| wrong_type(name, wanted, value))
    }

    fn narrow<T: TryFrom<i128>>(&self, name: &str, wanted: &str) -> Result<T, NodeError> {
        let value = self.value(name)?;
        let whole = value.as_int().ok_or_else(|| wrong_type(name, "INT", value))?;
        T::try_from(whole).map_err(|_| wrong_type(name, wanted, value))
    }

    fn optional<'a, T>(
        &'a self,
        name: &str,
        read: impl Fn(&'a Self, &str) -> Result<T, NodeError>,
    ) -> Result<Option<T>, NodeError> {
        if self.get(name).is_none() { Ok(None) } else { read(self, name).map(Some) }
    }
}

fn wrong_type(name: &str, wanted: &str, found: &Value) -> NodeError {
    NodeError::invalid_input(format!("input `{name}` should be {wanted}, found {}", found.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_say_what_is_wrong() {
        let inputs = Inputs::new()
            .with("steps", 20)
            .with("seed", u64::MAX)
            .with("text", "cat")
            .with("none", Value::None);
        assert_eq!(inputs.int("steps").unwrap(), 20);
        assert_eq!(inputs.float("steps").unwrap(), 20.0);
        assert_eq!(inputs.seed("seed").unwrap(), u64::MAX);
        assert_eq!(inputs.optional_int("none").unwrap(), None);
        assert_eq!(inputs.optional_string("nowhere").unwrap(), None);
        let message = |error: NodeError| error.message;
        assert_eq!(
            message(inputs.int("text").unwrap_err()),
            "input `text` should be INT, found STRING \"cat\""
        );
        assert_eq!(message(inputs.tensor("nowhere").unwrap_err()), "input `nowhere` is missing");
        assert!(message(inputs.int("seed").unwrap_err()).contains("64 bits, found INT 18446744073709551615"));
        assert!(inputs.optional_bool("text").is_err());
    }
}
