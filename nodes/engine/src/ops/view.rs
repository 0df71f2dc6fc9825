//! Plain slices of CPU tensors, and which tensors the CPU kernels take.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use parking_lot::RwLockReadGuard;

use crate::{Error, ErrorKind, Result};

/// Whether our own CPU kernels take this tensor. Everything else goes through candle's operations, composed.
pub(super) fn has_kernel(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// A frozen weight in the type that `x` is computed in. Half-precision weights on the CPU are widened for the call.
pub(super) fn as_computed(weight: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(if weight.dtype() == x.dtype() { weight.clone() } else { weight.to_dtype(x.dtype())? })
}

/// The numbers of a contiguous f32 tensor on the CPU.
pub(super) struct View<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    start: usize,
    end: usize,
}

impl<'a> View<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(Error::new(
                ErrorKind::Internal,
                "a kernel was given a tensor that is not contiguous",
            ));
        };
        if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
            return Err(Error::new(
                ErrorKind::Internal,
                "a kernel was given a tensor that is not f32 on the CPU",
            ));
        }
        Ok(Self { storage, start, end })
    }
}

impl Deref for View<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            _ => unreachable!("checked when the view was made, and a guard is held since"),
        }
    }
}

/// A CPU tensor that takes over `values`.
pub(super) fn tensor(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
