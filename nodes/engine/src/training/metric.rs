//! Steps measured by the vocabulary.
//!
//! Adam moves every coordinate of a vector by about the learning rate, whether the words of the vocabulary differ much in it or not. With C the
//! covariance of the token table's rows and PPᵀ = C̃ = (1−λ)C + λ·tr(C)/d·I, scaled to a mean variance of 1, the vector is v = v₀ + P·u and u is what Adam
//! moves: ∂L/∂u = Pᵀ·∂L/∂v, Δv = P·Δu. A step then goes far where words differ from each other and not far where none of them does, so that the
//! new word is sought among words. In a vocabulary that spreads evenly P is the identity, and nothing changes. λ keeps every direction open.

use std::ops::Range;

use candle_core::{DType, Device};

use crate::models::TextEncoders;
use crate::{Error, Result};

/// λ
const EVEN_SHARE: f64 = 0.05;

/// The factor P of each text encoder's vocabulary.
#[derive(Debug, Clone)]
pub(super) struct Metric {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    columns: Range<usize>,
    /// Lower triangular, row-major, d × d.
    factor: Vec<f32>,
}

impl Metric {
    /// Measure the vocabularies.
    pub(super) fn new(text: &TextEncoders) -> Result<Self> {
        let parts = text.with_columns().map(|(tower, columns)| {
            let table = tower.encoder.token_embedding().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            let (rows, d) = table.dims2()?;
            let centred = table.broadcast_sub(&table.mean_keepdim(0)?)?;
            let covariance = (centred.t()?.contiguous()?.matmul(&centred)? / rows.max(1) as f64)?;
            let mut c: Vec<f64> = covariance.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?;
            let trace: f64 = (0..d).map(|i| c[i * d + i]).sum();
            let mean = trace / d as f64;
            if !(mean.is_finite() && mean > 0.0) {
                return Err(Error::incompatible(
                    "all rows of the token table are the same: it has no metric",
                ));
            }
            c.iter_mut().for_each(|x| *x *= (1.0 - EVEN_SHARE) / mean);
            (0..d).for_each(|i| c[i * d + i] += EVEN_SHARE);
            Ok(Part { columns, factor: cholesky(&mut c, d) })
        });
        Ok(Self { parts: parts.collect::<Result<_>>()? })
    }

    /// Pᵀ·`gradient`, row by row of `[n, D]`.
    pub(super) fn pull(&self, gradient: &[f32]) -> Vec<f32> {
        self.each(gradient, |factor, d, from, to| {
            for i in 0..d {
                let row = &factor[i * d..=i * d + i];
                to.iter_mut().zip(row).for_each(|(to, p)| *to += p * from[i]);
            }
        })
    }

    /// P·`u`, row by row of `[n, D]`.
    pub(super) fn push(&self, u: &[f32]) -> Vec<f32> {
        self.each(u, |factor, d, from, to| {
            for i in 0..d {
                let row = &factor[i * d..=i * d + i];
                to[i] = row.iter().zip(from).map(|(p, u)| p * u).sum();
            }
        })
    }

    fn each(&self, from: &[f32], map: impl Fn(&[f32], usize, &[f32], &mut [f32])) -> Vec<f32> {
        let mut to = vec![0f32; from.len()];
        let width = self.parts.last().map_or(1, |part| part.columns.end);
        for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
            for Part { columns, factor } in &self.parts {
                map(factor, columns.len(), &from[columns.clone()], &mut to[columns.clone()]);
            }
        }
        to
    }
}

/// L with LLᵀ = `c` (d × d, symmetric, positive definite), lower triangular; `c` is overwritten.
fn cholesky(c: &mut [f64], d: usize) -> Vec<f32> {
    for j in 0..d {
        let (above, below) = c.split_at_mut((j + 1) * d);
        let row_j = &mut above[j * d..];
        let rest: f64 = row_j[..j].iter().map(|x| x * x).sum();
        // λ of the diagonal keeps this above 0.
        let pivot = (row_j[j] - rest).max(f64::MIN_POSITIVE).sqrt();
        row_j[j] = pivot;
        for row_i in below.chunks_exact_mut(d) {
            let dot: f64 = row_i[..j].iter().zip(&row_j[..j]).map(|(a, b)| a * b).sum();
            row_i[j] = (row_i[j] - dot) / pivot;
        }
    }
    c.iter().enumerate().map(|(at, x)| if at % d <= at / d { *x as f32 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_one_of_the_covariance_and_its_transpose_fits() {
        let mut c = vec![4.0, 2.0, 0.6, 2.0, 2.0, 0.5, 0.6, 0.5, 1.5];
        let wanted = c.clone();
        let factor = cholesky(&mut c, 3);
        for i in 0..3 {
            for j in 0..3 {
                let found: f32 = (0..3).map(|k| factor[i * 3 + k] * factor[j * 3 + k]).sum();
                assert!((f64::from(found) - wanted[i * 3 + j]).abs() < 1e-6, "{i} {j}");
            }
        }
        // ⟨P·u, g⟩ = ⟨u, Pᵀ·g⟩, in two rows of two parts.
        let parts = vec![Part { columns: 0..3, factor }, Part { columns: 3..4, factor: vec![2.0] }];
        let metric = Metric { parts };
        let (u, g): (Vec<f32>, Vec<f32>) = (0..8).map(|i| (i as f32 - 3.0, 1.0 / (i + 1) as f32)).unzip();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!((dot(&metric.push(&u), &g) - dot(&u, &metric.pull(&g))).abs() < 1e-5);
        assert_eq!(metric.push(&u)[3], 0.0);
        assert_eq!(metric.push(&u)[7], 8.0);
    }
}
