//! How pictures become training pictures.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Which part of a picture is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// The largest square in the middle.
    Centre,
    /// `count` squares per picture, each of 75 to 100 % of the shorter side, placed at random. The same seed gives the same squares, whatever other pictures there are.
    Random {
        /// Squares per picture, 1..=100.
        count: usize,
        /// Seed of place and size.
        seed: u64,
    },
    /// All of it: own aspect ratio, sides rounded to [`ConceptOptions::multiple`], area at most `resolution²`.
    None,
}

/// Where captions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptionSource {
    /// No captions: the trainer draws templates.
    Templates,
    /// A text file beside the picture, with its name and `.txt`; where it is missing or empty, a template is drawn.
    Sidecar,
    /// The picture's file name, without leading digits and dashes (see [`caption_of_file_name`](super::caption_of_file_name)).
    FileName,
}

/// Options of loading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConceptOptions {
    /// Side of a square in pixels: a multiple of 8, 16..=4096.
    pub resolution: usize,
    /// Which part of a picture is used.
    pub crop: Crop,
    /// Add a mirrored twin of every picture. Not for subjects with text or a left and a right.
    pub flip: bool,
    /// Where captions come from.
    pub captions: CaptionSource,
    /// Let transparency weigh the loss, so that the model does not learn the background.
    pub alpha_as_weight: bool,
    /// With [`Crop::None`] both sides are multiples of this: of 8, the pixels of a latent, or more for fewer different sizes. Pictures of one size can share a batch.
    pub multiple: usize,
}

impl Default for ConceptOptions {
    /// 512 px, centre crop, no twins, templates.
    fn default() -> Self {
        Self {
            resolution: 512,
            crop: Crop::Centre,
            flip: false,
            captions: CaptionSource::Templates,
            alpha_as_weight: false,
            multiple: 8,
        }
    }
}

impl ConceptOptions {
    /// Check all ranges.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) that names the option, the value and what is wanted.
    pub fn check(&self) -> Result<()> {
        let (resolution, multiple) = (self.resolution, self.multiple);
        if !(16..=4096).contains(&resolution) || !resolution.is_multiple_of(8) {
            return Err(Error::invalid(format!(
                "resolution {resolution}, wanted a multiple of 8 from 16 to 4096"
            )));
        }
        if !(8..=resolution).contains(&multiple) || !multiple.is_multiple_of(8) {
            return Err(Error::invalid(format!(
                "sides in multiples of {multiple}, wanted a multiple of 8 up to the resolution {resolution}"
            )));
        }
        match self.crop {
            Crop::Random { count, .. } if !(1..=100).contains(&count) => {
                Err(Error::invalid(format!("{count} random crops per picture, wanted 1 to 100")))
            }
            _ => Ok(()),
        }
    }
}
