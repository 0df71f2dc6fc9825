//! The weight syntax, and what a weight does to the encoded prompt.

use candle_core::{Device, Tensor};

use crate::{Error, Result};

// Stand-ins for escaped parentheses while the others are read; NUL cannot be typed.
const OPEN: &str = "\0\u{2}";
const CLOSE: &str = "\0\u{1}";
/// Deeper nesting is read as text, so that a hostile prompt cannot exhaust the stack.
const DEEPEST: usize = 200;

/// Split a prompt into parts of one weight each, escapes resolved. The parts joined are the prompt without the weight syntax.
///
/// ```
/// use vocable_engine::prompt::parse_weights;
/// let parts = parse_weights(r"a (red (big:0.5) cat:1.3) \(2\)");
/// let text: Vec<_> = parts.iter().map(|(t, w)| (t.as_str(), *w)).collect();
/// assert_eq!(text, [("a ", 1.0), ("red ", 1.3), ("big", 0.5), (" cat", 1.3), (" (2)", 1.0)]);
/// ```
pub fn parse_weights(prompt: &str) -> Vec<(String, f32)> {
    let escaped = prompt.replace("\\)", CLOSE).replace("\\(", OPEN);
    let mut parts = Vec::new();
    collect(&escaped, 1.0, 0, &mut parts);
    parts.into_iter().map(|(t, w)| (t.replace(CLOSE, ")").replace(OPEN, "("), w as f32)).collect()
}

fn collect(text: &str, weight: f64, depth: usize, out: &mut Vec<(String, f64)>) {
    for item in groups(text) {
        let inner = item.strip_prefix('(').and_then(|i| i.strip_suffix(')'));
        let Some(inner) = inner.filter(|_| depth < DEEPEST) else {
            out.push((item.to_owned(), weight));
            continue;
        };
        match inner.rfind(':').filter(|at| *at > 0).and_then(|at| Some((at, number(&inner[at + 1..])?))) {
            Some((at, absolute)) => collect(&inner[..at], absolute, depth + 1, out),
            None => collect(inner, weight * 1.1, depth + 1, out),
        }
    }
}

/// A weight that is not finite would poison the whole encoding, so it counts as text.
fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|w| w.is_finite())
}

/// Cut at outermost parentheses. A closing one without an opening makes the level negative, and an opening one then brings it
/// back to zero without beginning a group: that is ComfyUI's reading, quirk included.
fn groups(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let mut level = 0i64;
    for (i, c) in text.char_indices() {
        if c == '(' {
            if level == 0 {
                if start < i {
                    out.push(&text[start..i]);
                }
                start = i;
            }
            level += 1;
        } else if c == ')' {
            level -= 1;
            if level == 0 {
                out.push(&text[start..=i]);
                start = i + 1;
            }
        }
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}

/// Apply weights to an encoded prompt: `z ← (z − z_empty)·w + z_empty` at every position whose weight is not 1.
///
/// `z` is `[chunks, T, d]`, `z_empty` `[1, T, d]` the encoding of the empty prompt (begin, end, padding), `weights` one list of T per chunk. Nothing is
/// renormalised; pooled outputs are not weighted (ComfyUI, `encode_token_weights`).
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when the shapes do not fit.
pub fn apply_weights(z: &Tensor, z_empty: &Tensor, weights: &[Vec<f32>]) -> Result<Tensor> {
    let (chunks, length, width) = z.dims3()?;
    if weights.len() != chunks
        || weights.iter().any(|w| w.len() != length)
        || z_empty.dims() != [1, length, width]
    {
        return Err(Error::invalid(format!(
            "prompt weights: encoding {:?}, empty prompt {:?}, {} lists of weights",
            z.dims(),
            z_empty.dims(),
            weights.len()
        )));
    }
    let flat: Vec<f32> = weights.concat();
    if flat.iter().all(|w| *w == 1.0) {
        return Ok(z.clone());
    }
    let mask: Vec<u8> = flat.iter().map(|w| u8::from(*w != 1.0)).collect();
    let mask = Tensor::from_vec(mask, (chunks, length, 1), &Device::Cpu)?.to_device(z.device())?;
    let w = Tensor::from_vec(flat, (chunks, length, 1), &Device::Cpu)?
        .to_device(z.device())?
        .to_dtype(z.dtype())?;
    let weighted = z.broadcast_sub(z_empty)?.broadcast_mul(&w)?.broadcast_add(z_empty)?;
    // Positions of weight 1 keep their bits.
    Ok(mask.broadcast_as(z.shape())?.where_cond(&weighted, z)?)
}
