//! The tape: records what a forward pass did, and walks back through it for the gradient of its *inputs*.
//!
//! Candle's own graph computes and keeps a gradient for every frozen weight, holds every intermediate until the loss is dropped,
//! and cannot be stopped half-way. The tape knows only activations: an operation that no trainable value reaches is not recorded at
//! all, each record is freed as soon as it has been walked, and the cancel flag is looked at before every operation, both ways (the long ones look at it inside, too).

use std::cell::RefCell;

use candle_core::Tensor;

use crate::{CancelToken, Error, ErrorKind, Result};

/// From the gradient of an operation's output to the gradients of its inputs, in their order; `None` where none is wanted.
type Backward = Box<dyn FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>>>;

struct Record {
    /// Tape positions of the inputs; `None` for an input that nothing trainable reaches.
    inputs: Vec<Option<usize>>,
    /// `None` for a leaf.
    backward: Option<Backward>,
}

/// A tensor and, if something trainable reaches it, its place on the tape.
#[derive(Debug, Clone)]
pub struct Traced {
    value: Tensor,
    position: Option<usize>,
}

impl Traced {
    /// A value that nothing trainable reaches.
    pub fn constant(value: Tensor) -> Self {
        Self { value, position: None }
    }

    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The tensor, without its place on the tape.
    pub fn into_value(self) -> Tensor {
        self.value
    }

    /// Whether a gradient will be wanted for this value.
    pub fn is_tracked(&self) -> bool {
        self.position.is_some()
    }

    /// The sizes of the dimensions.
    pub fn dims(&self) -> &[usize] {
        self.value.dims()
    }
}

impl From<Tensor> for Traced {
    fn from(value: Tensor) -> Self {
        Self::constant(value)
    }
}

/// The record of one forward pass.
#[derive(Default)]
pub struct Tape {
    records: RefCell<Vec<Record>>,
    cancel: CancelToken,
}

impl Tape {
    /// An empty tape. With no [`leaf`](Self::leaf) on it a pass records nothing and costs nothing: the way to run a model without
    /// a gradient.
    pub fn new(cancel: CancelToken) -> Self {
        Self { records: RefCell::default(), cancel }
    }

    /// Put a trainable value on the tape.
    pub fn leaf(&self, value: Tensor) -> Traced {
        let mut records = self.records.borrow_mut();
        records.push(Record { inputs: Vec::new(), backward: None });
        Traced { value, position: Some(records.len() - 1) }
    }

    /// How many records the tape holds.
    pub fn len(&self) -> usize {
        self.records.borrow().len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// [`ErrorKind::Cancelled`] once the flag is up. Every operation calls it before it works.
    pub fn check(&self) -> Result<()> {
        self.cancel.check()
    }

    /// The flag that this tape looks at.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Record that `value` was made from `inputs`. `backward` maps the gradient of `value` to those of `inputs` and is dropped
    /// unused when none of them is tracked.
    pub fn record<F>(&self, value: Tensor, inputs: &[&Traced], backward: F) -> Traced
    where
        F: FnOnce(&Tensor) -> Result<Vec<Option<Tensor>>> + 'static,
    {
        if inputs.iter().all(|input| input.position.is_none()) {
            return Traced::constant(value);
        }
        let mut records = self.records.borrow_mut();
        records.push(Record {
            inputs: inputs.iter().map(|input| input.position).collect(),
            backward: Some(Box::new(backward)),
        });
        Traced { value, position: Some(records.len() - 1) }
    }

    /// Walk back from `output`, whose gradient is `gradient`, and return the gradient of `leaf` (zeros if `output` does not depend
    /// on it). Each record is freed once walked; the tape is empty afterwards.
    pub fn backward(&self, output: &Traced, gradient: Tensor, leaf: &Traced) -> Result<Tensor> {
        let mut records = std::mem::take(&mut *self.records.borrow_mut());
        let (Some(start), Some(leaf_position)) = (output.position, leaf.position) else {
            return Ok(leaf.value.zeros_like()?);
        };
        if start >= records.len() || leaf_position >= records.len() {
            return Err(Error::new(
                ErrorKind::Internal,
                "the value is not on this tape: it was walked before",
            ));
        }
        let mut gradients: Vec<Option<Tensor>> = vec![None; records.len()];
        gradients[start] = Some(gradient);
        records.truncate(start + 1);
        while let Some(Record { inputs, backward }) = records.pop() {
            let position = records.len();
            let Some(backward) = backward else { continue };
            let Some(gradient) = gradients[position].take() else { continue };
            self.check()?;
            for (input, gradient) in inputs.into_iter().zip(backward(&gradient)?) {
                if let (Some(input), Some(gradient)) = (input, gradient) {
                    gradients[input] = Some(match gradients[input].take() {
                        Some(sum) => super::elementwise::sum(&sum, &gradient)?,
                        None => gradient,
                    });
                }
            }
        }
        match gradients.swap_remove(leaf_position) {
            Some(gradient) => Ok(gradient),
            None => Ok(leaf.value.zeros_like()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::ErrorKind;
    use crate::ops::add;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_of_a_value_used_twice_add_up() {
        let tape = Tape::default();
        let x = tape.leaf(tensor(&[1., 2.]));
        let y = add(&tape, &x, &x).unwrap();
        let z = add(&tape, &y, &x).unwrap();
        let g = tape.backward(&z, tensor(&[1., 10.]), &x).unwrap();
        assert_eq!(g.to_vec1::<f32>().unwrap(), [3., 30.]);
        assert!(tape.is_empty());
    }

    #[test]
    fn constants_leave_no_record() {
        let tape = Tape::default();
        let x = Traced::constant(tensor(&[1., 2.]));
        let y = add(&tape, &x, &x).unwrap();
        assert!(!y.is_tracked());
        assert!(tape.is_empty());
    }

    #[test]
    fn a_raised_flag_stops_both_ways() {
        let cancel = CancelToken::new();
        let tape = Tape::new(cancel.clone());
        let x = tape.leaf(tensor(&[1.]));
        let y = add(&tape, &x, &x).unwrap();
        cancel.cancel();
        assert_eq!(add(&tape, &y, &x).unwrap_err().kind, ErrorKind::Cancelled);
        assert_eq!(tape.backward(&y, tensor(&[1.]), &x).unwrap_err().kind, ErrorKind::Cancelled);
    }
}
