//! Norm control: keeping a learned vector about as long as the words that it stands among.
//!
//! An ordinary word of SD1 is about 0.4 long; plain textual inversion ends at 20 and more (DTI, Kim et al. 2026), where the first layer
//! norm sees the placeholder only and the rest of the prompt is not followed.

use serde::{Deserialize, Serialize};

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
    /// Apply it to `n` rows of width `d`; `vocabulary_norm` is the mean norm of the vocabulary's rows.
    pub fn apply(self, vectors: &mut [f32], d: usize, vocabulary_norm: f64) {
        let target = |norm: f64| match self {
            Self::None => norm,
            Self::Fixed { scale } => scale * vocabulary_norm,
            Self::Pull { strength } => norm + strength * (vocabulary_norm - norm),
        };
        if self == Self::None {
            return;
        }
        for row in vectors.chunks_exact_mut(d) {
            let norm = norm(row);
            if norm > 0.0 {
                let factor = (target(norm) / norm) as f32;
                row.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }
}

/// The Euclidean norm of a row.
pub(super) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
}

/// The angle between two rows, in degrees.
pub(super) fn angle(a: &[f32], b: &[f32]) -> f64 {
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
            control.apply(&mut rows, 2, 2.0);
            assert!((norm(&rows[..2]) - wanted).abs() < 1e-6);
            assert_eq!(rows[2..], [0.0, 0.0], "a zero row has no direction to scale");
        }
        assert!((angle(&[1., 0.], &[0., 2.]) - 90.0).abs() < 1e-9);
    }
}
