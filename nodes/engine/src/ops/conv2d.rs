//! A 2-D convolution with frozen kernel and bias, as a product of matrices.
//!
//! With K = C·kh·kw, cols `[K, P]` the patches under P output places and W `[O, K]` the kernel: y = W·cols + b. The gradient of the
//! input reads the same W transposed: ∂cols = Wᵀ·∂y, whose entries are added back to the places that they came from.
//!
//! The patches are made tile by tile so that they stay in the cache: tiles of output places forwards, tiles of input channels
//! backwards. No two tiles write to one place, so any number of threads gives the same sum.
//! Every tile looks at the cancel flag first: one convolution of the autoencoder at 512 px takes longer than a user wants to wait.

use candle_core::Tensor;
use rayon::prelude::*;

use super::gemm::{Mat, Shared, Threads, gemm, gemm_at};
use super::tape::{Tape, Traced};
use super::view::{View, as_computed, has_kernel, tensor};
use crate::{CancelToken, Error, Result};

/// Numbers of a tile of patches: 1 MiB, about what a core's second-level cache holds beside the kernel.
const TILE: usize = 1 << 18;

/// A frozen convolution with square stride and zero padding.
#[derive(Debug, Clone)]
pub struct Conv2d {
    /// `[O, C, kh, kw]`
    pub weight: Tensor,
    /// `[O]`
    pub bias: Option<Tensor>,
    /// Steps between output places.
    pub stride: usize,
    /// Zeros before the first and after the last row and column.
    pub padding: usize,
}

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    c: usize,
    h: usize,
    w: usize,
    o: usize,
    kh: usize,
    kw: usize,
    oh: usize,
    ow: usize,
    stride: usize,
    padding: usize,
}

impl Geometry {
    fn k(&self) -> usize {
        self.c * self.kh * self.kw
    }

    fn places(&self) -> usize {
        self.oh * self.ow
    }

    /// A 1×1 convolution needs no patches: the picture is the matrix.
    fn is_pointwise(&self) -> bool {
        self.kh == 1 && self.kw == 1 && self.stride == 1 && self.padding == 0
    }

    /// The output columns whose patch entry at kernel column `kx` lies inside the picture, and the input column of the first.
    fn valid_columns(&self, kx: usize) -> (usize, usize) {
        let first = self.padding.saturating_sub(kx).div_ceil(self.stride);
        let limit = self.w + self.padding;
        let end = if limit > kx { ((limit - kx - 1) / self.stride + 1).min(self.ow) } else { 0 };
        (first.min(end), end)
    }

    /// The input row of output row `oy` at kernel row `ky`, if it lies inside the picture.
    fn input_row(&self, oy: usize, ky: usize) -> Option<usize> {
        (oy * self.stride + ky).checked_sub(self.padding).filter(|y| *y < self.h)
    }
}

impl Conv2d {
    /// The convolution of `x [B, C, H, W]`; the result is `[B, O, H′, W′]` with H′ = (H + 2·padding − kh) / stride + 1.
    pub fn forward(&self, tape: &Tape, x: &Traced) -> Result<Traced> {
        tape.check()?;
        let g = self.geometry(x.value())?;
        let value = if has_kernel(x.value()) {
            self.forward_kernel(x.value(), g, tape.cancel_token())?
        } else {
            let y = x.value().contiguous()?.conv2d(
                &as_computed(&self.weight, x.value())?,
                self.padding,
                self.stride,
                1,
                1,
            )?;
            match &self.bias {
                Some(bias) => y.broadcast_add(&as_computed(bias, x.value())?.reshape((1, g.o, 1, 1))?)?,
                None => y,
            }
        };
        let (weight, cancel) = (self.weight.clone(), tape.cancel_token().clone());
        Ok(tape.record(value, &[x], move |gradient| {
            let gradient = gradient.contiguous()?;
            let weight = as_computed(&weight, &gradient)?.contiguous()?;
            let dx = if has_kernel(&gradient) {
                input_gradient_kernel(&gradient, &weight, g, &cancel)?
            } else {
                input_gradient_composed(&gradient, &weight, g)?
            };
            Ok(vec![Some(dx)])
        }))
    }

    fn geometry(&self, x: &Tensor) -> Result<Geometry> {
        let (batch, c, h, w) = x.dims4()?;
        let (o, channels, kh, kw) = self.weight.dims4()?;
        if c != channels || h + 2 * self.padding < kh || w + 2 * self.padding < kw {
            return Err(Error::incompatible(format!(
                "a convolution of {channels} channels with a {kh}×{kw} kernel got a tensor of shape {:?}",
                x.dims()
            )));
        }
        let oh = (h + 2 * self.padding - kh) / self.stride + 1;
        let ow = (w + 2 * self.padding - kw) / self.stride + 1;
        Ok(Geometry { batch, c, h, w, o, kh, kw, oh, ow, stride: self.stride, padding: self.padding })
    }

    fn forward_kernel(&self, x: &Tensor, g: Geometry, cancel: &CancelToken) -> Result<Tensor> {
        let (x, weight) = (x.contiguous()?, as_computed(&self.weight, x)?.contiguous()?);
        let bias = match &self.bias {
            Some(bias) => as_computed(bias, &x)?.to_vec1::<f32>()?,
            None => vec![0.0; g.o],
        };
        let (places, k) = (g.places(), g.k());
        let mut y = vec![0f32; g.batch * g.o * places];
        y.par_chunks_mut(places)
            .with_min_len(16)
            .enumerate()
            .for_each(|(i, plane)| plane.fill(bias[i % g.o]));
        {
            let (x, w) = (View::new(&x)?, View::new(&weight)?);
            let kernel = Mat::dense(&w, g.o, k);
            let picture = |b: usize| &x[b * g.c * g.h * g.w..(b + 1) * g.c * g.h * g.w];
            // Tiles of whole output rows.
            let rows = if g.is_pointwise() { g.oh } else { (TILE / (k * g.ow)).clamp(1, g.oh) };
            let tiles = g.oh.div_ceil(rows);
            let alone = g.batch * tiles == 1;
            let threads = if alone { Threads::All } else { Threads::One };
            let destination = Shared::new(&mut y);
            (0..g.batch * tiles).into_par_iter().for_each_init(Vec::new, |cols, task| {
                if cancel.is_cancelled() {
                    return;
                }
                let (b, tile) = (task / tiles, task % tiles);
                let (first, last) = (tile * rows, ((tile + 1) * rows).min(g.oh));
                let p = (last - first) * g.ow;
                let patches = if g.is_pointwise() {
                    Mat::dense(picture(b), k, places)
                } else {
                    gather(cols, picture(b), g, 0..g.c, first..last);
                    Mat::dense(cols, k, p)
                };
                // SAFETY: each task writes the output rows `first..last` of picture `b`, in all O planes, and no other task does.
                unsafe {
                    let window = destination.at(b * g.o * places + first * g.ow);
                    gemm_at(window, places, kernel, patches, true, threads);
                }
            });
        }
        cancel.check()?;
        tensor(y, &[g.batch, g.o, g.oh, g.ow])
    }
}

fn input_gradient_kernel(
    gradient: &Tensor,
    weight: &Tensor,
    g: Geometry,
    cancel: &CancelToken,
) -> Result<Tensor> {
    let (places, k, taps, plane) = (g.places(), g.k(), g.kh * g.kw, g.h * g.w);
    let mut dx = vec![0f32; g.batch * g.c * plane];
    {
        let (gradient, w) = (View::new(gradient)?, View::new(weight)?);
        let channels = (TILE / (taps * places)).clamp(1, g.c);
        // A lone picture is cut finer, so that every thread has a share; by a fixed number, so that threads do not change any sum.
        let channels = if g.batch == 1 { channels.min(g.c.div_ceil(16)) } else { channels }.max(1);
        dx.par_chunks_mut(g.c * plane).enumerate().for_each(|(b, dx)| {
            let dy = Mat::dense(&gradient[b * g.o * places..(b + 1) * g.o * places], g.o, places);
            dx.par_chunks_mut(channels * plane).enumerate().for_each_init(
                Vec::new,
                |cols: &mut Vec<f32>, (tile, dx)| {
                    if cancel.is_cancelled() {
                        return;
                    }
                    let (first, count) = (tile * channels, dx.len() / plane);
                    let kernel = Mat::rows(&w[first * taps..], g.o, count * taps, k).t();
                    if g.is_pointwise() {
                        return gemm(dx, places, kernel, dy, false, Threads::One);
                    }
                    cols.resize(count * taps * places, 0.0);
                    gemm(cols, places, kernel, dy, false, Threads::One);
                    scatter(dx, cols, g);
                },
            );
        });
    }
    cancel.check()?;
    tensor(dx, &[g.batch, g.c, g.h, g.w])
}

/// With stride 1 this is the convolution of ∂y with the kernel turned about, for which candle has fast kernels. For other strides candle's
/// transposed convolution pads its output alike in both directions, so a picture whose two sides leave different remainders is computed
/// with enough rows and columns and cut to size.
fn input_gradient_composed(gradient: &Tensor, weight: &Tensor, g: Geometry) -> Result<Tensor> {
    if g.stride == 1 && g.padding < g.kh && g.kh == g.kw {
        let turned = turned(&turned(&weight.transpose(0, 1)?, 2)?, 3)?;
        return Ok(gradient.conv2d(&turned.contiguous()?, g.kh - 1 - g.padding, 1, 1, 1)?);
    }
    let reach = |out: usize, kernel: usize| (out - 1) * g.stride + kernel - 2 * g.padding;
    let missing = (g.h - reach(g.oh, g.kh)).max(g.w - reach(g.ow, g.kw));
    let dx = gradient.conv_transpose2d(weight, g.padding, missing, g.stride, 1)?;
    Ok(dx.narrow(2, 0, g.h)?.narrow(3, 0, g.w)?.contiguous()?)
}

/// A dimension in reverse.
fn turned(x: &Tensor, dim: usize) -> Result<Tensor> {
    let n = x.dim(dim)? as u32;
    if n == 1 {
        return Ok(x.clone());
    }
    let order: Vec<u32> = (0..n).rev().collect();
    Ok(x.contiguous()?.index_select(&Tensor::from_vec(order, n as usize, x.device())?, dim)?)
}

/// Patches of the channels `channels` under the output rows `rows`, as a matrix `[channels·kh·kw, rows·ow]`.
fn gather(
    cols: &mut Vec<f32>,
    picture: &[f32],
    g: Geometry,
    channels: std::ops::Range<usize>,
    rows: std::ops::Range<usize>,
) {
    let p = rows.len() * g.ow;
    cols.resize(channels.len() * g.kh * g.kw * p, 0.0);
    let mut lines = cols.chunks_exact_mut(g.ow);
    for c in channels {
        let plane = &picture[c * g.h * g.w..(c + 1) * g.h * g.w];
        for ky in 0..g.kh {
            for kx in 0..g.kw {
                let (first, end) = g.valid_columns(kx);
                for oy in rows.clone() {
                    let Some(line) = lines.next() else { return };
                    let Some(y) = g.input_row(oy, ky) else {
                        line.fill(0.0);
                        continue;
                    };
                    line[..first].fill(0.0);
                    line[end..].fill(0.0);
                    if first == end {
                        continue;
                    }
                    let source = &plane[y * g.w + first * g.stride + kx - g.padding..(y + 1) * g.w];
                    if g.stride == 1 {
                        line[first..end].copy_from_slice(&source[..end - first]);
                    } else {
                        for (to, from) in line[first..end].iter_mut().zip(source.iter().step_by(g.stride)) {
                            *to = *from;
                        }
                    }
                }
            }
        }
    }
}

/// Add the patch gradients of some channels back to those channels' planes.
fn scatter(planes: &mut [f32], cols: &[f32], g: Geometry) {
    let mut lines = cols.chunks_exact(g.ow);
    for plane in planes.chunks_exact_mut(g.h * g.w) {
        for ky in 0..g.kh {
            for kx in 0..g.kw {
                let (first, end) = g.valid_columns(kx);
                for oy in 0..g.oh {
                    let Some(line) = lines.next() else { return };
                    let Some(y) = g.input_row(oy, ky) else { continue };
                    if first == end {
                        continue;
                    }
                    let target = &mut plane[y * g.w + first * g.stride + kx - g.padding..(y + 1) * g.w];
                    if g.stride == 1 {
                        for (to, from) in target.iter_mut().zip(&line[first..end]) {
                            *to += from;
                        }
                    } else {
                        for (to, from) in target.iter_mut().step_by(g.stride).zip(&line[first..end]) {
                            *to += from;
                        }
                    }
                }
            }
        }
    }
}
