//! Group normalisation (Wu and He 2018), with the SiLU that follows it in every residual block fused in.
//!
//! Over each group of C/G channels: x̂ = (x − μ)·r with r = 1/√(σ² + ε), u = γ·x̂ + β, and y = u or y = SiLU(u).
//! Gradient, with ĝ = ∂u·γ and means over the group: ∂x = r·(ĝ − mean(ĝ) − x̂·mean(ĝ·x̂)), where ∂u = ∂y or ∂y·SiLU′(u).
//! Only x, μ and r are kept for the way back.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::math::{sigmoid, sum_by, vectorised};
use super::tape::{Tape, Traced};
use super::view::{View, as_computed, has_kernel, tensor};
use crate::{Error, Result};

/// A frozen group normalisation.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// γ `[C]`
    pub weight: Tensor,
    /// β `[C]`
    pub bias: Tensor,
    /// G, a divisor of C.
    pub num_groups: usize,
    /// ε
    pub eps: f64,
}

impl GroupNorm {
    /// The normalised `x [B, C, H, W]`.
    pub fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        self.run(tape, x, false)
    }

    /// SiLU of the normalised `x [B, C, H, W]`.
    pub fn forward_silu(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        self.run(tape, x, true)
    }

    fn run(&self, tape: &Tape, x: &Traced, silu: bool) -> Result<Traced> {
        tape.check()?;
        let (_, c, _, _) = x.value().dims4()?;
        if self.weight.dims1()? != c || self.num_groups == 0 || c % self.num_groups != 0 {
            return Err(Error::incompatible(format!(
                "a group norm of {} channels in {} groups got a tensor of shape {:?}",
                self.weight.dims1()?,
                self.num_groups,
                x.dims()
            )));
        }
        let x_value = x.value().contiguous()?;
        let norm = self.clone();
        if has_kernel(&x_value) {
            let (value, statistics) = norm.forward_kernel(&x_value, silu)?;
            Ok(tape.record(value, &[x], move |gradient| {
                Ok(vec![Some(norm.gradient_kernel(&x_value, &statistics, &gradient.contiguous()?, silu)?)])
            }))
        } else {
            let value = norm.forward_composed(&x_value, silu)?;
            Ok(tape.record(value, &[x], move |gradient| {
                Ok(vec![Some(norm.gradient_composed(&x_value, gradient, silu)?)])
            }))
        }
    }

    /// γ and β as plain numbers.
    fn affine(&self, x: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((as_computed(&self.weight, x)?.to_vec1()?, as_computed(&self.bias, x)?.to_vec1()?))
    }

    fn forward_kernel(&self, x: &Tensor, silu: bool) -> Result<(Tensor, Vec<(f32, f32)>)> {
        let (_, c, h, w) = x.dims4()?;
        let (weight, bias) = self.affine(x)?;
        let (channels, plane) = (c / self.num_groups, h * w);
        let mut y = vec![0f32; x.elem_count()];
        let mut statistics = vec![(0f32, 0f32); x.elem_count() / (channels * plane)];
        {
            let x = View::new(x)?;
            y.par_chunks_mut(channels * plane)
                .zip(x.par_chunks(channels * plane))
                .zip(&mut statistics)
                .enumerate()
                .for_each(|(group, ((y, x), statistics))| {
                    let first = group % self.num_groups * channels;
                    vectorised(
                        #[inline(always)]
                        || {
                            let n = x.len() as f32;
                            let mean = sum_by(x.len(), |i| x[i]) / n;
                            let variance = sum_by(x.len(), |i| (x[i] - mean) * (x[i] - mean)) / n;
                            let r = 1.0 / (variance + self.eps as f32).sqrt();
                            *statistics = (mean, r);
                            for (i, (y, x)) in
                                y.chunks_exact_mut(plane).zip(x.chunks_exact(plane)).enumerate()
                            {
                                let scale = weight[first + i] * r;
                                let shift = bias[first + i] - mean * scale;
                                if silu {
                                    for (y, x) in y.iter_mut().zip(x) {
                                        let u = x * scale + shift;
                                        *y = u * sigmoid(u);
                                    }
                                } else {
                                    for (y, x) in y.iter_mut().zip(x) {
                                        *y = x * scale + shift;
                                    }
                                }
                            }
                        },
                    );
                });
        }
        Ok((tensor(y, x.dims())?, statistics))
    }

    fn gradient_kernel(
        &self,
        x: &Tensor,
        statistics: &[(f32, f32)],
        gradient: &Tensor,
        silu: bool,
    ) -> Result<Tensor> {
        let (_, c, h, w) = x.dims4()?;
        let (weight, bias) = self.affine(x)?;
        let (channels, plane) = (c / self.num_groups, h * w);
        let mut dx = vec![0f32; x.elem_count()];
        {
            let (x, gradient) = (View::new(x)?, View::new(gradient)?);
            dx.par_chunks_mut(channels * plane)
                .zip(x.par_chunks(channels * plane))
                .zip(gradient.par_chunks(channels * plane))
                .zip(statistics)
                .enumerate()
                .for_each(|(group, (((dx, x), gradient), &(mean, r)))| {
                    let first = group % self.num_groups * channels;
                    vectorised(
                        #[inline(always)]
                        || {
                            // First ĝ into dx, then its two means, then the result in place.
                            for i in 0..channels {
                                let range = i * plane..(i + 1) * plane;
                                let (gamma, beta) = (weight[first + i], bias[first + i]);
                                let (dx, x, g) =
                                    (&mut dx[range.clone()], &x[range.clone()], &gradient[range]);
                                for ((dx, x), g) in dx.iter_mut().zip(x).zip(g) {
                                    let slope = if silu {
                                        let u = (x - mean) * r * gamma + beta;
                                        let s = sigmoid(u);
                                        s * (1.0 + u * (1.0 - s))
                                    } else {
                                        1.0
                                    };
                                    *dx = g * slope * gamma;
                                }
                            }
                            let n = dx.len() as f32;
                            let mean_g = sum_by(dx.len(), |i| dx[i]) / n;
                            let mean_gx = sum_by(dx.len(), |i| dx[i] * (x[i] - mean) * r) / n;
                            for (dx, x) in dx.iter_mut().zip(x) {
                                *dx = r * (*dx - mean_g - (x - mean) * r * mean_gx);
                            }
                        },
                    );
                });
        }
        tensor(dx, x.dims())
    }

    /// x̂ and r as `[B, G, (C/G)·H·W]` and `[B, G, 1]`, in f32.
    fn normalised(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (b, c, h, w) = x.dims4()?;
        let x = x.to_dtype(DType::F32)?.reshape((b, self.num_groups, c / self.num_groups * h * w))?;
        let centred = x.broadcast_sub(&x.mean_keepdim(2)?)?;
        let r = (centred.sqr()?.mean_keepdim(2)? + self.eps)?.sqrt()?.recip()?;
        Ok((centred.broadcast_mul(&r)?, r))
    }

    /// γ and β, shaped to be spread over planes, in f32.
    fn affine_composed(&self) -> Result<(Tensor, Tensor)> {
        let c = self.weight.dims1()?;
        let shape = |t: &Tensor| -> Result<Tensor> { Ok(t.to_dtype(DType::F32)?.reshape((1, c, 1, 1))?) };
        Ok((shape(&self.weight)?, shape(&self.bias)?))
    }

    fn forward_composed(&self, x: &Tensor, silu: bool) -> Result<Tensor> {
        let (weight, bias) = self.affine_composed()?;
        let (normalised, _) = self.normalised(x)?;
        let u = normalised.reshape(x.shape())?.broadcast_mul(&weight)?.broadcast_add(&bias)?;
        let y = if silu { u.silu()? } else { u };
        Ok(y.to_dtype(x.dtype())?)
    }

    fn gradient_composed(&self, x: &Tensor, gradient: &Tensor, silu: bool) -> Result<Tensor> {
        let (weight, bias) = self.affine_composed()?;
        let (normalised, r) = self.normalised(x)?;
        let mut g = gradient.to_dtype(DType::F32)?;
        if silu {
            let u = normalised.reshape(x.shape())?.broadcast_mul(&weight)?.broadcast_add(&bias)?;
            let s = (u.neg()?.exp()? + 1.0)?.recip()?;
            g = (g * (&s * ((&u * s.affine(-1.0, 1.0)?)? + 1.0)?)?)?;
        }
        let g = g.broadcast_mul(&weight)?.reshape(normalised.shape())?;
        let mean_gx = (&g * &normalised)?.mean_keepdim(2)?;
        let dx = g.broadcast_sub(&g.mean_keepdim(2)?)?.broadcast_sub(&normalised.broadcast_mul(&mean_gx)?)?;
        Ok(dx.broadcast_mul(&r)?.reshape(x.shape())?.to_dtype(x.dtype())?)
    }

    /// The composed forward pass and gradient, for the checks.
    #[cfg(test)]
    pub(super) fn composed(&self, x: &Tensor, gradient: &Tensor, silu: bool) -> Result<(Tensor, Tensor)> {
        Ok((self.forward_composed(x, silu)?, self.gradient_composed(x, gradient, silu)?))
    }
}
