//! Activations: SiLU, the two GELUs of CLIP, and GEGLU.
//!
//! SiLU(x) = x·σ(x) · QuickGELU(x) = x·σ(1.702 x) · GELU(x) = x·Φ(x), with the exact Φ (erf), as the reference code of every
//! Stable Diffusion has it (candle-transformers takes the tanh approximation: 4e-4 off).
//!
//! Derivatives: SiLU′ = σ(x)(1 + x(1 − σ(x))) · QuickGELU′ = s(1 + 1.702 x(1 − s)), s = σ(1.702 x) · GELU′ = Φ(x) + x φ(x).

use candle_core::{D, Tensor};
use rayon::prelude::*;

use super::elementwise::{map, zip_map};
use super::math::{normal_cdf, normal_pdf, sigmoid, vectorised};
use super::tape::{Tape, Traced};
use super::view::{View, has_kernel, tensor};
use crate::Result;

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x), also called swish.
    Silu,
    /// x·σ(1.702 x): OpenAI's CLIP.
    QuickGelu,
    /// x·Φ(x): OpenCLIP.
    Gelu,
}

impl Activation {
    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Silu => x * sigmoid(x),
            Self::QuickGelu => x * sigmoid(1.702 * x),
            Self::Gelu => x * normal_cdf(x),
        }
    }

    #[inline(always)]
    fn slope(self, x: f32) -> f32 {
        match self {
            Self::Silu => {
                let s = sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::QuickGelu => {
                let s = sigmoid(1.702 * x);
                s * (1.0 + 1.702 * x * (1.0 - s))
            }
            Self::Gelu => normal_cdf(x) + x * normal_pdf(x),
        }
    }

    fn value_composed(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => (x * logistic(x)?)?,
            Self::QuickGelu => (x * logistic(&(x * 1.702)?)?)?,
            Self::Gelu => x.gelu_erf()?,
        })
    }

    fn slope_composed(self, x: &Tensor) -> Result<Tensor> {
        let scale = match self {
            Self::Silu => 1.0,
            Self::QuickGelu => 1.702,
            Self::Gelu => {
                let cdf = ((x / 2f64.sqrt())?.erf()? + 1.0)?.affine(0.5, 0.0)?;
                let pdf = (x.sqr()? * -0.5)?.exp()?.affine(0.398_942_280_401_432_7, 0.0)?;
                return Ok((cdf + (x * pdf)?)?);
            }
        };
        let s = logistic(&(x * scale)?)?;
        let rest = (x * s.affine(-scale, scale)?)?;
        Ok((s * (rest + 1.0)?)?)
    }
}

fn logistic(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// `f(x)`, element by element.
pub fn activation(tape: &Tape, x: &Traced, f: Activation) -> Result<Traced> {
    tape.check()?;
    let x_value = x.value().clone();
    let value = if has_kernel(&x_value) {
        match f {
            Activation::Silu => map(&x_value, |x| Activation::Silu.value(x))?,
            Activation::QuickGelu => map(&x_value, |x| Activation::QuickGelu.value(x))?,
            Activation::Gelu => map(&x_value, |x| Activation::Gelu.value(x))?,
        }
    } else {
        f.value_composed(&x_value)?
    };
    Ok(tape.record(value, &[x], move |gradient| {
        let gradient = if has_kernel(&x_value) {
            match f {
                Activation::Silu => zip_map(&x_value, gradient, |x, g| g * Activation::Silu.slope(x))?,
                Activation::QuickGelu => {
                    zip_map(&x_value, gradient, |x, g| g * Activation::QuickGelu.slope(x))?
                }
                Activation::Gelu => zip_map(&x_value, gradient, |x, g| g * Activation::Gelu.slope(x))?,
            }
        } else {
            (gradient * f.slope_composed(&x_value)?)?
        };
        Ok(vec![Some(gradient)])
    }))
}

/// GEGLU(x) = a · GELU(g), where x `[…, 2n]` holds a and then g (Shazeer 2020, "GLU Variants Improve Transformer").
///
/// Gradients: ∂a = y′ · GELU(g), ∂g = y′ · a · GELU′(g).
pub fn geglu(tape: &Tape, x: &Traced) -> Result<Traced> {
    tape.check()?;
    let x_value = x.value().contiguous()?;
    let mut shape = x_value.dims().to_vec();
    let n = shape.last().copied().unwrap_or(0) / 2;
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    let value = if has_kernel(&x_value) {
        let mut out = vec![0f32; x_value.elem_count() / 2];
        {
            let x = View::new(&x_value)?;
            out.par_chunks_mut(n).with_min_len(rows_per_task(n)).zip(x.par_chunks(2 * n)).for_each(
                |(out, x)| {
                    vectorised(
                        #[inline(always)]
                        || {
                            let (a, g) = x.split_at(n);
                            for ((out, a), g) in out.iter_mut().zip(a).zip(g) {
                                *out = a * Activation::Gelu.value(*g);
                            }
                        },
                    );
                },
            );
        }
        tensor(out, &shape)?
    } else {
        let (a, g) = halves(&x_value, n)?;
        (a * Activation::Gelu.value_composed(&g)?)?
    };
    Ok(tape.record(value, &[x], move |gradient| {
        let gradient = gradient.contiguous()?;
        let gradient = if has_kernel(&x_value) {
            let mut out = vec![0f32; x_value.elem_count()];
            {
                let (x, gradient) = (View::new(&x_value)?, View::new(&gradient)?);
                out.par_chunks_mut(2 * n)
                    .with_min_len(rows_per_task(n))
                    .zip(x.par_chunks(2 * n))
                    .zip(gradient.par_chunks(n))
                    .for_each(|((out, x), gradient)| {
                        vectorised(
                            #[inline(always)]
                            || {
                                let (a, g) = x.split_at(n);
                                let (da, dg) = out.split_at_mut(n);
                                for i in 0..n {
                                    let cdf = normal_cdf(g[i]);
                                    da[i] = gradient[i] * g[i] * cdf;
                                    dg[i] = gradient[i] * a[i] * (cdf + g[i] * normal_pdf(g[i]));
                                }
                            },
                        );
                    });
            }
            tensor(out, x_value.dims())?
        } else {
            let (a, g) = halves(&x_value, n)?;
            let da = (&gradient * Activation::Gelu.value_composed(&g)?)?;
            let dg = ((&gradient * a)? * Activation::Gelu.slope_composed(&g)?)?;
            Tensor::cat(&[da, dg], D::Minus1)?
        };
        Ok(vec![Some(gradient)])
    }))
}

fn rows_per_task(n: usize) -> usize {
    (1usize << 13).div_ceil(n.max(1))
}

fn halves(x: &Tensor, n: usize) -> Result<(Tensor, Tensor)> {
    Ok((x.narrow(D::Minus1, 0, n)?.contiguous()?, x.narrow(D::Minus1, n, n)?.contiguous()?))
}
