//! Doubling a picture by repeating each place; the gradient adds up the four copies.

use rayon::prelude::*;

use super::tape::{Tape, Traced};
use super::view::{View, has_kernel, tensor};
use crate::Result;

/// `x [B, C, H, W]` → `[B, C, 2H, 2W]`, nearest neighbour.
pub fn upsample_nearest_2x(tape: &Tape, x: &Traced) -> Result<Traced> {
    tape.check()?;
    let (b, c, h, w) = x.value().dims4()?;
    let value = if has_kernel(x.value()) {
        let x = x.value().contiguous()?;
        let mut y = vec![0f32; x.elem_count() * 4];
        {
            let x = View::new(&x)?;
            y.par_chunks_mut(4 * w).with_min_len(256).zip(x.par_chunks(w)).for_each(|(y, x)| {
                let (upper, lower) = y.split_at_mut(2 * w);
                for (pair, x) in upper.chunks_exact_mut(2).zip(x) {
                    pair.fill(*x);
                }
                lower.copy_from_slice(upper);
            });
        }
        tensor(y, &[b, c, 2 * h, 2 * w])?
    } else {
        x.value().upsample_nearest2d(2 * h, 2 * w)?
    };
    Ok(tape.record(value, &[x], move |gradient| {
        let gradient = gradient.contiguous()?;
        let dx = if has_kernel(&gradient) {
            let mut dx = vec![0f32; b * c * h * w];
            {
                let gradient = View::new(&gradient)?;
                dx.par_chunks_mut(w).with_min_len(256).zip(gradient.par_chunks(4 * w)).for_each(|(dx, g)| {
                    let (upper, lower) = g.split_at(2 * w);
                    for ((dx, u), l) in dx.iter_mut().zip(upper.chunks_exact(2)).zip(lower.chunks_exact(2)) {
                        *dx = (u[0] + u[1]) + (l[0] + l[1]);
                    }
                });
            }
            tensor(dx, &[b, c, h, w])?
        } else {
            gradient
                .reshape((b * c, h, 2, w * 2))?
                .sum(2)?
                .reshape((b * c, h, w, 2))?
                .sum(3)?
                .reshape((b, c, h, w))?
        };
        Ok(vec![Some(dx)])
    }))
}
