//! Sums of tensors.

use candle_core::Tensor;
use rayon::prelude::*;

use super::tape::{Tape, Traced};
use super::view::{View, has_kernel, tensor};
use crate::Result;

/// Elements per task of the thread pool: enough to be worth a task.
const GRAIN: usize = 1 << 15;

/// `a + b` for tensors of one shape, outside the tape.
pub(super) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !has_kernel(a) || a.dims() != b.dims() {
        return Ok((a + b)?);
    }
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let mut out = vec![0f32; a.elem_count()];
    {
        let (a, b) = (View::new(&a)?, View::new(&b)?);
        out.par_chunks_mut(GRAIN).zip(a.par_chunks(GRAIN)).zip(b.par_chunks(GRAIN)).for_each(
            |((out, a), b)| {
                for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                    *out = a + b;
                }
            },
        );
    }
    tensor(out, a.dims())
}

/// A residual connection: `a + b`. Both inputs receive the output's gradient as it is.
pub fn add(tape: &Tape, a: &Traced, b: &Traced) -> Result<Traced> {
    tape.check()?;
    let value = sum(a.value(), b.value())?;
    Ok(tape.record(value, &[a, b], |gradient| Ok(vec![Some(gradient.clone()), Some(gradient.clone())])))
}

/// `x [B, C, H, W] + v [B, C]`, each `v` spread over its plane (the time embedding). The gradient of `v` is the sum over its plane.
pub fn add_per_channel(tape: &Tape, x: &Traced, v: &Traced) -> Result<Traced> {
    tape.check()?;
    let (b, c, h, w) = x.value().dims4()?;
    let value = if has_kernel(x.value()) {
        let (x, v) = (x.value().contiguous()?, v.value().contiguous()?);
        let mut out = vec![0f32; x.elem_count()];
        {
            let (x, v) = (View::new(&x)?, View::new(&v)?);
            let plane = h * w;
            out.par_chunks_mut(plane).with_min_len(GRAIN.div_ceil(plane)).enumerate().for_each(|(i, out)| {
                for (out, x) in out.iter_mut().zip(&x[i * plane..]) {
                    *out = x + v[i];
                }
            });
        }
        tensor(out, &[b, c, h, w])?
    } else {
        x.value().broadcast_add(&v.value().reshape((b, c, 1, 1))?)?
    };
    let wants = v.is_tracked();
    Ok(tape.record(value, &[x, v], move |gradient| {
        let of_v = if wants { Some(gradient.flatten_from(2)?.sum(2)?) } else { None };
        Ok(vec![Some(gradient.clone()), of_v])
    }))
}

/// Whether all numbers are finite: NaN and infinity survive a sum of absolute values.
pub(crate) fn all_finite(x: &Tensor) -> Result<bool> {
    Ok(x.to_dtype(candle_core::DType::F32)?.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite())
}

/// `f` of every element, on the CPU, with vector instructions.
pub(super) fn map(x: &Tensor, f: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut out = vec![0f32; x.elem_count()];
    {
        let x = View::new(&x)?;
        out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).for_each(|(out, x)| {
            super::math::vectorised(
                #[inline(always)]
                || {
                    for (out, x) in out.iter_mut().zip(x) {
                        *out = f(*x);
                    }
                },
            );
        });
    }
    tensor(out, x.dims())
}

/// `f(x, y)` of every pair of elements, on the CPU, with vector instructions.
pub(super) fn zip_map(x: &Tensor, y: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let mut out = vec![0f32; x.elem_count()];
    {
        let (x, y) = (View::new(&x)?, View::new(&y)?);
        out.par_chunks_mut(GRAIN).zip(x.par_chunks(GRAIN)).zip(y.par_chunks(GRAIN)).for_each(
            |((out, x), y)| {
                super::math::vectorised(
                    #[inline(always)]
                    || {
                        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                            *out = f(*x, *y);
                        }
                    },
                );
            },
        );
    }
    tensor(out, x.dims())
}
