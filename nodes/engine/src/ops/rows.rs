//! Changes of layout: planes to tokens and back, joining, and taking parts.

use candle_core::Tensor;

use super::tape::{Tape, Traced};
use crate::Result;

/// `[B, C, H, W]` → `[B, H·W, C]`.
pub fn to_tokens(tape: &Tape, x: &Traced) -> Result<Traced> {
    tape.check()?;
    let (_, _, h, w) = x.value().dims4()?;
    Ok(tape.record(tokens(x.value())?, &[x], move |gradient| Ok(vec![Some(planes(gradient, h, w)?)])))
}

/// `[B, h·w, C]` → `[B, C, h, w]`.
pub fn from_tokens(tape: &Tape, x: &Traced, h: usize, w: usize) -> Result<Traced> {
    tape.check()?;
    Ok(tape.record(planes(x.value(), h, w)?, &[x], |gradient| Ok(vec![Some(tokens(gradient)?)])))
}

fn tokens(x: &Tensor) -> Result<Tensor> {
    Ok(x.flatten_from(2)?.transpose(1, 2)?.contiguous()?)
}

fn planes(x: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let (b, _, c) = x.dims3()?;
    Ok(x.transpose(1, 2)?.contiguous()?.reshape((b, c, h, w))?)
}

/// `a` and `b` joined along `dim`: `[B, C₁, H, W]` and `[B, C₂, H, W]` to `[B, C₁ + C₂, H, W]`. The gradient is cut where the two were joined.
pub fn concat(tape: &Tape, a: &Traced, b: &Traced, dim: usize) -> Result<Traced> {
    tape.check()?;
    let (first, second) = (a.value().dim(dim)?, b.value().dim(dim)?);
    let value = Tensor::cat(&[a.value(), b.value()], dim)?;
    let wants = (a.is_tracked(), b.is_tracked());
    Ok(tape.record(value, &[a, b], move |gradient| {
        let part = |wanted: bool, start: usize, length: usize| -> Result<Option<Tensor>> {
            if wanted { Ok(Some(gradient.narrow(dim, start, length)?.contiguous()?)) } else { Ok(None) }
        };
        Ok(vec![part(wants.0, 0, first)?, part(wants.1, first, second)?])
    }))
}

/// `length` of the columns of `x [n, D]`, from `start`. The gradient of the others is zero.
pub fn columns(tape: &Tape, x: &Traced, start: usize, length: usize) -> Result<Traced> {
    tape.check()?;
    let (_, width) = x.value().dims2()?;
    if (start, length) == (0, width) {
        return Ok(x.clone());
    }
    let value = x.value().narrow(1, start, length)?.contiguous()?;
    Ok(tape.record(value, &[x], move |gradient| {
        Ok(vec![Some(gradient.pad_with_zeros(1, start, width - start - length)?)])
    }))
}

/// One token of each text: `x [B, T, C]` → `[B, C]`, text b's at `places[b]`. The gradient goes to those tokens alone.
pub fn pick_tokens(tape: &Tape, x: &Traced, places: &[usize]) -> Result<Traced> {
    tape.check()?;
    let (batch, tokens, channels) = x.value().dims3()?;
    let rows: Vec<u32> = places.iter().enumerate().map(|(b, place)| (b * tokens + place) as u32).collect();
    let rows = Tensor::new(rows.as_slice(), x.value().device())?;
    let value = x.value().contiguous()?.reshape((batch * tokens, channels))?.index_select(&rows, 0)?;
    Ok(tape.record(value, &[x], move |gradient| {
        let all = Tensor::zeros((batch * tokens, channels), gradient.dtype(), gradient.device())?;
        Ok(vec![Some(all.index_add(&rows, gradient, 0)?.reshape((batch, tokens, channels))?)])
    }))
}
