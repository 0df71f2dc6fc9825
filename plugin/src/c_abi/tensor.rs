//! Tensors that hosts lend, and views of those behind values.

use std::ffi::c_void;

use vocable_host_sdk::abi::{DType, Device, NodeError, TensorBuf, TensorParts, Value};

use super::boundary::{Out, borrowed, entry, is_null};
use super::error::VocableError;
use super::value::{VocableValue, wrong_kind};

/// No tensor has more dimensions; a larger number is more likely a wild one.
const MOST_DIMENSIONS: i32 = 64;

/// `vocable_dtype`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VocableDType {
    code: u8,
    bits: u8,
    lanes: u16,
}

/// `vocable_tensor`.
#[repr(C)]
pub struct VocableTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    dtype: VocableDType,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

type Release = unsafe extern "C" fn(*mut c_void);

/// Memory of the host. Dropped when no tensor refers to it any more.
struct Lent {
    release: Option<Release>,
    context: *mut c_void,
}

// SAFETY: the context is only handed back, and vocable.h says that `release` may be called from any thread.
unsafe impl Send for Lent {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Lent {}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the host gave the function for this context; this is the one call.
            unsafe { release(self.context) };
        }
    }
}

/// The fields in our words.
///
/// # Safety
/// `shape` and, if it is not NULL, `strides` must have `ndim` entries.
unsafe fn parts(tensor: &VocableTensor, byte_length: u64) -> Result<TensorParts, NodeError> {
    let ndim = usize::try_from(tensor.ndim).ok().filter(|_| tensor.ndim <= MOST_DIMENSIONS);
    let ndim = ndim.ok_or_else(|| {
        let found = tensor.ndim;
        NodeError::invalid_input(format!("a tensor has 0 to {MOST_DIMENSIONS} dimensions, not {found}"))
    })?;
    let entries = |pointer: *const i64| {
        // SAFETY: not NULL where this is called with `ndim` above 0; the caller vouches for the entries.
        (0..ndim).map(|axis| unsafe { pointer.add(axis).read() }).collect::<Vec<_>>()
    };
    if tensor.shape.is_null() && ndim > 0 {
        return Err(is_null("tensor->shape"));
    }
    let len = isize::try_from(byte_length).ok().and_then(|len| usize::try_from(len).ok());
    let len = len.filter(|len| tensor.data.addr().checked_add(*len).is_some()).ok_or_else(|| {
        NodeError::invalid_input(format!(
            "argument `byte_length` is {byte_length}, more than memory can have"
        ))
    })?;
    let VocableDType { code, bits, lanes } = tensor.dtype;
    Ok(TensorParts {
        data: tensor.data.cast_const().cast(),
        len,
        device: Device { device_type: tensor.device_type, device_id: tensor.device_id },
        dtype: DType { code, bits, lanes },
        shape: entries(tensor.shape),
        strides: (!tensor.strides.is_null()).then(|| entries(tensor.strides)),
        byte_offset: tensor.byte_offset,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_from_tensor(
    tensor: *const VocableTensor,
    byte_length: u64,
    release: Option<Release>,
    context: *mut c_void,
    out: *mut *mut VocableValue,
) -> *mut VocableError {
    entry("vocable_value_from_tensor", || {
        // SAFETY: the caller gives NULL or a tensor with `ndim` sizes and strides, and NULL or a place for a pointer.
        let (parts, out) =
            unsafe { (parts(borrowed(tensor, "tensor")?, byte_length)?, Out::new(out, "out")?) };
        // Once without an owner, who would be released at an error.
        // SAFETY: the memory is readable during the call, and the tensor does not outlive this line.
        drop(unsafe { TensorBuf::from_parts(parts.clone(), ()) }?);
        // SAFETY: the caller leaves the memory as it is until `release` is called.
        let tensor = unsafe { TensorBuf::from_parts(parts, Lent { release, context }) }?;
        out.put(VocableValue::into_raw(tensor.into()));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_from_tensor_copy(
    tensor: *const VocableTensor,
    byte_length: u64,
    out: *mut *mut VocableValue,
) -> *mut VocableError {
    entry("vocable_value_from_tensor_copy", || {
        // SAFETY: the caller gives NULL or a tensor with `ndim` sizes and strides, and NULL or a place for a pointer.
        let (parts, out) =
            unsafe { (parts(borrowed(tensor, "tensor")?, byte_length)?, Out::new(out, "out")?) };
        // SAFETY: the memory is readable during the call, and the tensor does not outlive it.
        let tensor = unsafe { TensorBuf::from_parts(parts, ()) }?;
        let copy = TensorBuf::from_bytes(&tensor.dims(), tensor.dtype(), tensor.to_bytes()?.into_owned())?;
        out.put(VocableValue::into_raw(copy.into()));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn vocable_value_tensor(
    value: *const VocableValue,
    out: *mut VocableTensor,
) -> *mut VocableError {
    entry("vocable_value_tensor", || {
        // SAFETY: the caller gives NULL or a value, and NULL or a place for a tensor.
        let (value, out) = unsafe { (borrowed(value, "value")?.get(), Out::new(out, "out")?) };
        let Value::Tensor(tensor) = value else { return Err(wrong_kind("value", "a tensor", value)) };
        let DType { code, bits, lanes } = tensor.dtype();
        let Device { device_type, device_id } = tensor.device();
        out.put(VocableTensor {
            data: tensor.data().cast_mut().cast(),
            device_type,
            device_id,
            // No tensor comes near: host's have at most 64 dimensions, ours fewer.
            ndim: tensor.ndim() as i32,
            dtype: VocableDType { code, bits, lanes },
            shape: tensor.shape().as_ptr(),
            strides: tensor.strides().as_ptr(),
            byte_offset: tensor.byte_offset(),
        });
        Ok(())
    })
}
