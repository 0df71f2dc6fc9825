//! What a checkpoint is, without loading it: container, family, prediction, and for each part its size and types.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use super::{Checkpoint, Precision, Weights};
use crate::Result;
use crate::diffusion::PredictionType;

/// The part of what no network takes.
pub(super) const OTHER: &str = "other";

/// A part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    /// `UNet`, `text encoder`, `VAE`, `other`.
    pub name: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many numbers.
    pub parameters: usize,
    /// How many of them are of each type.
    pub types: BTreeMap<String, usize>,
}

/// What a checkpoint is.
#[derive(Debug, Clone)]
pub struct CheckpointReport {
    /// `diffusers pipeline`, `safetensors` or `torch pickle`.
    pub container: &'static str,
    /// What people call the family.
    pub family: String,
    /// What the UNet predicts.
    pub prediction: PredictionType,
    /// The side in pixels of the pictures that it was trained on.
    pub resolution: usize,
    /// Its parts, largest first.
    pub parts: Vec<PartReport>,
}

/// Look at a checkpoint.
///
/// # Errors
/// As [`Checkpoint::open`]: a file of no known family is named with what it looks like.
pub fn inspect(path: &Path) -> Result<CheckpointReport> {
    let checkpoint = Checkpoint::open(path)?;
    let prediction = checkpoint.schedule()?.prediction();
    let mut parts: BTreeMap<String, PartReport> = BTreeMap::new();
    let mut add = |part: &str, weights: &Weights, name: &str| {
        let report = parts.entry(part.to_owned()).or_insert_with(|| PartReport {
            name: part.to_owned(),
            tensors: 0,
            parameters: 0,
            types: BTreeMap::new(),
        });
        let count = weights.shape(name).map_or(0, |shape| shape.iter().product());
        report.tensors += 1;
        report.parameters += count;
        *report.types.entry(weights.type_name(name)).or_default() += count;
    };
    checkpoint.source.for_each_tensor(&mut add)?;
    let mut parts: Vec<PartReport> = parts.into_values().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.parameters));
    Ok(CheckpointReport {
        container: checkpoint.source.container(),
        family: checkpoint.family().name.to_owned(),
        prediction,
        resolution: checkpoint.resolution()?,
        parts,
    })
}

impl Checkpoint {
    /// The smallest precision that has all numbers of the model as they are saved.
    pub fn precision(&self) -> Result<Precision> {
        let mut kept = BTreeSet::new();
        self.source.for_each_tensor(&mut |part, weights, name| {
            if part != OTHER {
                kept.insert(weights.type_name(name));
            }
        })?;
        // Positions and the like are no weights.
        kept.retain(|name| name.contains('F'));
        Ok(match kept.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["F16"] => Precision::F16,
            ["BF16"] => Precision::Bf16,
            _ => Precision::F32,
        })
    }
}

impl CheckpointReport {
    /// Numbers in the parts that are used.
    pub fn parameters(&self) -> usize {
        self.parts.iter().filter(|part| part.name != OTHER).map(|part| part.parameters).sum()
    }
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prediction = match self.prediction {
            PredictionType::Epsilon => "epsilon",
            PredictionType::VPrediction => "v-prediction",
        };
        writeln!(f, "{}, {}, {prediction}, {} pixels", self.family, self.container, self.resolution)?;
        for part in &self.parts {
            let types: Vec<&str> = part.types.keys().map(String::as_str).collect();
            let millions = part.parameters as f64 / 1e6;
            writeln!(
                f,
                "  {}: {millions:.1} million parameters in {} tensors, {}",
                part.name,
                part.tensors,
                types.join(" and ")
            )?;
        }
        let gigabytes = |bytes: usize| (self.parameters() * bytes) as f64 / f64::from(1 << 30);
        write!(
            f,
            "  weights in memory: {:.2} GiB as f32, {:.2} GiB as bf16 or f16",
            gigabytes(4),
            gigabytes(2)
        )
    }
}
