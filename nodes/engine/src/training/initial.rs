//! Where the vectors start, and which words may stand for them.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};

use super::norm::norm;
use crate::embedding::MOST_VECTORS;
use crate::models::{TextEncoders, TextTower};
use crate::prompt::check_word;
use crate::{Error, Result};

/// Refuse a placeholder that a prompt could not hold, or that is a word which the vocabulary already knows: its meaning would be hidden.
pub fn check_placeholder(text: &TextEncoders, placeholder: &str) -> Result<()> {
    check_word(placeholder)?;
    for tower in text.towers() {
        // An id that stands for whatever is not known is no word.
        let known = |ids: &[u32]| matches!(ids, [id] if Some(*id) != tower.tokenizer.unknown());
        if known(&tower.tokenizer.encode_words(placeholder)?) {
            return Err(Error::invalid(format!(
                "the placeholder '{placeholder}' is a word that the text encoder already knows"
            ))
            .help(format!("choose a word that does not exist, for instance <{placeholder}>")));
        }
    }
    Ok(())
}

/// The `n` first vectors `[n, D]` from the rows of the `init_text`'s tokens, and a remark if they had to be shared or averaged.
///
/// With as many tokens as vectors each vector gets its token; with fewer, vector i gets token ⌊i·tokens/n⌋; with more, consecutive
/// tokens are averaged.
pub fn initial_vectors(text: &TextEncoders, init_text: &str, n: usize) -> Result<(Tensor, Option<String>)> {
    if n == 0 || n > MOST_VECTORS {
        return Err(Error::invalid(format!(
            "{n} vectors for one word: a prompt has room for 1 to {MOST_VECTORS}"
        ))
        .help("1 to 8 vectors are usual; more follow the rest of the prompt less"));
    }
    let mut remark = None;
    let parts = text.towers().iter().map(|tower| {
        let (part, tokens) = of_tower(tower, init_text, n)?;
        if tokens > n {
            remark = Some(format!(
                "the init text '{init_text}' is {tokens} tokens long, but the word has {n} vector{}: neighbouring tokens were averaged",
                if n == 1 { "" } else { "s" }
            ));
        }
        Ok(part)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok((Tensor::cat(&parts, 1)?.to_device(text.device())?, remark))
}

/// The vectors of one text encoder on the CPU, `[n, d]`, and the number of tokens that they were made of.
fn of_tower(tower: &TextTower, init_text: &str, n: usize) -> Result<(Tensor, usize)> {
    let ids = tower.tokenizer.encode_words(init_text)?;
    if ids.is_empty() {
        return Err(Error::invalid("the init word is empty").help(
            "give a word that says roughly what the pictures show, for instance cat, toy or painting",
        ));
    }
    if ids.iter().any(|id| Some(*id) == tower.tokenizer.unknown()) {
        return Err(Error::invalid(format!(
            "the init text '{init_text}' holds something that is not in the text encoder's vocabulary"
        ))
        .help("use ordinary English words"));
    }
    let table = tower.encoder.token_embedding();
    let row = |id: u32| -> Result<Vec<f32>> { Ok(table.get(id as usize)?.to_dtype(DType::F32)?.to_vec1()?) };
    let d = table.dim(1)?;
    let mut values = Vec::with_capacity(n * d);
    for i in 0..n {
        // At least one token, and between them the vectors take every token.
        let first = i * ids.len() / n;
        let end = ((i + 1) * ids.len() / n).max(first + 1);
        let share = 1.0 / (end - first) as f32;
        let mut mean = vec![0f32; d];
        for id in &ids[first..end] {
            mean.iter_mut().zip(row(*id)?).for_each(|(mean, x)| *mean += x * share);
        }
        values.extend(mean);
    }
    Ok((Tensor::from_vec(values, (n, d), &Device::Cpu)?, ids.len()))
}

/// The vocabulary of one text encoder, as vectors of it are measured by.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularyScale {
    /// The encoder's columns in a matrix `[n, D]`.
    pub columns: Range<usize>,
    /// Mean norm of the rows of its token table.
    pub mean_norm: f64,
}

/// The scale of each text encoder's vocabulary.
pub fn vocabulary_scales(text: &TextEncoders) -> Result<Vec<VocabularyScale>> {
    text.with_columns()
        .map(|(tower, columns)| {
            let table: Vec<Vec<f32>> = tower.encoder.token_embedding().to_dtype(DType::F32)?.to_vec2()?;
            let mean_norm = table.iter().map(|row| norm(row)).sum::<f64>() / table.len().max(1) as f64;
            Ok(VocabularyScale { columns, mean_norm })
        })
        .collect()
}

/// The root mean square of a vocabulary's numbers, over all encoders: what a learning rate is measured by.
pub fn vocabulary_rms(scales: &[VocabularyScale]) -> f64 {
    let squares: f64 = scales.iter().map(|scale| scale.mean_norm * scale.mean_norm).sum();
    let numbers: usize = scales.iter().map(|scale| scale.columns.len()).sum();
    (squares / numbers.max(1) as f64).sqrt()
}
