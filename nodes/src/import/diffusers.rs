//! Parts in diffusers' names, with diffusers' configuration.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use vocable_engine::checkpoint::Weights;
use vocable_engine::diffusion::{NoiseSchedule, ScheduleConfig};
use vocable_engine::embedding::encoder_for_width;
use vocable_engine::models::{
    AutoencoderKL, ClipTextConfig, ClipTextModel, HiddenLayer, TextEncoders, TextTower, UNet2DConditionModel,
};
use vocable_engine::sampling::Denoiser;
use vocable_engine::tokenizer::Tokenizer;
use vocable_host_sdk::abi::{NodeError, StateKind, Value};

use super::Import;
use super::settings::{Settings, stopped};
use crate::convert::node_error;
use crate::handles::{Clip, Model, Vae};

/// The latents' factor where nothing tells it: that of Stable Diffusion 1.
const SCALING_FACTOR: f64 = 0.18215;

/// The handle.
pub(super) fn build(import: Import, weights: &Weights) -> Result<Value, NodeError> {
    let Import { kind, settings, name, fingerprint, .. } = import;
    let value = match kind {
        StateKind::Model => {
            let unet = UNet2DConditionModel::new(&config(&settings)?, weights).map_err(node_error)?;
            let schedule = match settings.text("scheduler")? {
                Some(json) => ScheduleConfig::from_json(json).map_err(node_error)?,
                None => ScheduleConfig::default(),
            };
            let schedule = Arc::new(NoiseSchedule::from_config(&schedule).map_err(node_error)?);
            let scaling_factor = settings.factor("scaling_factor")?.unwrap_or(SCALING_FACTOR);
            let denoiser = Denoiser { unet: Arc::new(unet), schedule, scaling_factor };
            Model { denoiser, family: None, name, fingerprint }.into_value()
        }
        StateKind::Clip => {
            let last_layer = settings.last_layer()?;
            let encoder = ClipTextModel::new(&config(&settings)?, weights).map_err(node_error)?;
            let ClipTextConfig { hidden_size, vocab_size, max_position_embeddings, .. } = *encoder.config();
            let folder = Path::new(settings.needed_text("tokenizer")?);
            let tokenizer = Tokenizer::from_dir(folder).map_err(node_error)?;
            tokenizer.check_fits(vocab_size, max_position_embeddings).map_err(node_error)?;
            let tower = TextTower {
                encoder: Arc::new(encoder),
                tokenizer: Arc::new(tokenizer),
                key: encoder_for_width(hidden_size).to_string(),
                layer: HiddenLayer::LAST,
            };
            let text = TextEncoders::new(vec![tower]).map_err(node_error)?;
            Clip { text: stopped(text, last_layer), fingerprint }.into_value()
        }
        StateKind::Vae => {
            let autoencoder = AutoencoderKL::new(&config(&settings)?, weights).map_err(node_error)?;
            Vae { autoencoder: Arc::new(autoencoder), fingerprint }.into_value()
        }
    };
    weights.refuse_unknown().map_err(node_error)?;
    Ok(value)
}

fn config<T: DeserializeOwned>(settings: &Settings) -> Result<T, NodeError> {
    serde_json::from_str(settings.needed_text("config")?).map_err(|error| {
        NodeError::incompatible("setting `config` is not a configuration of this part").caused_by(&error)
    })
}
