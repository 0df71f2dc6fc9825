//! Weights that another program holds in memory.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::{Error, Result};

/// Named tensors that somebody else holds. Each is read when it is taken, so that beside the network that is made of them there is never more than
/// one of them twice.
pub trait HeldTensors: Send + Sync {
    /// All names, in any order.
    fn names(&self) -> Vec<&str>;

    /// The shape of a tensor; `None` if there is none of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// What the holder calls the type of a tensor's numbers.
    fn type_name(&self, name: &str) -> Option<String>;

    /// A tensor in its own type, row by row in ordinary memory (or where its holder computes). Networks take each tensor once, so that its holder may
    /// let it go then.
    ///
    /// # Errors
    /// If there is none of that name, or its numbers are of a type that weights do not have; the name is added by whoever asked.
    fn read(&self, name: &str) -> Result<Tensor>;
}

impl HeldTensors for HashMap<String, Tensor> {
    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.get(name)?.dims().to_vec())
    }

    fn type_name(&self, name: &str) -> Option<String> {
        Some(format!("{:?}", self.get(name)?.dtype()))
    }

    fn read(&self, name: &str) -> Result<Tensor> {
        self.get(name).cloned().ok_or_else(|| Error::not_found("it is not there"))
    }
}
