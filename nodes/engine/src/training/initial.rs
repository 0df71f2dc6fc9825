//! Where the vectors start, and which words may stand for them.

use candle_core::{DType, Tensor};

use super::norm::norm;
use crate::embedding::MOST_VECTORS;
use crate::models::ClipTextModel;
use crate::prompt::check_word;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Refuse a placeholder that a prompt could not hold, or that is a word which the vocabulary already knows: its meaning would be hidden.
pub fn check_placeholder(tokenizer: &Tokenizer, placeholder: &str) -> Result<()> {
    check_word(placeholder)?;
    if tokenizer.encode_words(placeholder)?.len() == 1 {
        return Err(Error::invalid(format!(
            "the placeholder '{placeholder}' is a word that the text encoder already knows"
        ))
        .help(format!("choose a word that does not exist, for instance <{placeholder}>")));
    }
    Ok(())
}

/// The `n` first vectors `[n, d]` from the rows of the `init_text`'s tokens, and a remark if they had to be shared or averaged.
///
/// With as many tokens as vectors each vector gets its token; with fewer, vector i gets token ⌊i·tokens/n⌋; with more, consecutive
/// tokens are averaged.
pub fn initial_vectors(
    text_encoder: &ClipTextModel,
    tokenizer: &Tokenizer,
    init_text: &str,
    n: usize,
) -> Result<(Tensor, Option<String>)> {
    if n == 0 || n > MOST_VECTORS {
        return Err(Error::invalid(format!(
            "{n} vectors for one word: a prompt has room for 1 to {MOST_VECTORS}"
        ))
        .help("1 to 8 vectors are usual; more follow the rest of the prompt less"));
    }
    let ids = tokenizer.encode_words(init_text)?;
    if ids.is_empty() {
        return Err(Error::invalid("the init word is empty").help(
            "give a word that says roughly what the pictures show, for instance cat, toy or painting",
        ));
    }
    let table = text_encoder.token_embedding();
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
    let remark = (ids.len() > n).then(|| {
        format!(
            "the init text '{init_text}' is {} tokens long, but the word has {n} vector{}: neighbouring tokens were averaged",
            ids.len(),
            if n == 1 { "" } else { "s" }
        )
    });
    Ok((Tensor::from_vec(values, (n, d), text_encoder.device())?, remark))
}

/// The mean norm of the vocabulary's rows.
pub fn vocabulary_norm(text_encoder: &ClipTextModel) -> Result<f64> {
    let table: Vec<Vec<f32>> = text_encoder.token_embedding().to_dtype(DType::F32)?.to_vec2()?;
    Ok(table.iter().map(|row| norm(row)).sum::<f64>() / table.len().max(1) as f64)
}
