//! The loss of a micro-batch and its gradient with respect to the vectors.

use candle_core::{DType, Tensor};

use super::trainer::TrainingModels;
use crate::models::{AddedConditioning, TimeIds};
use crate::ops::{Tape, all_finite};
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
    /// The prompts' token ids for each text encoder, `B` rows of equal length one after another.
    pub ids: Vec<Vec<u32>>,
    /// Where each picture came from; told to SDXL only.
    pub time_ids: Vec<TimeIds>,
    /// `[B, 1, h, w]`, mean 1 over each picture; `None` is 1 everywhere.
    pub weight: Option<Tensor>,
}

/// L = mean(w·(UNet(z_t, t, text(ids, vectors)) − target)²) in f32, and ∂L/∂vectors `[n, D]`.
///
/// The way back begins with ∂L/∂prediction times S, a power of two near half the number of predicted values, and ends with a division by S: without it
/// the gradient of a mean over a picture would vanish in f16. In f32 a power of two changes nothing. Where f16 overflows instead, the pass
/// is made again with a smaller S.
pub fn loss_and_gradient(
    models: &TrainingModels,
    vectors: &Tensor,
    batch: &MicroBatch,
    cancel: &CancelToken,
) -> Result<(f64, Tensor)> {
    let half = batch.noise.elem_count().max(2) / 2;
    let mut scale = half.ilog2() as i32;
    loop {
        let (loss, gradient) = scaled_gradient(models, vectors, batch, f64::from(scale).exp2(), cancel)?;
        let finite = all_finite(&gradient)?;
        let narrow = models.unet.compute_dtype() == DType::F16 || models.text.is_f16();
        if finite || !narrow || !loss.is_finite() || scale <= 0 {
            return Ok((loss, gradient));
        }
        scale -= 6;
    }
}

fn scaled_gradient(
    models: &TrainingModels,
    vectors: &Tensor,
    batch: &MicroBatch,
    scale: f64,
    cancel: &CancelToken,
) -> Result<(f64, Tensor)> {
    let tape = Tape::new(cancel.clone());
    let count = batch.timesteps.len();
    let device = models.unet.device();
    let (z, noise) = (batch.latents.to_device(device)?, batch.noise.to_device(device)?);
    let z_t = models.schedule.add_noise(&z, &noise, &batch.timesteps)?;
    let target = models.schedule.target(&z, &noise, &batch.timesteps)?;
    let leaf = tape.leaf(vectors.clone());
    let pooled = models.unet.config().pooled_width().is_some();
    let text = models.text.forward(&tape, &batch.ids, count, &leaf, pooled)?;
    let timesteps: Vec<f64> = batch.timesteps.iter().map(|t| *t as f64).collect();
    let added =
        text.pooled.map(|text_embeds| AddedConditioning { text_embeds, time_ids: batch.time_ids.clone() });
    let prediction = models.unet.forward(&tape, &z_t.into(), &timesteps, &text.hidden, added.as_ref())?;

    let difference = (prediction.value().to_dtype(DType::F32)? - target)?;
    let weighted = match &batch.weight {
        Some(weight) => difference.broadcast_mul(&weight.to_device(device)?)?,
        None => difference.clone(),
    };
    let loss = f64::from((&weighted * &difference)?.mean_all()?.to_scalar::<f32>()?);
    let start = (weighted * (2.0 / difference.elem_count() as f64 * scale))?;
    let gradient = tape.backward(&prediction, start.to_dtype(prediction.value().dtype())?, &leaf)?;
    Ok((loss, (gradient.to_dtype(DType::F32)? / scale)?))
}
