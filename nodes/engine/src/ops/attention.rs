//! Scaled dot-product attention in several heads, without ever holding the table of weights.
//!
//! Per head, with d channels: S = Q·Kᵀ/√d (−∞ where the mask forbids), P = softmax(S), O = P·V.
//! Gradients, with Δ = rowsum(∂O ∘ O): ∂V = Pᵀ·∂O, ∂S = P ∘ (∂O·Vᵀ − Δ), ∂Q = ∂S·K/√d, ∂K = ∂Sᵀ·Q/√d.
//! The way back makes P again from Q, K and the kept log-sum-exp of each row, a block of rows at a time, so memory grows with the
//! number of tokens and not with its square (Dao et al. 2022, "FlashAttention", Rabe and Staats 2021).

use candle_core::{D, DType, Tensor};
use rayon::prelude::*;

use super::gemm::{Mat, Threads, gemm};
use super::math::{exp, sum_by, vectorised};
use super::tape::{Tape, Traced};
use super::view::{View, has_kernel, tensor};
use crate::{CancelToken, Error, Result};

/// Numbers of a block of scores: 1 MiB.
const BLOCK: usize = 1 << 18;
/// The same where candle's operations are composed, for all heads together: 128 MiB, enough to keep a GPU busy.
const COMPOSED_BLOCK: usize = 1 << 25;

/// Which keys a query may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All.
    None,
    /// Those at its own place and before it.
    Causal,
}

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    heads: usize,
    /// Channels of all heads together.
    c: usize,
    /// Channels of one head.
    d: usize,
    queries: usize,
    keys: usize,
    mask: Mask,
}

impl Geometry {
    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// How many keys the query at place `row` sees.
    #[inline(always)]
    fn seen(&self, row: usize) -> usize {
        match self.mask {
            Mask::None => self.keys,
            Mask::Causal => (row + 1).min(self.keys),
        }
    }

    fn rows_per_block(&self) -> usize {
        (BLOCK / self.keys.max(1)).clamp(8, 128).min(self.queries.max(1))
    }

    /// The `[tokens, d]` part of one head inside `[batch, tokens, c]`.
    fn head<'a>(&self, x: &'a [f32], index: usize, tokens: usize) -> Mat<'a> {
        let (b, head) = (index / self.heads, index % self.heads);
        Mat::rows(&x[b * tokens * self.c + head * self.d..], tokens, self.d, self.c)
    }
}

/// Attention of `q [B, Tq, C]` to `k, v [B, Tk, C]` in `heads` heads; the result is `[B, Tq, C]`.
pub fn attention(
    tape: &Tape,
    q: &Traced,
    k: &Traced,
    v: &Traced,
    heads: usize,
    mask: Mask,
) -> Result<Traced> {
    tape.check()?;
    let (batch, queries, c) = q.value().dims3()?;
    let (_, keys, _) = k.value().dims3()?;
    if k.dims() != [batch, keys, c] || v.dims() != k.dims() || heads == 0 || c % heads != 0 {
        return Err(Error::incompatible(format!(
            "attention in {heads} heads got queries {:?}, keys {:?} and values {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        )));
    }
    let g = Geometry { batch, heads, c, d: c / heads, queries, keys, mask };
    let (q_value, k_value, v_value) =
        (q.value().contiguous()?, k.value().contiguous()?, v.value().contiguous()?);
    let cancel = tape.cancel_token().clone();
    if !has_kernel(&q_value) {
        let value = forward_composed(&q_value, &k_value, &v_value, g, &cancel)?;
        return Ok(tape.record(value, &[q, k, v], move |gradient| {
            gradient_composed([&q_value, &k_value, &v_value], gradient, g, &cancel)
        }));
    }
    let (value, lse) = forward_kernel([&q_value, &k_value, &v_value], g, &cancel)?;
    let wants = (q.is_tracked(), k.is_tracked() || v.is_tracked());
    let output = value.clone();
    Ok(tape.record(value, &[q, k, v], move |gradient| {
        let tensors = [&q_value, &k_value, &v_value, &output, &gradient.contiguous()?];
        gradient_kernel(tensors, &lse, g, wants, &cancel)
    }))
}

/// O and the log-sum-exp of every row of scores.
fn forward_kernel([q, k, v]: [&Tensor; 3], g: Geometry, cancel: &CancelToken) -> Result<(Tensor, Vec<f32>)> {
    let (q, k, v) = (View::new(q)?, View::new(k)?, View::new(v)?);
    let mut heads = vec![0f32; g.batch * g.queries * g.c];
    let mut lse = vec![0f32; g.batch * g.heads * g.queries];
    let rows = g.rows_per_block();
    let blocks = g.queries.div_ceil(rows);
    // One task per block of rows of a head.
    let tasks: Vec<(usize, usize, &mut [f32], &mut [f32])> = heads
        .chunks_mut(g.queries * g.d)
        .zip(lse.chunks_mut(g.queries))
        .enumerate()
        .flat_map(|(head, (o, lse))| {
            o.chunks_mut(rows * g.d)
                .zip(lse.chunks_mut(rows))
                .enumerate()
                .map(move |(block, (o, lse))| (head, block * rows, o, lse))
        })
        .collect();
    debug_assert_eq!(tasks.len(), g.batch * g.heads * blocks);
    tasks.into_par_iter().for_each_init(Vec::new, |p: &mut Vec<f32>, (head, first, o, lse)| {
        if cancel.is_cancelled() {
            return;
        }
        let n = lse.len();
        p.resize(n * g.keys, 0.0);
        let queries = rows_of(&q, g, head, first, n);
        gemm(p, g.keys, queries, g.head(&k, head, g.keys).t(), false, Threads::One);
        vectorised(
            #[inline(always)]
            || {
                for (i, (row, lse)) in p.chunks_exact_mut(g.keys).zip(lse.iter_mut()).enumerate() {
                    let (seen, hidden) = row.split_at_mut(g.seen(first + i));
                    *lse = softmax(seen, g.scale());
                    hidden.fill(0.0);
                }
            },
        );
        gemm(o, g.d, Mat::dense(p, n, g.keys), g.head(&v, head, g.keys), false, Threads::One);
    });
    cancel.check()?;
    Ok((merge_heads(&heads, g, g.queries)?, lse))
}

/// softmax(scale·s) in place; returns the log-sum-exp of scale·s.
#[inline(always)]
fn softmax(s: &mut [f32], scale: f32) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in s.chunks(16) {
        for (lane, s) in lanes.iter_mut().zip(chunk) {
            *lane = if *s > *lane { *s } else { *lane };
        }
    }
    let max = lanes.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)) * scale;
    for s in s.iter_mut() {
        *s = exp(*s * scale - max);
    }
    let sum = sum_by(s.len(), |i| s[i]);
    let factor = 1.0 / sum;
    for s in s.iter_mut() {
        *s *= factor;
    }
    max + sum.ln()
}

/// Rows `first..first + n` of one head of the queries.
fn rows_of<'a>(x: &'a [f32], g: Geometry, index: usize, first: usize, n: usize) -> Mat<'a> {
    let (b, head) = (index / g.heads, index % g.heads);
    Mat::rows(&x[(b * g.queries + first) * g.c + head * g.d..], n, g.d, g.c)
}

/// A head, and where the gradients of its Q, K and V go.
type HeadTask<'a> = (usize, &'a mut [f32], &'a mut [f32], &'a mut [f32]);

/// The gradients of Q, K and V, as far as `wants = (Q, K and V)` asks for them; `tensors` are Q, K, V, O and ∂O.
fn gradient_kernel(
    tensors: [&Tensor; 5],
    lse: &[f32],
    g: Geometry,
    wants: (bool, bool),
    cancel: &CancelToken,
) -> Result<Vec<Option<Tensor>>> {
    let [q, k, v, o, go] = [
        View::new(tensors[0])?,
        View::new(tensors[1])?,
        View::new(tensors[2])?,
        View::new(tensors[3])?,
        View::new(tensors[4])?,
    ];
    let size = |wanted: bool, tokens: usize| if wanted { g.batch * tokens * g.c } else { 0 };
    let mut dq = vec![0f32; size(wants.0, g.queries)];
    let mut dk = vec![0f32; size(wants.1, g.keys)];
    let mut dv = vec![0f32; size(wants.1, g.keys)];
    let rows = g.rows_per_block();
    // One task per head: K's and V's gradients gather over all rows of a head, in order.
    let mut tasks: Vec<HeadTask<'_>> = Vec::with_capacity(g.batch * g.heads);
    let (mut dqs, mut dks, mut dvs) =
        (dq.chunks_mut(g.queries * g.d), dk.chunks_mut(g.keys * g.d), dv.chunks_mut(g.keys * g.d));
    for head in 0..g.batch * g.heads {
        tasks.push((
            head,
            dqs.next().unwrap_or_default(),
            dks.next().unwrap_or_default(),
            dvs.next().unwrap_or_default(),
        ));
    }
    tasks.into_par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(p, ds): &mut (Vec<f32>, Vec<f32>), (head, dq, dk, dv)| {
            for first in (0..g.queries).step_by(rows) {
                if cancel.is_cancelled() {
                    return;
                }
                let n = rows.min(g.queries - first);
                p.resize(n * g.keys, 0.0);
                ds.resize(n * g.keys, 0.0);
                let lse = &lse[head * g.queries + first..][..n];
                let (keys, values) = (g.head(&k, head, g.keys), g.head(&v, head, g.keys));
                let (queries, gradient) = (rows_of(&q, g, head, first, n), rows_of(&go, g, head, first, n));
                gemm(p, g.keys, queries, keys.t(), false, Threads::One);
                gemm(ds, g.keys, gradient, values.t(), false, Threads::One);
                let start = (head / g.heads * g.queries + first) * g.c + head % g.heads * g.d;
                vectorised(
                    #[inline(always)]
                    || {
                        for i in 0..n {
                            let (o, go) = (&o[start + i * g.c..][..g.d], &go[start + i * g.c..][..g.d]);
                            let delta = sum_by(g.d, |j| o[j] * go[j]);
                            let seen = g.seen(first + i);
                            let (p, hidden_p) = p[i * g.keys..(i + 1) * g.keys].split_at_mut(seen);
                            let (ds, hidden_ds) = ds[i * g.keys..(i + 1) * g.keys].split_at_mut(seen);
                            for (p, ds) in p.iter_mut().zip(ds) {
                                *p = exp(*p * g.scale() - lse[i]);
                                *ds = *p * (*ds - delta) * g.scale();
                            }
                            hidden_p.fill(0.0);
                            hidden_ds.fill(0.0);
                        }
                    },
                );
                let (p, ds) = (Mat::dense(p, n, g.keys), Mat::dense(ds, n, g.keys));
                if wants.1 {
                    gemm(dv, g.d, p.t(), gradient, true, Threads::One);
                    gemm(dk, g.d, ds.t(), queries, true, Threads::One);
                }
                if wants.0 {
                    gemm(&mut dq[first * g.d..], g.d, ds, keys, false, Threads::One);
                }
            }
        },
    );
    cancel.check()?;
    let merged = |wanted: bool, x: &[f32], tokens: usize| {
        if wanted { merge_heads(x, g, tokens).map(Some) } else { Ok(None) }
    };
    Ok(vec![merged(wants.0, &dq, g.queries)?, merged(wants.1, &dk, g.keys)?, merged(wants.1, &dv, g.keys)?])
}

/// `[B, heads, tokens, d]` → `[B, tokens, C]`.
fn merge_heads(x: &[f32], g: Geometry, tokens: usize) -> Result<Tensor> {
    let mut y = vec![0f32; x.len()];
    y.par_chunks_mut(g.c).with_min_len(64).enumerate().for_each(|(row, y)| {
        let (b, token) = (row / tokens, row % tokens);
        for (head, y) in y.chunks_exact_mut(g.d).enumerate() {
            y.copy_from_slice(&x[((b * g.heads + head) * tokens + token) * g.d..][..g.d]);
        }
    });
    tensor(y, &[g.batch, tokens, g.c])
}

/// `[B, tokens, C]` → `[B, heads, tokens, d]`.
fn split_composed(x: &Tensor, g: Geometry) -> Result<Tensor> {
    let tokens = x.dim(1)?;
    Ok(x.reshape((g.batch, tokens, g.heads, g.d))?.transpose(1, 2)?.contiguous()?)
}

/// `[B, heads, tokens, d]` → `[B, tokens, C]`.
fn merge_composed(x: &Tensor, g: Geometry) -> Result<Tensor> {
    let tokens = x.dim(2)?;
    Ok(x.transpose(1, 2)?.contiguous()?.reshape((g.batch, tokens, g.c))?)
}

/// P of the query rows `first..first + n`: `[B, heads, n, Tk]` in f32. `qh` and `kh` are split into heads.
///
/// In half precision Q·Kᵀ would overflow before it is scaled, so Q is scaled first, by the power of two below 1/√d (which rounds nothing), and
/// the rest is multiplied in f32.
fn weights_composed(qh: &Tensor, kh: &Tensor, g: Geometry, first: usize, n: usize) -> Result<Tensor> {
    let power = f64::from(g.scale()).log2().floor().exp2();
    let rows = (qh.narrow(2, first, n)? * power)?;
    let scores = (rows.matmul(&kh.t()?)?.to_dtype(DType::F32)? * (f64::from(g.scale()) / power))?;
    let scores = match g.mask {
        Mask::None => scores,
        Mask::Causal => {
            let mask: Vec<f32> = (first..first + n)
                .flat_map(|row| {
                    (0..g.keys).map(move |key| if key < g.seen(row) { 0.0 } else { f32::NEG_INFINITY })
                })
                .collect();
            scores.broadcast_add(&Tensor::from_vec(mask, (n, g.keys), qh.device())?)?
        }
    };
    let e = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

/// The blocks of query rows `(first, n)` that are computed at a time, so that a table of scores has at most [`COMPOSED_BLOCK`] numbers.
fn blocks_composed(g: Geometry) -> impl Iterator<Item = (usize, usize)> {
    let rows = (COMPOSED_BLOCK / (g.batch * g.heads * g.keys).max(1)).clamp(1, g.queries.max(1));
    (0..g.queries).step_by(rows).map(move |first| (first, rows.min(g.queries - first)))
}

fn forward_composed(q: &Tensor, k: &Tensor, v: &Tensor, g: Geometry, cancel: &CancelToken) -> Result<Tensor> {
    let (qh, kh, vh) = (split_composed(q, g)?, split_composed(k, g)?, split_composed(v, g)?);
    let mut o = Vec::new();
    for (first, n) in blocks_composed(g) {
        cancel.check()?;
        let p = weights_composed(&qh, &kh, g, first, n)?;
        o.push(p.to_dtype(q.dtype())?.matmul(&vh)?);
    }
    merge_composed(&Tensor::cat(&o, 2)?, g)
}

fn gradient_composed(
    [q, k, v]: [&Tensor; 3],
    gradient: &Tensor,
    g: Geometry,
    cancel: &CancelToken,
) -> Result<Vec<Option<Tensor>>> {
    let (qh, kh, vh) = (split_composed(q, g)?, split_composed(k, g)?, split_composed(v, g)?);
    let go = split_composed(gradient, g)?;
    let (mut dq, mut dk, mut dv) = (Vec::new(), None, None);
    for (first, n) in blocks_composed(g) {
        cancel.check()?;
        let p = weights_composed(&qh, &kh, g, first, n)?;
        let (rows, go) = (qh.narrow(2, first, n)?.contiguous()?, go.narrow(2, first, n)?.contiguous()?);
        dv = Some(plus(dv, p.to_dtype(q.dtype())?.t()?.matmul(&go)?)?);
        let dp = go.matmul(&vh.t()?)?.to_dtype(DType::F32)?;
        let delta = (&dp * &p)?.sum_keepdim(D::Minus1)?;
        let ds = ((p * dp.broadcast_sub(&delta)?)? * f64::from(g.scale()))?.to_dtype(q.dtype())?;
        dq.push(ds.matmul(&kh)?);
        dk = Some(plus(dk, ds.t()?.matmul(&rows)?)?);
    }
    let merged = |x: Option<Tensor>| x.map(|x| merge_composed(&x, g)).transpose();
    Ok(vec![Some(merge_composed(&Tensor::cat(&dq, 2)?, g)?), merged(dk)?, merged(dv)?])
}

fn plus(sum: Option<Tensor>, x: Tensor) -> Result<Tensor> {
    Ok(match sum {
        Some(sum) => (sum + x)?,
        None => x,
    })
}

/// The composed forward pass and gradients, for the checks.
#[cfg(test)]
pub(super) fn composed(
    [q, k, v]: [&Tensor; 3],
    gradient: &Tensor,
    heads: usize,
    mask: Mask,
) -> Result<(Tensor, Vec<Option<Tensor>>)> {
    let (batch, queries, c) = q.dims3()?;
    let g = Geometry { batch, heads, c, d: c / heads, queries, keys: k.dim(1)?, mask };
    let cancel = CancelToken::new();
    Ok((forward_composed(q, k, v, g, &cancel)?, gradient_composed([q, k, v], gradient, g, &cancel)?))
}
