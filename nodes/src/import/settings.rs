//! What a host says of a part beside its weights.

use std::collections::BTreeMap;

use vocable_engine::diffusion::PredictionType;
use vocable_engine::models::TextEncoders;
use vocable_host_sdk::abi::{DType, NodeError, StateKind, TensorBuf, Value};

use crate::generation::skipped_layers;

/// Whose names the tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Diffusers,
    ComfyUi,
}

const NAMES: [(&str, Names); 2] = [("diffusers", Names::Diffusers), ("comfyui", Names::ComfyUi)];
const COMMON: [&str; 4] = ["names", "precision", "device", "name"];
/// What does not change what is computed, what is a part of the name of a model by itself, and a folder whose contents count and not its place.
const NOT_OF_THE_WEIGHTS: [&str; 4] = ["name", "precision", "device", "tokenizer"];
const PREDICTIONS: [(&str, PredictionType); 2] =
    [("epsilon", PredictionType::Epsilon), ("v_prediction", PredictionType::VPrediction)];

/// The settings of an import, all of them known.
pub(super) struct Settings {
    kind: StateKind,
    names: Names,
    values: BTreeMap<String, Value>,
}

/// The settings of a part with these names, beside those of all.
fn own_settings(kind: StateKind, names: Names) -> &'static [&'static str] {
    match (names, kind) {
        (Names::Diffusers, StateKind::Model) => &["config", "scheduler", "scaling_factor"],
        (Names::Diffusers, StateKind::Clip) => &["config", "tokenizer", "stop_at_clip_layer"],
        (Names::Diffusers, StateKind::Vae) => &["config"],
        (Names::ComfyUi, StateKind::Model) => &["prediction_type", "sigmas", "latent_scale"],
        (Names::ComfyUi, StateKind::Clip) => &["stop_at_clip_layer"],
        (Names::ComfyUi, StateKind::Vae) => &[],
    }
}

impl Settings {
    /// Refuses by name what is not known.
    pub(super) fn new(kind: StateKind, mut values: BTreeMap<String, Value>) -> Result<Self, NodeError> {
        values.retain(|_, value| !value.is_none());
        let mut settings = Self { kind, names: Names::Diffusers, values };
        if let Some(names) = settings.choice("names", &NAMES)? {
            settings.names = names;
        }
        let own = own_settings(kind, settings.names);
        let known = |name: &&String| COMMON.contains(&name.as_str()) || own.contains(&name.as_str());
        match settings.values.iter().find(|(name, _)| !known(name)) {
            None => Ok(settings),
            Some((name, value)) => Err(NodeError::incompatible(format!(
                "setting `{name}` of a {kind} is not known ({})",
                value.describe()
            ))
            .help("Give the model's file instead, or a model without this setting.")),
        }
    }

    pub(super) fn names(&self) -> Names {
        self.names
    }

    /// Those that decide what the part computes, by name.
    pub(super) fn of_the_weights(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.values.iter().map(|(name, value)| (name.as_str(), value));
        all.filter(|(name, _)| !NOT_OF_THE_WEIGHTS.contains(name))
    }

    fn get<'a, T>(
        &'a self,
        name: &str,
        wanted: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, NodeError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let read = read(value).ok_or_else(|| self.wrong(name, value.describe(), wanted))?;
        Ok(Some(read))
    }

    fn wrong(&self, name: &str, found: impl std::fmt::Display, wanted: &str) -> NodeError {
        NodeError::invalid_input(format!("setting `{name}` of the {} is {found}, wanted {wanted}", self.kind))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, NodeError> {
        self.get(name, "a text", Value::as_str)
    }

    pub(super) fn needed_text(&self, name: &str) -> Result<&str, NodeError> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> NodeError {
        NodeError::invalid_input(format!("the setting `{name}` of the {} is missing", self.kind))
    }

    /// A factor: finite and above 0.
    pub(super) fn factor(&self, name: &str) -> Result<Option<f64>, NodeError> {
        let usable = |factor: &f64| factor.is_finite() && *factor > 0.0;
        self.get(name, "a finite number above 0", |value| value.as_float().filter(usable))
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, NodeError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or ");
        match choices.iter().find(|(choice, _)| *choice == text) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => Err(self.wrong(name, format!("`{text}`"), &names())),
        }
    }

    /// What the denoiser says; needed.
    pub(super) fn prediction(&self) -> Result<PredictionType, NodeError> {
        self.choice("prediction_type", &PREDICTIONS)?.ok_or_else(|| self.missing("prediction_type"))
    }

    /// The noise levels; whether they rise is looked at by whoever uses them.
    pub(super) fn sigmas(&self) -> Result<Option<Vec<f32>>, NodeError> {
        let fits = |tensor: &&TensorBuf| tensor.dtype() == DType::F32 && tensor.ndim() == 1;
        let wanted = "a tensor f32 of one dimension";
        let tensor = self.get("sigmas", wanted, |value| value.as_tensor().filter(fits))?;
        tensor.map(TensorBuf::to_vec_f32).transpose()
    }

    /// The layer that the text encoders stop at, counted from the end: -1 is the last.
    pub(super) fn last_layer(&self) -> Result<Option<i64>, NodeError> {
        let wanted = "a whole number below 0: -1 is the last layer, -2 the one before";
        let layer = |value: &Value| i64::try_from(value.as_int()?).ok().filter(|layer| *layer < 0);
        self.get("stop_at_clip_layer", wanted, layer)
    }
}

/// Text encoders that stop at that layer; without one, where they do by themselves.
pub(super) fn stopped(text: TextEncoders, last_layer: Option<i64>) -> TextEncoders {
    match last_layer {
        Some(last) => text.skipping(skipped_layers(last)),
        None => text,
    }
}
