//! Changes of layout: planes to tokens and back, and concatenation over channels.

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

/// `a [B, C₁, H, W]`, `b [B, C₂, H, W]` → `[B, C₁ + C₂, H, W]`. The gradient is cut where the two were joined.
pub fn concat_channels(tape: &Tape, a: &Traced, b: &Traced) -> Result<Traced> {
    tape.check()?;
    let (first, second) = (a.value().dim(1)?, b.value().dim(1)?);
    let value = Tensor::cat(&[a.value(), b.value()], 1)?;
    let wants = (a.is_tracked(), b.is_tracked());
    Ok(tape.record(value, &[a, b], move |gradient| {
        let part = |wanted: bool, start: usize, length: usize| -> Result<Option<Tensor>> {
            if wanted { Ok(Some(gradient.narrow(1, start, length)?.contiguous()?)) } else { Ok(None) }
        };
        Ok(vec![part(wants.0, 0, first)?, part(wants.1, first, second)?])
    }))
}
