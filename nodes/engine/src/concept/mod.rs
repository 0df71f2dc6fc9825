//! A concept: the pictures that a word is learned from, with captions and loss weights.
//!
//! A picture is decoded, turned upright (EXIF), laid on white where it is transparent, cropped and resized to the training size, and kept as `[3, H, W]` in −1..1.
//! Files that cannot be used are listed in [`Concept::problems`]; the others are kept. Order is that of the file names, so the same folder gives the same concept.

mod captions;
mod geometry;
mod images;
mod load;
mod options;
mod picture;
mod templates;

use candle_core::Tensor;
use sha2::{Digest, Sha256};

use crate::models::TimeIds;

pub use captions::caption_of_file_name;
pub use options::{CaptionSource, ConceptOptions, Crop};
pub use picture::decode_upright;
pub use templates::{
    OBJECT_TEMPLATES, STYLE_TEMPLATES, caption_with_word, fill_template, parse_templates, pick_template,
};

/// One picture, ready to be encoded.
#[derive(Debug, Clone)]
pub struct ConceptItem {
    /// `[3, H, W]`, f32, −1..1, on the CPU.
    pub pixels: Tensor,
    /// `[H, W]`, f32, 0..1: how much each place counts in the loss; `None` is 1 everywhere.
    pub weight: Option<Tensor>,
    /// The picture's own text; `None` means that a template is used.
    pub caption: Option<String>,
    /// The file's name, or `image 3`; crops and mirrored twins say so.
    pub name: String,
    /// Whether this is the mirrored twin of the item before it.
    pub mirrored: bool,
    /// Height and width of the picture that it was cut from, in its own pixels.
    pub original: (u32, u32),
    /// Top and left of the cut, in pixels of the picture resized as the cut was.
    pub crop: (u32, u32),
}

impl ConceptItem {
    /// Height and width in pixels.
    pub fn size(&self) -> (usize, usize) {
        let dims = self.pixels.dims();
        (dims[1], dims[2])
    }

    /// What SDXL is told of the picture: original height and width, top and left of the crop, height and width here.
    pub fn time_ids(&self) -> TimeIds {
        let (height, width) = self.size();
        let [h, w, top, left] = [self.original.0, self.original.1, self.crop.0, self.crop.1].map(f64::from);
        [h, w, top, left, height as f64, width as f64]
    }
}

/// Pictures, and what was found wrong on the way.
#[derive(Debug, Clone)]
pub struct Concept {
    /// At least one.
    pub items: Vec<ConceptItem>,
    /// Files that were left out, each with its reason.
    pub problems: Vec<String>,
    /// What the user should know of the pictures that were kept, such as captions that are missing.
    pub remarks: Vec<String>,
    /// SHA-256 over options, names, contents and captions, in hexadecimal: equal for equal input.
    pub fingerprint: String,
}

impl Concept {
    /// Indices of the items in groups of equal size, in order of first appearance. A batch must stay within one.
    pub fn buckets(&self) -> Vec<Vec<usize>> {
        let mut buckets: Vec<((usize, usize), Vec<usize>)> = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            match buckets.iter_mut().find(|(size, _)| *size == item.size()) {
                Some((_, bucket)) => bucket.push(index),
                None => buckets.push((item.size(), vec![index])),
            }
        }
        buckets.into_iter().map(|(_, bucket)| bucket).collect()
    }

    /// Whether there are mirrored twins.
    pub fn has_twins(&self) -> bool {
        self.items.iter().any(|item| item.mirrored)
    }

    /// The concept without its mirrored twins. It has another fingerprint, since less is learned from.
    #[must_use]
    pub fn without_twins(mut self) -> Self {
        if self.has_twins() {
            self.items.retain(|item| !item.mirrored);
            let hash = Sha256::digest(format!("{} without twins", self.fingerprint));
            self.fingerprint = crate::hex(&hash);
        }
        self
    }
}

#[cfg(test)]
mod tests;
