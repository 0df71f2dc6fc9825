//! Models that a host owns and hands in as weights, in diffusers' names.
//!
//! | setting | for | |
//! |---|---|---|
//! | `config` | all | the part's `config.json`, as text; needed |
//! | `scheduler` | MODEL | `scheduler_config.json`, as text; without it the noise schedule of Stable Diffusion 1 |
//! | `scaling_factor` | MODEL | what latents are multiplied by, 0.18215 if left out |
//! | `tokenizer` | CLIP | the folder of the tokenizer; needed |
//! | `stop_at_clip_layer` | CLIP | −1 is the last layer, −2 the one before |
//! | `precision`, `device` | all | as for Load Checkpoint |
//! | `name` | all | what the user calls it |
//!
//! Any other setting is refused by name: leaving it out would silently make another model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use vocable_engine::checkpoint::Weights;
use vocable_engine::diffusion::{NoiseSchedule, ScheduleConfig};
use vocable_engine::embedding::encoder_for_width;
use vocable_engine::models::{
    AutoencoderKL, ClipTextConfig, ClipTextModel, HiddenLayer, TextEncoders, TextTower, UNet2DConditionModel,
};
use vocable_engine::sampling::Denoiser;
use vocable_engine::tokenizer::Tokenizer;
use vocable_host_sdk::abi::{HostContext, NodeError, StateKind, TensorBuf, Value};

use crate::convert::{node_error, weight_from};
use crate::generation::skipped_layers;
use crate::handles::{Clip, Model, Vae};
use crate::run::{fingerprint_of, open_device, precision};

const COMMON: [&str; 4] = ["config", "precision", "device", "name"];

/// The part's own settings.
fn own_settings(kind: StateKind) -> &'static [&'static str] {
    match kind {
        StateKind::Model => &["scheduler", "scaling_factor"],
        StateKind::Clip => &["tokenizer", "stop_at_clip_layer"],
        StateKind::Vae => &[],
    }
}

/// Makes a handle of a part whose weights the host holds.
pub(crate) fn import(
    kind: StateKind,
    tensors: Vec<(String, TensorBuf)>,
    settings: BTreeMap<String, Value>,
    host: &HostContext<'_>,
) -> Result<Value, NodeError> {
    for (name, value) in &settings {
        if !COMMON.contains(&name.as_str())
            && !own_settings(kind).contains(&name.as_str())
            && !value.is_none()
        {
            return Err(NodeError::incompatible(format!(
                "setting `{name}` of a {kind} is not known ({})",
                value.describe()
            ))
            .help("Give the model's file instead, or a model without this setting."));
        }
    }
    let text = |name: &str| settings.get(name).and_then(Value::as_str);
    let needed = |name: &str| {
        text(name).ok_or_else(|| {
            NodeError::invalid_input(format!("the text setting `{name}` of the {kind} is missing"))
        })
    };
    let config = needed("config")?;
    let precision = precision(text("precision").unwrap_or("f32"))?;
    let device = open_device(text("device").unwrap_or("cpu"))?;
    let name = text("name").unwrap_or("a model of the host").to_string();
    let fingerprint = fingerprint_of(&fingerprint(&tensors, &settings), precision, &device);
    let tensors = tensors.iter().map(|(name, tensor)| {
        host.check_cancelled()?;
        Ok((name.clone(), weight_from(tensor)?))
    });
    let tensors = tensors.collect::<Result<_, NodeError>>()?;
    let weights = Weights::from_tensors(&name, tensors, &device, precision.dtype());
    match kind {
        StateKind::Model => {
            let unet = UNet2DConditionModel::new(&read(config)?, &weights).map_err(node_error)?;
            let schedule = match text("scheduler") {
                Some(json) => ScheduleConfig::from_json(json).map_err(node_error)?,
                None => ScheduleConfig::default(),
            };
            let schedule = Arc::new(NoiseSchedule::from_config(&schedule).map_err(node_error)?);
            let scaling_factor = settings.get("scaling_factor").and_then(Value::as_float).unwrap_or(0.18215);
            let denoiser = Denoiser { unet: Arc::new(unet), schedule, scaling_factor };
            Ok(Model { denoiser, family: None, name, fingerprint }.into_value())
        }
        StateKind::Clip => {
            let encoder = ClipTextModel::new(&read(config)?, &weights).map_err(node_error)?;
            let ClipTextConfig {
                hidden_size, vocab_size, max_position_embeddings, num_hidden_layers, ..
            } = *encoder.config();
            let tokenizer = Tokenizer::from_dir(Path::new(needed("tokenizer")?)).map_err(node_error)?;
            tokenizer.check_fits(vocab_size, max_position_embeddings).map_err(node_error)?;
            let last = settings.get("stop_at_clip_layer").and_then(Value::as_int).unwrap_or(-1);
            let last = i64::try_from(last).unwrap_or(i64::MIN);
            let skip = skipped_layers(last, num_hidden_layers);
            let tower = TextTower {
                encoder: Arc::new(encoder),
                tokenizer: Arc::new(tokenizer),
                key: encoder_for_width(hidden_size).to_string(),
                layer: HiddenLayer { skip, norm: true },
            };
            let text = TextEncoders::new(vec![tower]).map_err(node_error)?;
            Ok(Clip { text, fingerprint }.into_value())
        }
        StateKind::Vae => {
            let autoencoder = AutoencoderKL::new(&read(config)?, &weights).map_err(node_error)?;
            Ok(Vae { autoencoder: Arc::new(autoencoder), fingerprint }.into_value())
        }
    }
}

fn read<T: DeserializeOwned>(config: &str) -> Result<T, NodeError> {
    serde_json::from_str(config).map_err(|error| {
        NodeError::incompatible("setting `config` is not a configuration of this part").caused_by(&error)
    })
}

/// A short name for a part of a model: its configuration and other settings, what the tokenizer's folder holds, and names, shapes and samples of
/// the tensors. What the user calls the part does not count; precision and device are added by [`fingerprint_of`].
fn fingerprint(tensors: &[(String, TensorBuf)], settings: &BTreeMap<String, Value>) -> String {
    let mut hash = Sha256::new();
    for (name, value) in
        settings.iter().filter(|(name, _)| !["name", "precision", "device"].contains(&name.as_str()))
    {
        hash.update(format!("{name}={}\n", value.to_json()));
    }
    if let Some(folder) = settings.get("tokenizer").and_then(Value::as_str) {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = files.filter(|path| is_of_tokenizer(path)).collect();
        files.sort();
        for file in files {
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            // What cannot be read is refused when the tokenizer is made.
            hash.update(std::fs::read(&file).unwrap_or_default());
        }
    }
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, _)| name);
    for (name, tensor) in sorted {
        hash.update(format!("{name} {:?} {}\n", tensor.shape(), tensor.dtype()));
        match tensor.as_bytes() {
            Some(bytes) => sample(bytes, &mut hash),
            // Rows that do not follow each other; what lies elsewhere is refused when the weights are taken.
            None => {
                let values = tensor.to_vec_f32().unwrap_or_default();
                sample(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), &mut hash);
            }
        }
    }
    vocable_engine::short_hex(hash)
}

/// The files that a tokenizer is made of are text.
fn is_of_tokenizer(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "json" || extension == "txt")
}

/// Small tensors whole, large ones by blocks that are spread over them, so that gigabytes are named in a moment.
fn sample(bytes: &[u8], hash: &mut Sha256) {
    const BLOCK: usize = 1 << 12;
    const BLOCKS: usize = 64;
    let step = if bytes.len() <= 4 * BLOCK * BLOCKS { BLOCK } else { (bytes.len() - BLOCK) / BLOCKS };
    for start in (0..bytes.len()).step_by(step) {
        hash.update(&bytes[start..bytes.len().min(start + BLOCK)]);
    }
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::SilentHost;

    use super::*;

    #[test]
    fn settings_that_are_not_known_are_refused_by_name() {
        let refused = |settings: &[(&str, Value)]| {
            let settings = settings.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            let host = SilentHost::default();
            import(StateKind::Vae, Vec::new(), settings, &HostContext::new(&host)).unwrap_err().message
        };
        assert!(refused(&[("quantisation", "int8".into())]).contains("`quantisation` of a VAE"));
        assert!(refused(&[]).contains("`config`"));
        assert!(refused(&[("config", "[]".into())]).contains("configuration"));
        let config = "{\"block_out_channels\":[32],\"layers_per_block\":1}";
        assert!(refused(&[("config", config.into())]).contains("missing"));
    }

    #[test]
    fn a_part_is_named_by_all_that_decides_what_it_computes() {
        let tensor = |values: Vec<f32>| {
            vec![("weight".to_string(), TensorBuf::from_vec_f32(&[values.len()], values).unwrap())]
        };
        let settings = |more: &[(&str, &str)]| -> BTreeMap<String, Value> {
            let all = [("config", "{}")].iter().chain(more);
            all.map(|(name, text)| (name.to_string(), Value::from(*text))).collect()
        };
        let plain = fingerprint(&tensor(vec![0.0; 10_000]), &settings(&[]));
        let mut middle = vec![0.0; 10_000];
        middle[5_000] = 1.0;
        assert_ne!(fingerprint(&tensor(middle), &settings(&[])), plain, "a number in the middle");
        let of = |more: &[(&str, &str)]| fingerprint(&tensor(vec![0.0; 10_000]), &settings(more));
        assert_ne!(of(&[("scheduler", r#"{"prediction_type": "v_prediction"}"#)]), plain);
        assert_ne!(of(&[("scaling_factor", "0.13025")]), plain);
        assert_eq!(of(&[("name", "another"), ("device", "cpu")]), plain, "what it is called does not count");

        let folder = tempfile::tempdir().unwrap();
        let tokenizer = [("tokenizer", folder.path().to_str().unwrap())];
        std::fs::write(folder.path().join("merges.txt"), "a b").unwrap();
        let before = of(&tokenizer);
        assert_eq!(of(&tokenizer), before);
        std::fs::write(folder.path().join("merges.txt"), "a c").unwrap();
        assert_ne!(of(&tokenizer), before);
    }

    #[test]
    fn samples_are_spread_over_large_tensors() {
        let digest = |bytes: &[u8]| {
            let mut hash = Sha256::new();
            sample(bytes, &mut hash);
            hash.finalize().to_vec()
        };
        let size = 4 << 20;
        let plain = digest(&vec![0; size]);
        // Beginning, end, and a block of the middle.
        for place in [0, size - 1, 32 * ((size - (1 << 12)) / 64)] {
            let mut bytes = vec![0; size];
            bytes[place] = 1;
            assert_ne!(digest(&bytes), plain, "byte {place}");
        }
        assert_ne!(digest(&[]), digest(&[0]));
    }
}
