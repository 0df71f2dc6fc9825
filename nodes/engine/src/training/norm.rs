//! Norm control: keeping a learned vector about as long as the words that it stands among.
//!
//! An ordinary word of SD1 is about 0.4 long; plain textual inversion ends at 20 and more (DTI, Kim et al. 2026), where the first layer
//! norm sees the placeholder only and the rest of the prompt is not followed.

use serde::{Deserialize, Serialize};

use super::initial::VocabularyScale;
use crate::{Error, Result};

/// What happens to each vector's norm after an optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormControl {
    /// Nothing.
    None,
    /// The norm is set to `scale` × the vocabulary's mean norm: only the direction is learned (DTI).
    Fixed {
        /// Of the vocabulary's mean norm.
        scale: f64,
    },
    /// The norm n moves towards the target N by `n + strength·(N − n)` (lora_pti's decay).
    Pull {
        /// 0 is nothing, 1 is the same as fixed.
        strength: f64,
    },
}

impl NormControl {
    /// All of them, by name, each with its usual scale or strength.
    pub const ALL: [(&'static str, Self); 3] =
        [("none", Self::None), ("fixed", Self::Fixed { scale: 1.0 }), ("pull", Self::Pull { strength: 0.1 })];

    /// The same control with another scale or strength. Without control there is none to change.
    #[must_use]
    pub fn with_strength(self, strength: f64) -> Self {
        match self {
            Self::None => Self::None,
            Self::Fixed { .. } => Self::Fixed { scale: strength },
            Self::Pull { .. } => Self::Pull { strength },
        }
    }

    /// Refuse a scale that wipes the vectors out, and a pull that overshoots.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) that names the value and what is wanted.
    pub fn check(self) -> Result<()> {
        match self {
            Self::Fixed { scale } if !(scale.is_finite() && scale > 0.0) => {
                Err(Error::invalid(format!("norm control fixed: a scale of {scale}, wanted more than 0"))
                    .help("1 is the mean length of the vocabulary's words"))
            }
            Self::Pull { strength } if !(0.0..=1.0).contains(&strength) => {
                Err(Error::invalid(format!("norm control pull: a strength of {strength}, wanted 0 to 1"))
                    .help("0.1 is usual; 1 goes all the way at every step, as fixed does"))
            }
            _ => Ok(()),
        }
    }

    /// Apply it to `vectors` `[n, D]`, row-major: to each text encoder's part of each row, by its own vocabulary.
    pub fn apply(self, vectors: &mut [f32], scales: &[VocabularyScale]) {
        if self == Self::None {
            return;
        }
        let width = scales.last().map_or(1, |scale| scale.columns.end);
        for row in vectors.chunks_exact_mut(width) {
            for VocabularyScale { columns, mean_norm } in scales {
                let part = &mut row[columns.clone()];
                let norm = norm(part);
                let target = match self {
                    Self::None => norm,
                    Self::Fixed { scale } => scale * mean_norm,
                    Self::Pull { strength } => norm + strength * (mean_norm - norm),
                };
                if norm > 0.0 {
                    let factor = (target / norm) as f32;
                    part.iter_mut().for_each(|x| *x *= factor);
                }
            }
        }
    }
}

/// The Euclidean norm of a row.
pub fn norm(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

/// The angle between two rows, in degrees.
pub fn angle(a: &[f32], b: &[f32]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    let size = norm(a) * norm(b);
    if size > 0.0 { (dot / size).clamp(-1.0, 1.0).acos().to_degrees() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_go_where_they_should() {
        for (control, wanted) in [
            (NormControl::None, 5.0),
            (NormControl::Fixed { scale: 1.0 }, 2.0),
            (NormControl::Fixed { scale: 1.5 }, 3.0),
            (NormControl::Pull { strength: 0.5 }, 3.5),
        ] {
            let mut rows = vec![3.0, 4.0, 0.0, 0.0];
            control.apply(&mut rows, &[VocabularyScale { columns: 0..2, mean_norm: 2.0 }]);
            assert!((norm(&rows[..2]) - wanted).abs() < 1e-6);
            assert_eq!(rows[2..], [0.0, 0.0], "a zero row has no direction to scale");
        }
        assert!((angle(&[1., 0.], &[0., 2.]) - 90.0).abs() < 1e-9);

        // Two text encoders: each part of a row by its own vocabulary.
        let mut row = vec![3.0, 4.0, 5.0];
        let scales =
            [(0..2, 2.0), (2..3, 1.0)].map(|(columns, mean_norm)| VocabularyScale { columns, mean_norm });
        NormControl::Fixed { scale: 1.0 }.apply(&mut row, &scales);
        assert!((norm(&row[..2]) - 2.0).abs() < 1e-6 && (row[2] - 1.0).abs() < 1e-6, "{row:?}");
    }

    #[test]
    fn strengths_are_checked_and_belong_to_their_control() {
        let pull = NormControl::Pull { strength: 0.1 };
        assert_eq!(pull.with_strength(0.5), NormControl::Pull { strength: 0.5 });
        assert_eq!(NormControl::None.with_strength(0.5), NormControl::None);
        for (name, control) in NormControl::ALL {
            control.check().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(pull.with_strength(1.5).check().unwrap_err().message.contains("1.5, wanted 0 to 1"));
        assert!(pull.with_strength(f64::NAN).check().is_err());
        assert!(NormControl::Fixed { scale: 0.0 }.check().unwrap_err().message.contains("more than 0"));
    }
}
