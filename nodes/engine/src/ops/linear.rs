//! y = x·Wᵀ + b, with W and b frozen. The gradient of the input: ∂x = ∂y·W.

use candle_core::Tensor;
use rayon::prelude::*;

use super::gemm::{Mat, Threads, gemm};
use super::tape::{Tape, Traced};
use super::view::{View, as_computed, has_kernel, tensor};
use crate::{Error, Result};

/// A frozen linear layer.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[out, in]`
    pub weight: Tensor,
    /// `[out]`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// The layer on `x [.., in]`; the result is `[.., out]`.
    pub fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        tape.check()?;
        let (out, inner) = self.weight.dims2()?;
        let shape = x.dims().to_vec();
        if shape.last() != Some(&inner) {
            return Err(Error::incompatible(format!(
                "a linear layer takes {inner} channels, but got {shape:?}"
            )));
        }
        let value = if has_kernel(x.value()) {
            self.forward_kernel(x.value())?
        } else {
            let weight = as_computed(&self.weight, x.value())?;
            let y = rows(x.value(), inner)?.matmul(&weight.t()?)?;
            let y = match &self.bias {
                Some(bias) => y.broadcast_add(&as_computed(bias, x.value())?)?,
                None => y,
            };
            y.reshape(with_last(&shape, out))?
        };
        let weight = self.weight.clone();
        Ok(tape.record(value, &[x], move |gradient| {
            let gradient = gradient.contiguous()?;
            let weight = as_computed(&weight, &gradient)?;
            let gradient = if has_kernel(&gradient) {
                let weight = weight.contiguous()?;
                let (g, w) = (View::new(&gradient)?, View::new(&weight)?);
                let m = g.len() / out;
                let mut dx = vec![0f32; m * inner];
                gemm(&mut dx, inner, Mat::dense(&g, m, out), Mat::dense(&w, out, inner), false, Threads::All);
                tensor(dx, &shape)?
            } else {
                rows(&gradient, out)?.matmul(&weight)?.reshape(shape.as_slice())?
            };
            Ok(vec![Some(gradient)])
        }))
    }

    /// The layer on a constant, outside any gradient.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(&Tape::default(), &x.clone().into())?.into_value())
    }

    fn forward_kernel(&self, x: &Tensor) -> Result<Tensor> {
        let (out, inner) = self.weight.dims2()?;
        let (x, weight) = (x.contiguous()?, as_computed(&self.weight, x)?.contiguous()?);
        let bias = self
            .bias
            .as_ref()
            .map(|bias| as_computed(bias, &x)?.to_vec1::<f32>().map_err(Error::from))
            .transpose()?;
        let m = x.elem_count() / inner;
        let mut y = vec![0f32; m * out];
        if let Some(bias) = &bias {
            y.par_chunks_mut(out).with_min_len(1024).for_each(|row| row.copy_from_slice(bias));
        }
        {
            let (x, w) = (View::new(&x)?, View::new(&weight)?);
            gemm(
                &mut y,
                out,
                Mat::dense(&x, m, inner),
                Mat::dense(&w, out, inner).t(),
                bias.is_some(),
                Threads::All,
            );
        }
        tensor(y, &with_last(x.dims(), out))
    }
}

fn rows(x: &Tensor, channels: usize) -> Result<Tensor> {
    Ok(x.contiguous()?.reshape((x.elem_count() / channels, channels))?)
}

fn with_last(shape: &[usize], last: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    if let Some(end) = shape.last_mut() {
        *end = last;
    }
    shape
}
