//! The host's tensors as the engine takes them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Tensor;
use vocable_engine::checkpoint::HeldTensors;
use vocable_host_sdk::abi::{NodeError, TensorBuf};

use crate::convert::weight_from;

/// Tensors that lie in the host's memory until they are taken, each by itself.
pub(super) struct HostTensors {
    tensors: BTreeMap<String, TensorBuf>,
    taken: Arc<AtomicUsize>,
}

impl HostTensors {
    /// Those whose names count.
    pub(super) fn new(
        tensors: Vec<(String, TensorBuf)>,
        counts: impl Fn(&str) -> bool,
    ) -> Result<Self, NodeError> {
        let mut by_name = BTreeMap::new();
        for (name, tensor) in tensors.into_iter().filter(|(name, _)| counts(name)) {
            if by_name.contains_key(&name) {
                return Err(NodeError::invalid_input(format!("tensor {name} is there twice")));
            }
            by_name.insert(name, tensor);
        }
        Ok(Self { tensors: by_name, taken: Arc::default() })
    }

    pub(super) fn len(&self) -> usize {
        self.tensors.len()
    }

    /// How many were taken so far.
    pub(super) fn taken(&self) -> Arc<AtomicUsize> {
        self.taken.clone()
    }

    /// All of them in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &TensorBuf)> {
        self.tensors.iter()
    }
}

impl HeldTensors for HostTensors {
    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensors.get(name)?.dims())
    }

    fn type_name(&self, name: &str) -> Option<String> {
        Some(self.tensors.get(name)?.dtype().to_string())
    }

    fn read(&self, name: &str) -> vocable_engine::Result<Tensor> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| vocable_engine::Error::not_found("it is not there"))?;
        self.taken.fetch_add(1, Ordering::Relaxed);
        weight_from(tensor)
    }
}
