//! Doubling a picture by repeating each place, and cutting off the last row or column where the size that is wanted is odd; the gradient
//! adds up the copies.

use rayon::prelude::*;

use super::tape::{Tape, Traced};
use super::view::{View, has_kernel, tensor};
use crate::{Error, Result};

/// `x [B, C, H, W]` → `[B, C, h, w]`, nearest neighbour: `y[i, j] = x[i/2, j/2]`. h is 2H or 2H − 1, w likewise: what a convolution of
/// stride 2 has made smaller comes back to the size that it had.
pub fn upsample_nearest_2x(tape: &Tape, x: &Traced, (h, w): (usize, usize)) -> Result<Traced> {
    tape.check()?;
    let (b, c, rows, columns) = x.value().dims4()?;
    if h.div_ceil(2) != rows || w.div_ceil(2) != columns {
        return Err(Error::incompatible(format!("{rows}×{columns} places cannot be doubled to {h}×{w}")));
    }
    let value = if has_kernel(x.value()) {
        let x = x.value().contiguous()?;
        let mut y = vec![0f32; b * c * h * w];
        {
            let x = View::new(&x)?;
            y.par_chunks_mut(h * w).with_min_len(16).zip(x.par_chunks(rows * columns)).for_each(|(y, x)| {
                for (pair, x) in y.chunks_mut(2 * w).zip(x.chunks_exact(columns)) {
                    let (upper, lower) = pair.split_at_mut(w);
                    for (copies, x) in upper.chunks_mut(2).zip(x) {
                        copies.fill(*x);
                    }
                    // The last row of an odd height has no second copy.
                    if !lower.is_empty() {
                        lower.copy_from_slice(upper);
                    }
                }
            });
        }
        tensor(y, &[b, c, h, w])?
    } else {
        let doubled = x.value().upsample_nearest2d(2 * rows, 2 * columns)?;
        doubled.narrow(2, 0, h)?.narrow(3, 0, w)?.contiguous()?
    };
    Ok(tape.record(value, &[x], move |gradient| {
        let gradient = gradient.contiguous()?;
        let dx = if has_kernel(&gradient) {
            let mut dx = vec![0f32; b * c * rows * columns];
            {
                let gradient = View::new(&gradient)?;
                dx.par_chunks_mut(rows * columns).with_min_len(16).zip(gradient.par_chunks(h * w)).for_each(
                    |(dx, g)| {
                        for (dx, pair) in dx.chunks_exact_mut(columns).zip(g.chunks(2 * w)) {
                            let (upper, lower) = pair.split_at(w);
                            for (dx, g) in dx.iter_mut().zip(upper.chunks(2)) {
                                *dx = g.iter().sum();
                            }
                            for (dx, g) in dx.iter_mut().zip(lower.chunks(2)) {
                                *dx += g.iter().sum::<f32>();
                            }
                        }
                    },
                );
            }
            tensor(dx, &[b, c, rows, columns])?
        } else {
            let whole = gradient.pad_with_zeros(2, 0, 2 * rows - h)?.pad_with_zeros(3, 0, 2 * columns - w)?;
            whole
                .reshape((b * c, rows, 2, columns * 2))?
                .sum(2)?
                .reshape((b * c, rows, columns, 2))?
                .sum(3)?
                .reshape((b, c, rows, columns))?
        };
        Ok(vec![Some(dx)])
    }))
}
