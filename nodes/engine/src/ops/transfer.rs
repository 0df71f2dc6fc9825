//! A value in another type or on another device: where parts of a model are kept differently. The gradient goes back the same way.

use candle_core::{DType, Device, Tensor};

use super::tape::{Tape, Traced};
use crate::Result;

/// `x` in the type `dtype` on `device`; `x` itself where it is so already.
pub fn transfer(tape: &Tape, x: &Traced, dtype: DType, device: &Device) -> Result<Traced> {
    let (from, place) = (x.value().dtype(), x.value().device().clone());
    if from == dtype && place.same_device(device) {
        return Ok(x.clone());
    }
    tape.check()?;
    let moved =
        |x: &Tensor, dtype, device: &Device| -> Result<Tensor> { Ok(x.to_dtype(dtype)?.to_device(device)?) };
    let value = moved(x.value(), dtype, device)?;
    Ok(tape.record(value, &[x], move |gradient| Ok(vec![Some(moved(gradient, from, &place)?)])))
}
