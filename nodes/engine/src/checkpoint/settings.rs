//! What the shapes of a single file's tensors do not tell, for models that are not as their family is: a file that is written here says it in its
//! metadata, so that it is read back as the same model. Other programs do not know of it; files of usual models have none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Weights;
use crate::diffusion::ScheduleConfig;
use crate::{Error, Result};

/// Its name in the metadata.
pub(super) const KEY: &str = "vocable.settings";

/// What a model has of its own; all else is as shapes and family tell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// The `config.json` of `unet`, `vae` or a text encoder's folder.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) configs: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scheduler: Option<ScheduleConfig>,
    /// By the folder's name the texts of its files.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) tokenizers: BTreeMap<String, BTreeMap<String, String>>,
}

impl Settings {
    /// Those of a file; none where it says nothing.
    pub(super) fn of(weights: &Weights) -> Result<Self> {
        let Some(text) = weights.metadata(KEY) else { return Ok(Self::default()) };
        serde_json::from_str(text).map_err(|error| {
            Error::incompatible(format!("{}: metadata {KEY}: {error}", weights.origin()))
                .help("the file was written by a newer Vocable, or its header was changed")
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The configuration of a part, for which `told` is what its shapes tell.
    pub(super) fn config(&self, part: &str, told: Value) -> Value {
        self.configs.get(part).cloned().unwrap_or(told)
    }
}
