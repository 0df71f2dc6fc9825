//! Tensors that cross the border: DLPack's fields by DLPack's names, and a release.
//!
//! Units: `shape` and `strides` count elements, `byte_offset` counts bytes. There are always `ndim` strides; a tensor of
//! no elements may have any pointer. Data may be shared, so it is never written to through a [`TensorBuf`].

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use abi_stable::StableAbi;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RArc, RBox, RString, RVec};

use super::NodeError;
use super::border::{Opaque, Opaque_TO};

/// Where a tensor's data lies, by DLPack's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, StableAbi)]
#[repr(C)]
pub struct Device {
    /// DLPack's `device_type`: 1 is the CPU, 2 is CUDA.
    pub device_type: i32,
    /// Which one of several.
    pub device_id: i32,
}

impl Device {
    /// Ordinary memory.
    pub const CPU: Device = Device { device_type: 1, device_id: 0 };
}

/// An element's type, by DLPack's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, StableAbi)]
#[repr(C)]
pub struct DType {
    /// 0 signed whole numbers, 1 unsigned ones, 2 floats, 4 bfloat, 6 switches.
    pub code: u8,
    /// Bits of one lane.
    pub bits: u8,
    /// Numbers in one element; only 1 is accepted.
    pub lanes: u16,
}

impl DType {
    /// 32-bit float.
    pub const F32: DType = DType { code: 2, bits: 32, lanes: 1 };
    /// 64-bit float.
    pub const F64: DType = DType { code: 2, bits: 64, lanes: 1 };
    /// 16-bit float.
    pub const F16: DType = DType { code: 2, bits: 16, lanes: 1 };
    /// 16-bit float with the exponent of 32 bits.
    pub const BF16: DType = DType { code: 4, bits: 16, lanes: 1 };
    /// Byte.
    pub const U8: DType = DType { code: 1, bits: 8, lanes: 1 };
    /// 32-bit unsigned whole number.
    pub const U32: DType = DType { code: 1, bits: 32, lanes: 1 };
    /// 32-bit whole number.
    pub const I32: DType = DType { code: 0, bits: 32, lanes: 1 };
    /// 64-bit whole number.
    pub const I64: DType = DType { code: 0, bits: 64, lanes: 1 };
    /// Switch: one byte, 0 or not 0.
    pub const BOOL: DType = DType { code: 6, bits: 8, lanes: 1 };

    const NAMED: [(DType, &'static str); 9] = [
        (Self::F32, "f32"),
        (Self::F64, "f64"),
        (Self::F16, "f16"),
        (Self::BF16, "bf16"),
        (Self::U8, "u8"),
        (Self::U32, "u32"),
        (Self::I32, "i32"),
        (Self::I64, "i64"),
        (Self::BOOL, "bool"),
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        usize::from(self.bits) / 8
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(dtype, _)| dtype == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "dtype(code {}, {} bits, {} lanes)", self.code, self.bits, self.lanes),
        }
    }
}

/// Rust types that can be a tensor's elements.
pub trait Element: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The element's type on the border.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {
        $(impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}
element!(f32 => F32, f64 => F64, u8 => U8, u32 => U32, i32 => I32, i64 => I64);

/// The fields of a tensor whose memory comes from elsewhere, for [`TensorBuf::from_parts`].
#[derive(Clone, Debug)]
pub struct TensorParts {
    /// Start of the memory.
    pub data: *const u8,
    /// How many bytes from `data` on may be read. On a device other than the CPU it is not looked at.
    pub len: usize,
    /// Where the memory lies.
    pub device: Device,
    /// Type of an element.
    pub dtype: DType,
    /// Size in each dimension, in elements.
    pub shape: Vec<i64>,
    /// Step in each dimension, in elements; `None`: row-major.
    pub strides: Option<Vec<i64>>,
    /// Bytes from `data` to the first element.
    pub byte_offset: u64,
}

/// A tensor that shares its memory. A clone is cheap; the memory is released when the last one is dropped, by
/// whoever made it, on whichever thread that happens. `[any thread]`
#[derive(Clone, StableAbi)]
#[repr(C)]
pub struct TensorBuf {
    data: *const u8,
    len: usize,
    device: Device,
    dtype: DType,
    shape: RVec<i64>,
    strides: RVec<i64>,
    byte_offset: u64,
    owner: RArc<Opaque_TO<'static, RBox<()>>>,
}

// SAFETY: the memory is only read through a `TensorBuf`, and whoever made it gave an owner that is `Send + Sync` and
// promised (`from_parts`) that nobody writes while it is shared.
unsafe impl Send for TensorBuf {}
// SAFETY: as above.
unsafe impl Sync for TensorBuf {}

struct Memory(Option<Box<dyn Any + Send + Sync>>);

impl Opaque for Memory {
    fn describe(&self) -> RString {
        RString::from("memory")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // May run on behalf of another library, into which no panic may unwind.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
    }
}

impl TensorBuf {
    /// Takes a vector without copying it. The product of `shape` must be its length.
    pub fn from_vec<T: Element>(shape: &[usize], values: Vec<T>) -> Result<Self, NodeError> {
        let dims = to_dims(shape)?;
        let wanted = element_count(&dims)?;
        if wanted != values.len() {
            return Err(ill_formed(format!(
                "shape {shape:?} has {wanted} elements, the data has {}",
                values.len()
            )));
        }
        let parts = TensorParts {
            data: values.as_ptr().cast(),
            len: size_of_val(values.as_slice()),
            device: Device::CPU,
            dtype: T::DTYPE,
            shape: dims,
            strides: None,
            byte_offset: 0,
        };
        // SAFETY: the vector becomes the owner, its buffer does not move, and nobody else can write to it.
        unsafe { Self::from_parts(parts, values) }
    }

    /// [`from_vec`](Self::from_vec) for the type that most nodes use.
    pub fn from_vec_f32(shape: &[usize], values: Vec<f32>) -> Result<Self, NodeError> {
        Self::from_vec(shape, values)
    }

    /// Takes the bytes of elements of any type, row-major, without copying them: for f16 and bf16.
    pub fn from_bytes(shape: &[usize], dtype: DType, bytes: Vec<u8>) -> Result<Self, NodeError> {
        let dims = to_dims(shape)?;
        let parts = TensorParts {
            data: bytes.as_ptr(),
            len: bytes.len(),
            device: Device::CPU,
            dtype,
            shape: dims,
            strides: None,
            byte_offset: 0,
        };
        // SAFETY: the vector becomes the owner, its buffer does not move, and nobody else can write to it.
        unsafe { Self::from_parts(parts, bytes) }
    }

    /// Shares memory that `owner` keeps alive; dropping `owner` is the release.
    ///
    /// Answers an error, and drops `owner`, if the fields contradict each other: an unknown dtype, a negative size, strides of
    /// another number than sizes, a size beyond the address space, or elements outside the `len` bytes.
    ///
    /// # Safety
    /// On the CPU, `len` bytes from `data` on must be readable and initialised, and nobody may write to them, until `owner` is dropped.
    pub unsafe fn from_parts(parts: TensorParts, owner: impl Any + Send + Sync) -> Result<Self, NodeError> {
        let strides = match parts.strides {
            Some(strides) => strides,
            None => row_major(&parts.shape)?,
        };
        let memory = Memory(Some(Box::new(owner)));
        let tensor = Self {
            data: parts.data,
            len: parts.len,
            device: parts.device,
            dtype: parts.dtype,
            shape: parts.shape.into(),
            strides: strides.into(),
            byte_offset: parts.byte_offset,
            owner: RArc::new(Opaque_TO::from_value(memory, TD_Opaque)),
        };
        tensor.check()?;
        Ok(tensor)
    }

    /// Everything [`from_parts`](Self::from_parts) promises; run again on each tensor that comes over the border.
    pub(crate) fn check(&self) -> Result<(), NodeError> {
        if !DType::NAMED.iter().any(|(dtype, _)| *dtype == self.dtype) {
            return Err(ill_formed(format!("{} is not supported", self.dtype)));
        }
        if self.shape.len() != self.strides.len() {
            return Err(ill_formed(format!("{} sizes but {} strides", self.shape.len(), self.strides.len())));
        }
        let count = element_count(&self.shape)?;
        if count == 0 {
            return Ok(());
        }
        if self.data.is_null() {
            return Err(ill_formed("the data pointer is null"));
        }
        // The first and last byte that any element touches, relative to `data`.
        let too_far = || ill_formed(format!("strides {:?} leave the address space", self.strides));
        let size = self.dtype.size() as i128;
        let (mut low, mut high) = (i128::from(self.byte_offset), i128::from(self.byte_offset) + size);
        for (&extent, &stride) in self.shape.iter().zip(self.strides.iter()) {
            let reach = i128::from(extent - 1)
                .checked_mul(i128::from(stride))
                .and_then(|elements| elements.checked_mul(size))
                .ok_or_else(too_far)?;
            let end = if reach < 0 { &mut low } else { &mut high };
            *end = end.checked_add(reach).ok_or_else(too_far)?;
        }
        if low < 0 || (self.device.device_type == Device::CPU.device_type && high > self.len as i128) {
            return Err(ill_formed(format!(
                "shape {:?} with strides {:?} and offset {} reaches bytes {low}..{high} of {} that there are",
                self.shape, self.strides, self.byte_offset, self.len
            )));
        }
        Ok(())
    }

    /// Size in each dimension.
    pub fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// [`shape`](Self::shape) in the type that Rust indexes with.
    pub fn dims(&self) -> Vec<usize> {
        // `check` refuses sizes that do not fit.
        self.shape.iter().map(|&size| size as usize).collect()
    }

    /// Number of dimensions.
    pub fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn element_count(&self) -> usize {
        self.dims().iter().product()
    }

    /// Step in each dimension, in elements.
    pub fn strides(&self) -> &[i64] {
        &self.strides
    }

    /// Bytes from [`data`](Self::data) to the first element.
    pub fn byte_offset(&self) -> u64 {
        self.byte_offset
    }

    /// Type of an element.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the data lies.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Start of the memory; valid while a clone of this tensor lives. Only for reading.
    pub fn data(&self) -> *const u8 {
        self.data
    }

    /// Whether the data lies in ordinary memory.
    pub fn is_cpu(&self) -> bool {
        self.device.device_type == Device::CPU.device_type
    }

    /// Whether the elements follow each other row by row. Dimensions of size 1 may have any stride.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1_i64;
        for (&size, &stride) in self.shape.iter().zip(self.strides.iter()).rev() {
            if size == 0 {
                return true;
            }
            if size != 1 && stride != expected {
                return false;
            }
            expected *= size;
        }
        true
    }

    /// The elements' bytes without a copy, if they lie in ordinary memory row by row.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if !self.is_cpu() || !self.is_contiguous() {
            return None;
        }
        let count = self.element_count() * self.dtype.size();
        if count == 0 {
            return Some(&[]);
        }
        // SAFETY: `check` proved that byte_offset + count bytes are within `len`, which the maker vouches for.
        Some(unsafe { std::slice::from_raw_parts(self.data.add(self.byte_offset as usize), count) })
    }

    /// The elements without a copy, if they are of type `T`, aligned, and in ordinary memory row by row.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if self.dtype != T::DTYPE {
            return None;
        }
        let bytes = self.as_bytes()?;
        if bytes.is_empty() {
            return Some(&[]);
        }
        if !bytes.as_ptr().cast::<T>().is_aligned() {
            return None;
        }
        // SAFETY: length and alignment are checked; every bit pattern is a value of the types that are `Element`.
        Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
    }

    /// [`as_slice`](Self::as_slice) for the type that most nodes use.
    pub fn as_f32_slice(&self) -> Option<&[f32]> {
        self.as_slice()
    }

    /// The elements' bytes, row by row; copied only if they do not lie so.
    ///
    /// Fails for data that does not lie in ordinary memory.
    pub fn to_bytes(&self) -> Result<Cow<'_, [u8]>, NodeError> {
        if let Some(bytes) = self.as_bytes() {
            return Ok(Cow::Borrowed(bytes));
        }
        self.need_cpu()?;
        let size = self.dtype.size();
        let mut bytes = Vec::with_capacity(self.element_count() * size);
        self.for_each_offset(|offset| {
            // SAFETY: `for_each_offset` tells what `check` proved to be inside `len`.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(self.data.offset(offset), size) });
        });
        Ok(Cow::Owned(bytes))
    }

    /// The elements, row by row, converted to f32. Whole numbers keep their value: a byte 255 becomes 255.0.
    ///
    /// Fails for data that does not lie in ordinary memory.
    pub fn to_vec_f32(&self) -> Result<Vec<f32>, NodeError> {
        if let Some(values) = self.as_f32_slice() {
            return Ok(values.to_vec());
        }
        self.need_cpu()?;
        let mut values = Vec::with_capacity(self.element_count());
        self.for_each_offset(|offset| {
            // SAFETY: `for_each_offset` tells what `check` proved to be inside `len`; unaligned reads are allowed.
            values.push(unsafe { read_f32(self.data.offset(offset), self.dtype) });
        });
        Ok(values)
    }

    fn need_cpu(&self) -> Result<(), NodeError> {
        if self.is_cpu() {
            return Ok(());
        }
        Err(NodeError::incompatible(format!(
            "the tensor lies on device type {}, ordinary memory is needed",
            self.device.device_type
        )))
    }

    /// Tells the byte offset of each element, row by row.
    fn for_each_offset(&self, mut tell: impl FnMut(isize)) {
        let size = self.dtype.size() as i64;
        let mut index = vec![0_i64; self.shape.len()];
        let mut at = self.byte_offset as i64;
        for _ in 0..self.element_count() {
            tell(at as isize);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                // Wrapping: the stride of a size of 1 may be anything, and what it adds is taken away again.
                at = at.wrapping_add(self.strides[axis].wrapping_mul(size));
                if index[axis] < self.shape[axis] {
                    break;
                }
                at = at.wrapping_sub(self.shape[axis].wrapping_mul(self.strides[axis]).wrapping_mul(size));
                index[axis] = 0;
            }
        }
    }
}

impl fmt::Debug for TensorBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TensorBuf({:?} {})", self.shape(), self.dtype)
    }
}

/// # Safety
/// `dtype.size()` bytes at `at` must be readable; `dtype` is one of `DType::NAMED`.
unsafe fn read_f32(at: *const u8, dtype: DType) -> f32 {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        match dtype {
            DType::F32 => at.cast::<f32>().read_unaligned(),
            DType::F64 => at.cast::<f64>().read_unaligned() as f32,
            DType::F16 => f32_from_f16(at.cast::<u16>().read_unaligned()),
            DType::BF16 => f32::from_bits(u32::from(at.cast::<u16>().read_unaligned()) << 16),
            DType::U8 => f32::from(at.read()),
            DType::U32 => at.cast::<u32>().read_unaligned() as f32,
            DType::I32 => at.cast::<i32>().read_unaligned() as f32,
            DType::I64 => at.cast::<i64>().read_unaligned() as f32,
            _ => f32::from(u8::from(at.read() != 0)), // BOOL, the last of DType::NAMED
        }
    }
}

fn f32_from_f16(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2_f32.powi(exponent - 15),
    }
}

fn to_dims(shape: &[usize]) -> Result<Vec<i64>, NodeError> {
    shape
        .iter()
        .map(|&size| i64::try_from(size).map_err(|_| ill_formed(format!("size {size} is out of range"))))
        .collect()
}

fn element_count(shape: &[i64]) -> Result<usize, NodeError> {
    let mut count = 1_usize;
    let mut empty = false;
    for &size in shape {
        let size =
            usize::try_from(size).map_err(|_| ill_formed(format!("shape {shape:?} has a negative size")))?;
        empty |= size == 0;
        count = count
            .checked_mul(size.max(1))
            .filter(|&count| count <= isize::MAX as usize / 8)
            .ok_or_else(|| ill_formed(format!("shape {shape:?} is larger than memory can be")))?;
    }
    Ok(if empty { 0 } else { count })
}

fn row_major(shape: &[i64]) -> Result<Vec<i64>, NodeError> {
    element_count(shape)?;
    let mut strides = vec![1_i64; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1);
    }
    Ok(strides)
}

fn ill_formed(why: impl fmt::Display) -> NodeError {
    NodeError::invalid_input(format!("ill-formed tensor: {why}"))
}

#[cfg(test)]
mod tests;
