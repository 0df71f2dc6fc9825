//! Concepts from pictures that a host hands in.

use candle_core::{DType, Device, Tensor};
use image::{ImageBuffer, Luma};

use super::load::Builder;
use super::picture::{Colours, FloatImage, Picture, SMALLEST};
use super::{Concept, ConceptOptions, captions};
use crate::{CancelToken, Error, Result};

impl Concept {
    /// From a batch of pictures `[B, H, W, C]`, 0..1, C = 1, 3 or 4 (grey, colour, colour with opacity).
    ///
    /// `captions`: none, one for all, or one per picture; empty ones count as none ([`ConceptOptions::captions`] is not used). `masks` `[B, H, W]` or `[1, H, W]`, 0..1: how much each place
    /// counts in the loss, 1 fully. (ComfyUI's LoadImage gives 1 where a picture is *transparent*: invert that first.) Without masks, and with
    /// [`ConceptOptions::alpha_as_weight`], a fourth channel counts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for shapes that do not fit, values that are not finite, options out of range; [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when no picture can be used.
    pub fn from_images(
        images: &Tensor,
        captions: &[String],
        masks: Option<&Tensor>,
        options: &ConceptOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        options.check()?;
        let wrong = |what: String| Err(Error::invalid(what));
        let &[batch, height, width, channels] = images.dims() else {
            return wrong(format!("images {:?}, wanted [B, H, W, C]", images.dims()));
        };
        if !matches!(channels, 1 | 3 | 4) || height.max(width) > 65_536 {
            return wrong(format!("images {:?}, wanted 1, 3 or 4 channels", images.dims()));
        }
        if captions.len() > 1 && captions.len() != batch {
            return wrong(format!(
                "{} captions for {batch} images, wanted none, one, or one each",
                captions.len()
            ));
        }
        if let Some(masks) = masks {
            let fits =
                matches!(masks.dims(), [b, h, w] if (*b == batch || *b == 1) && *h == height && *w == width);
            if !fits {
                return wrong(format!(
                    "masks {:?} for images {:?}, wanted [B, H, W]",
                    masks.dims(),
                    images.dims()
                ));
            }
        }
        let mut builder = Builder::new(options)?;
        for i in 0..batch {
            cancel.check()?;
            let name = format!("image {}", i + 1);
            if height.min(width) < SMALLEST as usize {
                builder
                    .problems
                    .push(format!("{name}: {width}x{height} pixels, wanted at least {SMALLEST}x{SMALLEST}"));
                continue;
            }
            let values = numbers(&images.get(i)?, &name)?;
            let mask = match masks {
                Some(m) => {
                    Some(numbers(&m.get(if m.dim(0)? == 1 { 0 } else { i })?, &format!("mask of {name}"))?)
                }
                None if channels == 4 && options.alpha_as_weight => {
                    Some(values.iter().skip(3).step_by(4).copied().collect())
                }
                None => None,
            };
            let caption =
                captions.get(if captions.len() == 1 { 0 } else { i }).and_then(|c| captions::one_line(c));
            let rgb: Vec<f32> = values
                .chunks_exact(channels)
                .flat_map(|p| match *p {
                    // On white, as files are.
                    [r, g, b, a] => [r, g, b].map(|c| c * a + 1.0 - a),
                    [r, g, b] => [r, g, b],
                    _ => [p[0]; 3],
                })
                .collect();
            let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
            let contents = [
                bytes(&[height as f32, width as f32]),
                bytes(&rgb),
                mask.as_deref().map_or_else(Vec::new, bytes),
            ];
            let contents: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let (w, h) = (width as u32, height as u32);
            let short =
                || Error::new(crate::ErrorKind::Internal, format!("{name}: fewer values than pixels"));
            let colours = Colours::Floats(FloatImage::from_raw(w, h, rgb).ok_or_else(short)?);
            let weight = match mask {
                Some(m) => Some(ImageBuffer::<Luma<f32>, _>::from_raw(w, h, m).ok_or_else(short)?),
                None => None,
            };
            builder.add(&Picture { name, caption, colours, weight }, &contents)?;
        }
        if !captions.is_empty() {
            builder.tell_captionless("an empty caption");
        }
        builder.finish()
    }
}

fn numbers(tensor: &Tensor, name: &str) -> Result<Vec<f32>> {
    let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(Error::invalid(format!("{name} holds {v}, wanted values from 0 to 1"))),
        None => Ok(values),
    }
}
