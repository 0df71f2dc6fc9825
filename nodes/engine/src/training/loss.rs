//! The loss of a micro-batch and its gradient with respect to the vectors.

use candle_core::{DType, Tensor};

use super::trainer::TrainingModels;
use crate::ops::Tape;
use crate::{CancelToken, Result};

/// What one pass is computed on. All tensors are f32.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// z `[B, 4, h, w]`, scaled.
    pub latents: Tensor,
    /// ε `[B, 4, h, w]`
    pub noise: Tensor,
    /// t of each picture.
    pub timesteps: Vec<usize>,
    /// The prompts' token ids, `B` rows of equal length.
    pub ids: Vec<u32>,
    /// `[B, 1, h, w]`, mean 1 over each picture; `None` is 1 everywhere.
    pub weight: Option<Tensor>,
}

/// L = mean(w·(UNet(z_t, t, text(ids, vectors)) − target)²) in f32, and ∂L/∂vectors `[n, d]`.
pub fn loss_and_gradient(
    models: &TrainingModels,
    vectors: &Tensor,
    batch: &MicroBatch,
    cancel: &CancelToken,
) -> Result<(f64, Tensor)> {
    let tape = Tape::new(cancel.clone());
    let count = batch.timesteps.len();
    let z_t = models.schedule.add_noise(&batch.latents, &batch.noise, &batch.timesteps)?;
    let target = models.schedule.target(&batch.latents, &batch.noise, &batch.timesteps)?;
    let leaf = tape.leaf(vectors.to_dtype(models.text_encoder.compute_dtype())?);
    let text = models.text_encoder.forward(&tape, &batch.ids, count, &leaf, models.skip_layers, None)?;
    let timesteps: Vec<f64> = batch.timesteps.iter().map(|t| *t as f64).collect();
    let input = z_t.to_dtype(models.unet.compute_dtype())?;
    let prediction = models.unet.forward(&tape, &input.into(), &timesteps, &text.hidden)?;

    let difference = (prediction.value().to_dtype(DType::F32)? - target)?;
    let weighted = match &batch.weight {
        Some(weight) => difference.broadcast_mul(weight)?,
        None => difference.clone(),
    };
    let loss = f64::from((&weighted * &difference)?.mean_all()?.to_scalar::<f32>()?);
    let gradient =
        (weighted * (2.0 / difference.elem_count() as f64))?.to_dtype(prediction.value().dtype())?;
    let gradient = tape.backward(&prediction, gradient, &leaf)?;
    Ok((loss, gradient.to_dtype(DType::F32)?))
}
