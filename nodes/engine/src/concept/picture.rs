//! One picture: decode, composite, cut, resize, mirror.

use std::io::Cursor;

use candle_core::{Device, Tensor};
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageReader, Luma, Pixel, Rgb, RgbImage};

use super::geometry::{self, Cut};
use super::{ConceptItem, ConceptOptions, Crop};
use crate::Result;

/// A picture smaller than this on either side is an icon: there is nothing to learn from.
pub(super) const SMALLEST: u32 = 32;

type GreyImage = ImageBuffer<Luma<f32>, Vec<f32>>;
/// 0..1, as hosts hand pictures in.
pub(super) type FloatImage = ImageBuffer<Rgb<f32>, Vec<f32>>;

/// Colours as they came: resizing 8-bit pictures in 8 bits saves three quarters of the memory, and is what Pillow does.
#[derive(Debug)]
pub(super) enum Colours {
    Bytes(RgbImage),
    Floats(FloatImage),
}

/// An upright picture without transparency.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) caption: Option<String>,
    pub(super) colours: Colours,
    /// 0..1, of the picture's size: loss weight.
    pub(super) weight: Option<GreyImage>,
}

/// Decode PNG, JPEG or WebP (found out from the bytes) and turn it as its camera said. Of an animation the first frame.
///
/// # Errors
/// Why it cannot be read; the file's name is for the caller to add.
pub fn decode_upright(bytes: &[u8]) -> Result<DynamicImage, String> {
    let text = |e: image::ImageError| format!("not a picture that can be read: {e}");
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("not a PNG, JPEG or WebP picture".into());
    }
    let mut decoder = reader.into_decoder().map_err(text)?;
    // A camera that lies about the orientation spoils one picture only.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    // A picture of few bytes may claim to be gigabytes large.
    image::Limits::default().reserve(decoder.total_bytes()).map_err(text)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(text)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// A picture to learn from: colours, and its transparency if it counts. Errors are reasons for [`Concept::problems`](super::Concept::problems).
pub(super) fn decode(bytes: &[u8], alpha_as_weight: bool) -> Result<(RgbImage, Option<GreyImage>), String> {
    let picture = decode_upright(bytes)?;
    if picture.width() < SMALLEST || picture.height() < SMALLEST {
        let (w, h) = (picture.width(), picture.height());
        return Err(format!("{w}x{h} pixels, wanted at least {SMALLEST}x{SMALLEST}"));
    }
    if !picture.color().has_alpha() {
        return Ok((picture.into_rgb8(), None));
    }
    let rgba = picture.into_rgba8();
    let (w, h) = rgba.dimensions();
    // On white, as web pages show cut-outs.
    let rgb = RgbImage::from_fn(w, h, |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0.map(u32::from);
        Rgb([r, g, b].map(|c| ((c * a + 255 * (255 - a) + 127) / 255) as u8))
    });
    let alpha = || GreyImage::from_fn(w, h, |x, y| Luma([f32::from(rgba.get_pixel(x, y).0[3]) / 255.0]));
    let opaque = rgba.pixels().all(|p| p.0[3] == 255);
    Ok((rgb, (alpha_as_weight && !opaque).then(alpha)))
}

impl Picture {
    fn size(&self) -> (u32, u32) {
        match &self.colours {
            Colours::Bytes(i) => i.dimensions(),
            Colours::Floats(i) => i.dimensions(),
        }
    }

    /// The items that the options make of this picture: one per crop, each followed by its twin.
    pub(super) fn items(&self, options: &ConceptOptions) -> Result<Vec<ConceptItem>> {
        let (width, height) = self.size();
        let mut items = Vec::new();
        for (i, cut) in geometry::cuts(options, &self.name, width, height).iter().enumerate() {
            let name = match options.crop {
                Crop::Random { .. } => format!("{} (crop {})", self.name, i + 1),
                _ => self.name.clone(),
            };
            let weight = self.weight.as_ref().map(|w| resized(w, cut, FilterType::Triangle));
            for mirrored in [false, true] {
                if mirrored && !options.flip {
                    continue;
                }
                let pixels = match &self.colours {
                    Colours::Bytes(image) => {
                        let image = maybe_mirrored(resized(image, cut, FilterType::Lanczos3), mirrored);
                        tensor(&image, |v| f32::from(v) / 127.5 - 1.0)?
                    }
                    Colours::Floats(image) => {
                        let image = maybe_mirrored(resized(image, cut, FilterType::Lanczos3), mirrored);
                        tensor(&image, |v| v.clamp(0.0, 1.0) * 2.0 - 1.0)?
                    }
                };
                let weight = weight
                    .as_ref()
                    .map(|w| tensor(&maybe_mirrored(w.clone(), mirrored), |v| v.clamp(0.0, 1.0))?.squeeze(0));
                items.push(ConceptItem {
                    pixels,
                    weight: weight.transpose()?,
                    caption: self.caption.clone(),
                    name: if mirrored { format!("{name} (mirrored)") } else { name.clone() },
                    mirrored,
                    original: (height, width),
                    crop: cut.place(),
                });
            }
        }
        Ok(items)
    }
}

/// The cut in its output size. Where that is the cut's own size, pixels stay as they are.
fn resized<P>(
    image: &ImageBuffer<P, Vec<P::Subpixel>>,
    cut: &Cut,
    filter: FilterType,
) -> ImageBuffer<P, Vec<P::Subpixel>>
where
    P: Pixel + 'static,
    P::Subpixel: 'static,
{
    let part = imageops::crop_imm(image, cut.x, cut.y, cut.width, cut.height);
    if (cut.width, cut.height) == cut.out {
        return part.to_image();
    }
    imageops::resize(&*part, cut.out.0, cut.out.1, filter)
}

fn maybe_mirrored<P: Pixel + 'static>(
    image: ImageBuffer<P, Vec<P::Subpixel>>,
    mirrored: bool,
) -> ImageBuffer<P, Vec<P::Subpixel>> {
    if mirrored { imageops::flip_horizontal(&image) } else { image }
}

/// `[channels, H, W]`.
fn tensor<P: Pixel>(
    image: &ImageBuffer<P, Vec<P::Subpixel>>,
    scale: impl Fn(P::Subpixel) -> f32,
) -> candle_core::Result<Tensor> {
    let (w, h, channels) = (image.width() as usize, image.height() as usize, usize::from(P::CHANNEL_COUNT));
    let raw = image.as_raw();
    let mut values = Vec::with_capacity(raw.len());
    for c in 0..channels {
        values.extend(raw.iter().skip(c).step_by(channels).map(|v| scale(*v)));
    }
    Tensor::from_vec(values, (channels, h, w), &Device::Cpu)
}
