//! What several tests need.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The random pipeline of the structure of Stable Diffusion 1 that the goldens were made with.
pub(crate) fn tiny() -> PathBuf {
    root().join("tests/golden/tiny")
}

/// The CPU, and the first GPU where the feature `cuda` is built in and there is one: test bodies are written once for all of them.
pub(crate) fn devices() -> Vec<Device> {
    let gpu = if cfg!(feature = "cuda") { Device::new_cuda(0).ok() } else { None };
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// A file of named golden tensors.
pub(crate) struct Goldens(HashMap<String, Tensor>);

impl Goldens {
    pub(crate) fn open(name: &str) -> Self {
        Self::on(name, &Device::Cpu)
    }

    pub(crate) fn on(name: &str, device: &Device) -> Self {
        Self(candle_core::safetensors::load(root().join("tests/golden").join(name), device).unwrap())
    }

    pub(crate) fn get(&self, name: &str) -> Tensor {
        self.0[name].clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<i64> {
        self.0[name].flatten_all().unwrap().to_vec1().unwrap()
    }
}

/// ‖a − b‖ / ‖b‖.
pub(crate) fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (&a.to_device(&Device::Cpu).unwrap(), &b.to_device(&Device::Cpu).unwrap());
    norm(&(a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap()) / norm(b)
}

/// The Euclidean norm of all numbers.
pub(crate) fn norm(a: &Tensor) -> f64 {
    a.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}
