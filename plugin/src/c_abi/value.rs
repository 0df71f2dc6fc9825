//! Values as hosts hold them.

use std::collections::BTreeMap;
use std::ffi::c_char;

use vocable_host_sdk::abi::{NodeError, Value};

use super::boundary::{Out, borrowed, borrowed_mut, c_string, entry, free, text};
use super::error::VocableError;
use super::json;

/// How deep lists and maps may lie in each other, as in JSON: they are walked by recursion.
const DEEPEST: usize = 128;

/// A reference to a [`Value`].
pub struct VocableValue(Value);

impl VocableValue {
    pub(super) fn into_raw(value: Value) -> *mut Self {
        Box::into_raw(Box::new(Self(value)))
    }

    pub(super) fn get(&self) -> &Value {
        &self.0
    }

    /// A copy of the map's entries; they share what they refer to.
    pub(super) fn entries(&self, name: &str) -> Result<BTreeMap<String, Value>, NodeError> {
        self.0.as_map().cloned().ok_or_else(|| wrong_kind(name, "a map", &self.0))
    }
}

pub(super) fn wrong_kind(name: &str, wanted: &str, found: &Value) -> NodeError {
    NodeError::invalid_input(format!("argument `{name}` should be {wanted}, found {}", found.describe()))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A copy of an item that is to lie one level deeper.
fn shared(item: &VocableValue) -> Result<Value, NodeError> {
    if depth(&item.0) >= DEEPEST {
        return Err(NodeError::invalid_input(format!(
            "argument `item` has {DEEPEST} levels, no more can be put around it"
        )));
    }
    Ok(item.0.clone())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_from_json(
    json: *const c_char,
    out: *mut *mut VocableValue,
) -> *mut VocableError {
    entry("vocable_value_from_json", || {
        // SAFETY: the caller gives NULL or text, and NULL or a place for a pointer.
        let (json, out) = unsafe { (text(json, "json")?, Out::new(out, "out")?) };
        let json: serde_json::Value = serde_json::from_str(json)
            .map_err(|error| NodeError::invalid_input("argument `json` is not JSON").caused_by(&error))?;
        out.put(VocableValue::into_raw(Value::from_json(&json)));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_to_json(
    value: *const VocableValue,
    out: *mut *mut c_char,
) -> *mut VocableError {
    entry("vocable_value_to_json", || {
        // SAFETY: the caller gives NULL or a value, and NULL or a place for a pointer.
        let (value, out) = unsafe { (borrowed(value, "value")?, Out::new(out, "out")?) };
        out.put(json(&value.0.to_json())?.into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_list_new(out: *mut *mut VocableValue) -> *mut VocableError {
    entry("vocable_list_new", || {
        // SAFETY: the caller gives NULL or a place for a pointer.
        let out = unsafe { Out::new(out, "out") }?;
        out.put(VocableValue::into_raw(Value::List(Vec::new())));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_list_push(
    list: *mut VocableValue,
    item: *const VocableValue,
) -> *mut VocableError {
    entry("vocable_list_push", || {
        // The item first: it may be the list itself.
        // SAFETY: the caller gives NULL or a value.
        let item = shared(unsafe { borrowed(item, "item") }?)?;
        // SAFETY: the caller gives NULL or a value that nobody else uses, and `item` is no longer borrowed.
        match &mut unsafe { borrowed_mut(list, "list") }?.0 {
            Value::List(values) => values.push(item),
            other => return Err(wrong_kind("list", "a list", other)),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_map_new(out: *mut *mut VocableValue) -> *mut VocableError {
    entry("vocable_map_new", || {
        // SAFETY: the caller gives NULL or a place for a pointer.
        let out = unsafe { Out::new(out, "out") }?;
        out.put(VocableValue::into_raw(Value::Map(BTreeMap::new())));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_map_set(
    map: *mut VocableValue,
    name: *const c_char,
    item: *const VocableValue,
) -> *mut VocableError {
    entry("vocable_map_set", || {
        // SAFETY: the caller gives NULL or text, and NULL or a value.
        let (name, item) = unsafe { (text(name, "name")?, shared(borrowed(item, "item")?)?) };
        // SAFETY: the caller gives NULL or a value that nobody else uses, and `item` is no longer borrowed.
        match &mut unsafe { borrowed_mut(map, "map") }?.0 {
            Value::Map(entries) => drop(entries.insert(name.to_string(), item)),
            other => return Err(wrong_kind("map", "a map", other)),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_get_kind(value: *const VocableValue) -> u32 {
    // SAFETY: the caller gives NULL or a value.
    match unsafe { value.as_ref() }.map(VocableValue::get) {
        None | Some(Value::None) => 0,
        Some(Value::Bool(_)) => 1,
        Some(Value::Int(_)) => 2,
        Some(Value::Float(_)) => 3,
        Some(Value::String(_)) => 4,
        Some(Value::Tensor(_)) => 5,
        Some(Value::List(_)) => 6,
        Some(Value::Map(_)) => 7,
        Some(Value::Handle(_)) => 8,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_count(value: *const VocableValue) -> usize {
    // SAFETY: the caller gives NULL or a value.
    match unsafe { value.as_ref() }.map(VocableValue::get) {
        Some(Value::List(values)) => values.len(),
        Some(Value::Map(entries)) => entries.len(),
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_at(
    value: *const VocableValue,
    index: usize,
    out: *mut *mut VocableValue,
) -> *mut VocableError {
    entry("vocable_value_at", || {
        // SAFETY: the caller gives NULL or a value, and NULL or a place for a pointer.
        let (value, out) = unsafe { (borrowed(value, "value")?.get(), Out::new(out, "out")?) };
        let item = match value {
            Value::List(values) => values.get(index),
            Value::Map(entries) => entries.values().nth(index),
            other => return Err(wrong_kind("value", "a list or a map", other)),
        };
        out.put(VocableValue::into_raw(item.ok_or_else(|| no_such(index, value))?.clone()));
        Ok(())
    })
}

fn no_such(index: usize, value: &Value) -> NodeError {
    NodeError::invalid_input(format!("there is no item {index} in a {}", value.describe()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_map_name_at(
    map: *const VocableValue,
    index: usize,
    out: *mut *mut c_char,
) -> *mut VocableError {
    entry("vocable_map_name_at", || {
        // SAFETY: the caller gives NULL or a value, and NULL or a place for a pointer.
        let (map, out) = unsafe { (borrowed(map, "map")?.get(), Out::new(out, "out")?) };
        let entries = map.as_map().ok_or_else(|| wrong_kind("map", "a map", map))?;
        let name = entries.keys().nth(index).ok_or_else(|| no_such(index, map))?;
        if name.contains('\0') {
            // A name that stands for another one would be found as that one.
            return Err(NodeError::invalid_input(format!("the name {name:?} holds a zero byte")));
        }
        out.put(c_string(name).into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_handle_type(
    handle: *const VocableValue,
    out: *mut *mut c_char,
) -> *mut VocableError {
    entry("vocable_handle_type", || {
        // SAFETY: the caller gives NULL or a value, and NULL or a place for a pointer.
        let (value, out) = unsafe { (borrowed(handle, "handle")?.get(), Out::new(out, "out")?) };
        let handle = value.as_handle().ok_or_else(|| wrong_kind("handle", "a handle", value))?;
        out.put(c_string(handle.type_tag()).into_raw());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_free(value: *mut VocableValue) {
    // SAFETY: the caller gives a value that came out of this library, once.
    unsafe { free(value) };
}
