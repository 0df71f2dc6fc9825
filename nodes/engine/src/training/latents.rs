//! The pictures' latent posteriors, made once, so that every step draws fresh noise without the autoencoder.

use candle_core::{DType, Tensor};

use crate::concept::Concept;
use crate::models::{AutoencoderKL, TimeIds};
use crate::{CancelToken, Result};

/// The posterior of one picture (or of its mirrored twin), in f32.
#[derive(Debug, Clone)]
pub struct CachedLatents {
    /// `[4, h, w]`, unscaled.
    pub mean: Tensor,
    /// `[4, h, w]`, unscaled.
    pub std: Tensor,
    /// `[h, w]`, the loss weight of each place, with mean 1; `None` is 1 everywhere.
    pub weight: Option<Tensor>,
    /// The picture's own caption, if it has one.
    pub caption: Option<String>,
    /// Where the picture came from, as SDXL is told.
    pub time_ids: TimeIds,
}

/// All posteriors, in groups of equal size; a batch is drawn from one group.
#[derive(Debug, Clone)]
pub struct LatentCache {
    /// Groups; none is empty.
    pub groups: Vec<Vec<CachedLatents>>,
    /// What latents are multiplied by before they are noised.
    pub scaling_factor: f64,
}

impl LatentCache {
    /// Encode every picture of `concept`, one at a time, and with `mirror` its mirrored twin too; `progress(done, total)` is told of each.
    pub fn new(
        vae: &AutoencoderKL,
        concept: &Concept,
        mirror: bool,
        cancel: &CancelToken,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self> {
        let twins: &[bool] = if mirror { &[false, true] } else { &[false] };
        let total = concept.items.len() * twins.len();
        let mut groups = Vec::new();
        let mut done = 0;
        for bucket in concept.buckets() {
            let mut group = Vec::with_capacity(bucket.len() * twins.len());
            for index in bucket {
                let item = &concept.items[index];
                for mirrored in twins {
                    let turn = |t: &Tensor| if *mirrored { flip_columns(t) } else { Ok(t.clone()) };
                    let posterior = vae.encode(&turn(&item.pixels)?.unsqueeze(0)?, cancel)?;
                    let (mean, std) = (posterior.mean.get(0)?, posterior.std.get(0)?);
                    let weight = match &item.weight {
                        Some(weight) => latent_weight(&turn(weight)?, vae.factor())?,
                        None => None,
                    };
                    let weight = weight.map(|weight| weight.to_device(mean.device())).transpose()?;
                    let (caption, time_ids) = (item.caption.clone(), item.time_ids());
                    group.push(CachedLatents { mean, std, weight, caption, time_ids });
                    done += 1;
                    progress(done, total);
                }
            }
            groups.push(group);
        }
        Ok(Self { groups, scaling_factor: vae.config().scaling_factor })
    }

    /// How many posteriors there are.
    pub fn len(&self) -> usize {
        self.groups.iter().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The last dimension in reverse.
fn flip_columns(t: &Tensor) -> Result<Tensor> {
    let last = t.rank() - 1;
    let width = t.dim(last)? as u32;
    let order: Vec<u32> = (0..width).rev().collect();
    Ok(t.contiguous()?.index_select(&Tensor::new(order.as_slice(), t.device())?, last)?)
}

/// Pixel weights `[H, W]` averaged over latent places and scaled to mean 1; `None` where they are all zero (an invisible picture).
fn latent_weight(weight: &Tensor, factor: usize) -> Result<Option<Tensor>> {
    let (height, width) = weight.dims2()?;
    let weight = weight.to_dtype(DType::F32)?.reshape((1, 1, height, width))?.avg_pool2d(factor)?;
    let weight = weight.reshape((height / factor, width / factor))?;
    let mean = weight.mean_all()?.to_scalar::<f32>()?;
    Ok(if mean > 0.0 { Some((weight / f64::from(mean))?) } else { None })
}
