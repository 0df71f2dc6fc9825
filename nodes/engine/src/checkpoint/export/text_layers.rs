//! A text encoder for a reader that leaves out other layers than the model does. *CLIP Set Last Layer* moves the layer; and of Stable Diffusion 2 a
//! single file has 24 layers of which every reader skips the last, where a folder has the 23 that are used.
//!
//! A reader takes all layers but the last `skip` of what it finds. So layers are left out, or made idle: an idle layer adds nothing to what passes
//! through it, whatever reads it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::super::family::TextRow;
use crate::models::TextTower;
use crate::{Error, Result};

/// The projection of the pooled state.
pub(super) const PROJECTION: &str = "text_projection.weight";

/// What the user should know of layers that are not written as they are.
pub(super) fn note(tower: &TextTower, row: &TextRow) -> Option<String> {
    let skipped = skipped(tower);
    (skipped > row.layer.skip).then(|| {
        let count = skipped - row.layer.skip;
        format!(
            "the text encoder {} stops {count} layer{} earlier, as CLIP Set Last Layer says: what lies behind is not in the file",
            tower.key,
            if count == 1 { "" } else { "s" }
        )
    })
}

/// How many of its layers the encoder leaves out.
fn skipped(tower: &TextTower) -> usize {
    tower.layer.skipped(tower.encoder.config().num_hidden_layers)
}

/// What a reader finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layers {
    /// So many layers in all.
    pub(super) count: usize,
    /// Those from the first to before the second are idle.
    idle: (usize, usize),
}

impl Layers {
    /// For a folder, of which all layers but the last `skip` are used.
    pub(super) fn of_folder(tower: &TextTower, row: &TextRow) -> Result<Self> {
        let skip = row.folder.skip;
        let layers = Self::new(tower, row, skip)?;
        // What nobody sees is left out.
        let count = if skipped(tower) > skip { layers.idle.0 + skip } else { layers.count };
        Ok(Self { count, ..layers })
    }

    /// For a single file, which has as many layers as its family.
    pub(super) fn of_file(tower: &TextTower, row: &TextRow) -> Result<Self> {
        Self::new(tower, row, row.layer.skip)
    }

    fn new(tower: &TextTower, row: &TextRow, skip: usize) -> Result<Self> {
        let (all, skipped) = (tower.encoder.config().num_hidden_layers, skipped(tower));
        let used = all - skipped;
        if skipped == skip && tower.layer.norm == row.layer.norm {
            return Ok(Self { count: all, idle: (all, all) });
        }
        // The pooled state is that of the last layer, and states that are not normed come from behind a layer that is there.
        if !row.layer.norm || !tower.layer.norm {
            return Err(Error::incompatible(format!(
                "the text encoder {} stops {skipped} layers before its last, which no file can say: readers stop {skip} before it",
                tower.key
            ))
            .help("export the CLIP of Load Checkpoint, without CLIP Set Last Layer"));
        }
        Ok(if skipped > skip {
            Self { count: all, idle: (used, all - skip) }
        } else {
            Self { count: all + skip - skipped, idle: (all, all + skip - skipped) }
        })
    }

    /// All tensors of the encoder in transformers' names, from `text_model.` on.
    pub(super) fn state_dict(&self, tower: &TextTower) -> Result<BTreeMap<String, Tensor>> {
        const LAYERS: &str = "text_model.encoder.layers.";
        let own = |name: &str| match name {
            name if name.starts_with("text_model.") || name == PROJECTION => name.to_owned(),
            name => format!("text_model.{name}"),
        };
        let all = tower.encoder.state_dict().iter().map(|(name, tensor)| (own(name), tensor.clone()));
        let mut tensors: BTreeMap<String, Tensor> = all.collect();
        let layer = |name: &str| name.strip_prefix(LAYERS)?.split_once('.')?.0.parse::<usize>().ok();
        tensors.retain(|name, _| layer(name).is_none_or(|i| i < self.count));
        let first = format!("{LAYERS}0.");
        let pattern: Vec<(String, Tensor)> = tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&first)?.to_owned(), tensor.clone())))
            .collect();
        for i in self.idle.0..self.idle.1.min(self.count) {
            for (name, tensor) in &pattern {
                let is_scale = name.starts_with("layer_norm") && name.ends_with(".weight");
                let value = Tensor::new(if is_scale { 1f32 } else { 0f32 }, &Device::Cpu)?;
                let value = value.to_dtype(tensor.dtype())?.broadcast_as(tensor.dims())?;
                tensors.insert(format!("{LAYERS}{i}.{name}"), value);
            }
        }
        Ok(tensors)
    }
}

/// The projection of a model that has none: the pooled state as it is.
pub(super) fn no_projection(tower: &TextTower) -> Result<Tensor> {
    let dtype = tower.encoder.token_embedding().dtype();
    Ok(Tensor::eye(tower.width(), dtype, &Device::Cpu)?)
}
