//! The host's tensors as weights of a network.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use vocable_engine::checkpoint::HeldTensors;
use vocable_engine::{Error, ErrorKind};
use vocable_host_sdk::abi::{DType as HostDType, NodeError, TensorBuf};

/// Tensors that lie in the host's memory until they are taken, each by itself and once: the host gets it back as soon as it was copied, and need not keep
/// all that it collected until the last one was.
pub(crate) struct HostTensors {
    tensors: BTreeMap<String, HostTensor>,
    taken: Arc<AtomicUsize>,
}

struct HostTensor {
    shape: Vec<usize>,
    dtype: HostDType,
    held: Mutex<Option<TensorBuf>>,
}

impl HostTensor {
    fn new(tensor: TensorBuf) -> Self {
        Self { shape: tensor.dims(), dtype: tensor.dtype(), held: Mutex::new(Some(tensor)) }
    }
}

impl HostTensors {
    /// Those whose names count.
    pub(crate) fn new(
        tensors: Vec<(String, TensorBuf)>,
        counts: impl Fn(&str) -> bool,
    ) -> Result<Self, NodeError> {
        let mut by_name = BTreeMap::new();
        for (name, tensor) in tensors.into_iter().filter(|(name, _)| counts(name)) {
            if by_name.contains_key(&name) {
                return Err(NodeError::invalid_input(format!("tensor {name} is there twice")));
            }
            by_name.insert(name, HostTensor::new(tensor));
        }
        Ok(Self { tensors: by_name, taken: Arc::default() })
    }

    pub(crate) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// How many were taken so far.
    pub(crate) fn taken(&self) -> Arc<AtomicUsize> {
        self.taken.clone()
    }

    /// All that were not taken yet, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, TensorBuf)> {
        self.tensors.iter().filter_map(|(name, tensor)| {
            Some((name, tensor.held.lock().unwrap_or_else(PoisonError::into_inner).clone()?))
        })
    }
}

impl HeldTensors for HostTensors {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensors.get(name)?.shape.clone())
    }

    fn type_name(&self, name: &str) -> Option<String> {
        Some(self.tensors.get(name)?.dtype.to_string())
    }

    fn read(&self, name: &str) -> vocable_engine::Result<Tensor> {
        let tensor = self.tensors.get(name).ok_or_else(|| Error::not_found("it is not there"))?;
        let held = tensor.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let held = held.ok_or_else(|| Error::new(ErrorKind::Internal, "it was taken already"))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        weight_from(&held)
    }
}

/// A weight of the host's in its own type, copied once.
///
/// # Errors
/// For numbers that are no floats, or lie elsewhere than in ordinary memory.
fn weight_from(buf: &TensorBuf) -> vocable_engine::Result<Tensor> {
    const FLOATS: [(HostDType, DType); 4] = [
        (HostDType::F32, DType::F32),
        (HostDType::F16, DType::F16),
        (HostDType::BF16, DType::BF16),
        (HostDType::F64, DType::F64),
    ];
    let Some((_, dtype)) = FLOATS.iter().find(|(host, _)| *host == buf.dtype()) else {
        return Err(Error::incompatible(format!(
            "its type is {}, wanted f32, f16, bf16 or f64",
            buf.dtype()
        ))
        .help("quantised weights cannot be taken: load the model in a float type, or without quantisation"));
    };
    let bytes = buf.to_bytes().map_err(|error| Error::incompatible(error.message).help(error.help))?;
    Ok(Tensor::from_raw_buffer(&bytes, *dtype, &buf.dims(), &Device::Cpu)?)
}
