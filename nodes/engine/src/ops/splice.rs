//! Rows of a table, with trainable rows put in at some places. The table is only read.

use candle_core::Tensor;

use super::tape::{Tape, Traced};
use super::view::as_computed;
use crate::{Error, Result};

/// `[B, T, d]` from `ids [B·T]` (row-major): an id below the table's size N is that row of `table [N, d]`, an id `N + i` is row i of
/// `vectors [n, d]`. The gradient of `vectors` sums the gradients of all places that hold a row; the table has none.
pub fn splice_rows(
    tape: &Tape,
    table: &Tensor,
    vectors: &Traced,
    ids: &[u32],
    batch: usize,
) -> Result<Traced> {
    tape.check()?;
    let (size, d) = table.dims2()?;
    let (n, width) = vectors.value().dims2()?;
    if n > 0 && width != d {
        return Err(Error::incompatible(format!(
            "the vectors are {width} wide, but the text encoder's token embedding is {d} wide"
        ))
        .help("use an embedding that was trained for this model's family"));
    }
    if let Some(id) = ids.iter().find(|id| **id as usize >= size + n) {
        return Err(Error::invalid(format!(
            "token id {id} is outside the vocabulary of {size} and {n} new vectors"
        )));
    }
    let device = table.device();
    // One gather from the table for all places, then one for the few places that hold a new vector.
    let known: Vec<u32> = ids.iter().map(|id| if (*id as usize) < size { *id } else { 0 }).collect();
    let rows =
        as_computed(&table.index_select(&Tensor::new(known.as_slice(), device)?, 0)?, vectors.value())?;
    let places: Vec<u32> = (0..ids.len() as u32).filter(|i| ids[*i as usize] as usize >= size).collect();
    if places.is_empty() {
        return Ok(Traced::constant(rows.reshape((batch, ids.len() / batch, d))?));
    }
    let which: Vec<u32> = places.iter().map(|i| ids[*i as usize] - size as u32).collect();
    let places = Tensor::new(places.as_slice(), device)?;
    let which = Tensor::new(which.as_slice(), device)?;
    // Places of new vectors are zeroed and the vectors added there: exact, and the same on every device.
    let keep: Vec<f32> = ids.iter().map(|id| if (*id as usize) < size { 1.0 } else { 0.0 }).collect();
    let keep = Tensor::new(keep.as_slice(), device)?.to_dtype(rows.dtype())?.unsqueeze(1)?;
    let value =
        rows.broadcast_mul(&keep)?.index_add(&places, &vectors.value().index_select(&which, 0)?, 0)?;
    let value = value.reshape((batch, ids.len() / batch, d))?;
    Ok(tape.record(value, &[vectors], move |gradient| {
        let gradient = gradient.reshape(((), d))?.index_select(&places, 0)?;
        let zeros = Tensor::zeros((n, d), gradient.dtype(), gradient.device())?;
        Ok(vec![Some(zeros.index_add(&which, &gradient, 0)?)])
    }))
}
