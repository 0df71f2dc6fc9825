//! Layer normalisation (Ba, Kiros and Hinton 2016) over the last dimension.
//!
//! x̂ = (x − μ)·r, r = 1/√(σ² + ε), y = γ·x̂ + β. Gradient, with ĝ = ∂y·γ: ∂x = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)).

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::math::{sum_by, vectorised};
use super::tape::{Tape, Traced};
use super::view::{View, as_computed, has_kernel, tensor};
use crate::{Error, Result};

/// A frozen layer normalisation.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// γ `[C]`
    pub weight: Tensor,
    /// β `[C]`
    pub bias: Tensor,
    /// ε
    pub eps: f64,
}

impl LayerNorm {
    /// The normalised `x [.., C]`.
    pub fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        tape.check()?;
        let c = self.weight.dims1()?;
        if x.dims().last() != Some(&c) {
            return Err(Error::incompatible(format!(
                "a layer norm of {c} channels got a tensor of shape {:?}",
                x.dims()
            )));
        }
        let x_value = x.value().contiguous()?;
        let norm = self.clone();
        let value = if has_kernel(&x_value) {
            self.forward_kernel(&x_value)?
        } else {
            self.forward_composed(&x_value)?
        };
        Ok(tape.record(value, &[x], move |gradient| {
            let dx = if has_kernel(&x_value) {
                norm.gradient_kernel(&x_value, &gradient.contiguous()?)?
            } else {
                norm.gradient_composed(&x_value, gradient)?
            };
            Ok(vec![Some(dx)])
        }))
    }

    fn forward_kernel(&self, x: &Tensor) -> Result<Tensor> {
        let weight: Vec<f32> = as_computed(&self.weight, x)?.to_vec1()?;
        let bias: Vec<f32> = as_computed(&self.bias, x)?.to_vec1()?;
        let c = weight.len();
        let mut y = vec![0f32; x.elem_count()];
        {
            let x = View::new(x)?;
            y.par_chunks_mut(c).with_min_len(rows_per_task(c)).zip(x.par_chunks(c)).for_each(|(y, x)| {
                vectorised(
                    #[inline(always)]
                    || {
                        let (mean, r) = statistics(x, self.eps);
                        for i in 0..c {
                            y[i] = (x[i] - mean) * r * weight[i] + bias[i];
                        }
                    },
                );
            });
        }
        tensor(y, x.dims())
    }

    fn gradient_kernel(&self, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let weight: Vec<f32> = as_computed(&self.weight, x)?.to_vec1()?;
        let c = weight.len();
        let mut dx = vec![0f32; x.elem_count()];
        {
            let (x, gradient) = (View::new(x)?, View::new(gradient)?);
            dx.par_chunks_mut(c)
                .with_min_len(rows_per_task(c))
                .zip(x.par_chunks(c))
                .zip(gradient.par_chunks(c))
                .for_each(|((dx, x), gradient)| {
                    vectorised(
                        #[inline(always)]
                        || {
                            let (mean, r) = statistics(x, self.eps);
                            let mean_g = sum_by(c, |i| gradient[i] * weight[i]) / c as f32;
                            let mean_gx =
                                sum_by(c, |i| gradient[i] * weight[i] * (x[i] - mean) * r) / c as f32;
                            for i in 0..c {
                                dx[i] = r * (gradient[i] * weight[i] - mean_g - (x[i] - mean) * r * mean_gx);
                            }
                        },
                    );
                });
        }
        tensor(dx, x.dims())
    }

    fn normalised(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = x.to_dtype(DType::F32)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let r = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?.recip()?;
        Ok((centred.broadcast_mul(&r)?, r))
    }

    fn forward_composed(&self, x: &Tensor) -> Result<Tensor> {
        let (normalised, _) = self.normalised(x)?;
        let y = normalised
            .broadcast_mul(&self.weight.to_dtype(DType::F32)?)?
            .broadcast_add(&self.bias.to_dtype(DType::F32)?)?;
        Ok(y.to_dtype(x.dtype())?)
    }

    fn gradient_composed(&self, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (normalised, r) = self.normalised(x)?;
        let g = gradient.to_dtype(DType::F32)?.broadcast_mul(&self.weight.to_dtype(DType::F32)?)?;
        let mean_gx = (&g * &normalised)?.mean_keepdim(D::Minus1)?;
        let dx = g
            .broadcast_sub(&g.mean_keepdim(D::Minus1)?)?
            .broadcast_sub(&normalised.broadcast_mul(&mean_gx)?)?;
        Ok(dx.broadcast_mul(&r)?.to_dtype(x.dtype())?)
    }

    /// The composed forward pass and gradient, for the checks.
    #[cfg(test)]
    pub(super) fn composed(&self, x: &Tensor, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.forward_composed(x)?, self.gradient_composed(x, gradient)?))
    }
}

#[inline(always)]
fn statistics(x: &[f32], eps: f64) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_by(x.len(), |i| x[i]) / n;
    let variance = sum_by(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
    (mean, 1.0 / (variance + eps as f32).sqrt())
}

fn rows_per_task(c: usize) -> usize {
    (1usize << 14).div_ceil(c)
}
