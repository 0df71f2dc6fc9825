//! The shapes that values, errors and calls have on the border, and their conversions.

use std::collections::BTreeMap;

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RSlice, RString, RVec, Tuple2};

use crate::abi::{ErrorKind, Handle, Inputs, NodeError, Outputs, TensorBuf, Value};

/// An error. `kind` is an [`ErrorKind`]'s number.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct WireError {
    pub kind: u32,
    pub message: RString,
    pub help: RString,
    pub causes: RVec<RString>,
}

impl From<NodeError> for WireError {
    fn from(error: NodeError) -> Self {
        Self {
            kind: error.kind.code(),
            message: error.message.into(),
            help: error.help.into(),
            causes: error.causes.into_iter().map(RString::from).collect(),
        }
    }
}

impl From<WireError> for NodeError {
    fn from(error: WireError) -> Self {
        Self {
            kind: ErrorKind::from_code(error.kind),
            message: error.message.into(),
            help: error.help.into(),
            causes: error.causes.into_iter().map(String::from).collect(),
        }
    }
}

/// A picture that is borrowed for the call.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct WirePreview<'a> {
    pub width: u32,
    pub height: u32,
    pub rgb: RSlice<'a, u8>,
}

/// A value: `tag` says which of the fields counts. A struct, since enums with fields are abi_stable's weak spot.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct WireValue {
    pub tag: u32,
    /// Switch, low half of a whole number, or bits of a float.
    pub low: u64,
    /// High half of a whole number.
    pub high: u64,
    pub text: RString,
    pub values: RVec<WireValue>,
    /// Names of `values` in a map.
    pub names: RVec<RString>,
    pub tensor: ROption<TensorBuf>,
    pub handle: ROption<Handle>,
}

const NONE: u32 = 0;
const BOOL: u32 = 1;
const INT: u32 = 2;
const FLOAT: u32 = 3;
const STRING: u32 = 4;
const TENSOR: u32 = 5;
const LIST: u32 = 6;
const MAP: u32 = 7;
const HANDLE: u32 = 8;

impl WireValue {
    fn empty(tag: u32) -> Self {
        Self {
            tag,
            low: 0,
            high: 0,
            text: RString::new(),
            values: RVec::new(),
            names: RVec::new(),
            tensor: ROption::RNone,
            handle: ROption::RNone,
        }
    }
}

impl From<Value> for WireValue {
    fn from(value: Value) -> Self {
        match value {
            Value::None => Self::empty(NONE),
            Value::Bool(value) => Self { low: value.into(), ..Self::empty(BOOL) },
            Value::Int(value) => Self { low: value as u64, high: (value >> 64) as u64, ..Self::empty(INT) },
            Value::Float(value) => Self { low: value.to_bits(), ..Self::empty(FLOAT) },
            Value::String(text) => Self { text: text.into(), ..Self::empty(STRING) },
            Value::Tensor(tensor) => Self { tensor: ROption::RSome(tensor), ..Self::empty(TENSOR) },
            Value::List(values) => {
                Self { values: values.into_iter().map(Self::from).collect(), ..Self::empty(LIST) }
            }
            Value::Map(entries) => {
                let (names, values): (Vec<_>, Vec<_>) =
                    entries.into_iter().map(|(name, value)| (RString::from(name), Self::from(value))).unzip();
                Self { names: names.into(), values: values.into(), ..Self::empty(MAP) }
            }
            Value::Handle(handle) => Self { handle: ROption::RSome(handle), ..Self::empty(HANDLE) },
        }
    }
}

impl TryFrom<WireValue> for Value {
    type Error = NodeError;

    /// Refuses what the other side may not send: tags of a later contract and ill-formed tensors.
    fn try_from(wire: WireValue) -> Result<Self, NodeError> {
        let broken = |what: &str| NodeError::internal(format!("a value came over the border {what}"));
        Ok(match wire.tag {
            NONE => Value::None,
            BOOL => Value::Bool(wire.low != 0),
            INT => Value::Int((i128::from(wire.high as i64) << 64) | i128::from(wire.low)),
            FLOAT => Value::Float(f64::from_bits(wire.low)),
            STRING => Value::String(wire.text.into()),
            TENSOR => {
                let tensor = wire.tensor.into_option().ok_or_else(|| broken("without its tensor"))?;
                tensor.check()?;
                Value::Tensor(tensor)
            }
            LIST => Value::List(wire.values.into_iter().map(Value::try_from).collect::<Result<_, _>>()?),
            MAP => {
                if wire.names.len() != wire.values.len() {
                    return Err(broken("with names and values of different number"));
                }
                Value::Map(
                    wire.names
                        .into_iter()
                        .zip(wire.values)
                        .map(|(name, value)| Ok((name.into(), Value::try_from(value)?)))
                        .collect::<Result<BTreeMap<_, _>, NodeError>>()?,
                )
            }
            HANDLE => Value::Handle(wire.handle.into_option().ok_or_else(|| broken("without its handle"))?),
            other => return Err(broken(&format!("with the unknown tag {other}"))),
        })
    }
}

/// Things by name, in order.
pub type Named<T> = RVec<Tuple2<RString, T>>;

/// [`Inputs`].
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct WireInputs {
    pub values: Named<WireValue>,
    pub linked: RVec<RString>,
}

impl From<Inputs> for WireInputs {
    fn from(inputs: Inputs) -> Self {
        let values = inputs.iter().map(|(name, value)| Tuple2(name.into(), value.clone().into())).collect();
        Self { values, linked: inputs.linked().map(RString::from).collect() }
    }
}

impl TryFrom<WireInputs> for Inputs {
    type Error = NodeError;

    fn try_from(wire: WireInputs) -> Result<Self, NodeError> {
        let mut inputs = Inputs::new();
        for Tuple2(name, value) in wire.values {
            inputs.insert(name, Value::try_from(value)?);
        }
        for name in wire.linked {
            inputs.mark_linked(name);
        }
        Ok(inputs)
    }
}

/// [`Outputs`].
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct WireOutputs {
    pub results: RVec<WireValue>,
    pub ui: ROption<RString>,
}

impl From<Outputs> for WireOutputs {
    fn from(outputs: Outputs) -> Self {
        Self {
            results: outputs.results.into_iter().map(WireValue::from).collect(),
            ui: outputs.ui.map(RString::from).into(),
        }
    }
}

impl TryFrom<WireOutputs> for Outputs {
    type Error = NodeError;

    fn try_from(wire: WireOutputs) -> Result<Self, NodeError> {
        Ok(Self {
            results: wire.results.into_iter().map(Value::try_from).collect::<Result<_, _>>()?,
            ui: wire.ui.into_option().map(String::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_value_crosses() {
        let values = Value::List(vec![
            Value::None,
            true.into(),
            u64::MAX.into(),
            i64::MIN.into(),
            Value::Int(i128::MIN),
            0.1_f64.into(),
            "grün".into(),
            Value::map([("a", Value::Int(1))]),
            TensorBuf::from_vec_f32(&[2], vec![1.0, 2.0]).unwrap().into(),
            Handle::new("MODEL", Arc::new(5_u8)).into(),
        ]);
        let back = Value::try_from(WireValue::from(values.clone())).unwrap();
        assert_eq!(format!("{back:?}"), format!("{values:?}"));
        assert_eq!(*back.as_list().unwrap()[9].as_handle().unwrap().open::<u8>().unwrap(), 5);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Value::try_from(WireValue::empty(99)).unwrap_err().message.contains("tag 99"));
        assert!(Value::try_from(WireValue::empty(TENSOR)).is_err());
        let mut map = WireValue::from(Value::map([("a", Value::Int(1))]));
        map.names.clear();
        assert!(Value::try_from(map).is_err());
    }
}
