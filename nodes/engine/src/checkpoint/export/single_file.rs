//! One file in the names of CompVis' latent-diffusion, with what other loaders look for in it.
//!
//! What the shapes of its tensors tell is found by reading the file before it is written, as any reader would; where that is another model, the file
//! says so in its metadata ([`Settings`]) and the user is told that only Vocable knows of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::family::{FAMILIES, PredictionRule};
use super::super::names::{self, Alias, Layout, Take};
use super::super::settings::{self, Settings};
use super::super::single_file::SingleFile;
use super::super::{Source, Weights, layout};
use super::tensors::{Entry, write as write_tensors};
use super::text_layers::{self, Layers, PROJECTION, no_projection};
use super::{Export, Progress, configs};
use crate::diffusion::PredictionType;
use crate::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionConfig};
use crate::{Error, Result};

/// Write the file; see [`Export::write`].
pub(super) fn write(export: &Export<'_>, path: &Path, mut progress: Progress<'_>) -> Result<Vec<String>> {
    let mut file = File::default();
    let unet = export.unet.config();
    let blocks = Layout { levels: unet.block_out_channels.len(), layers_per_block: unet.layers_per_block };
    file.add(export.unet.state_dict(), layout::UNET, names::unet, blocks)?;
    let vae = export.vae.config();
    let blocks = Layout { levels: vae.block_out_channels.len(), layers_per_block: vae.layers_per_block };
    file.add(export.vae.state_dict(), layout::VAE, names::vae, blocks)?;
    let mut notes = Vec::new();
    for (row, tower) in export.family.text.iter().zip(export.text.towers()) {
        let mut tensors = Layers::of_file(tower, row)?.state_dict(tower)?;
        // Other loaders learn the width of OpenCLIP from it; a model without one takes the pooled state as it is.
        if (row.translate)(PROJECTION, Layout::default()).is_some_and(|alias| alias.take == Take::Transposed)
        {
            tensors.entry(PROJECTION.to_owned()).or_insert(no_projection(tower)?);
        }
        file.add(&tensors, row.prefix, row.translate, Layout::default())?;
        notes.extend(text_layers::note(tower, row));
    }
    file.mark(export)?;
    let entries = file.entries()?;

    let weights = Weights::held("its tensors", stand_ins(&entries)?, &Device::Cpu, DType::F32);
    let read = SingleFile::of(path, weights, FAMILIES);
    let (own, differences) = read
        .and_then(|read| settings_of(export, &read))
        .map_err(|error| error.context("a single file cannot be read as this model"))?;
    let mut metadata = metadata(export);
    if !own.is_empty() {
        let text = serde_json::to_string(&own)
            .map_err(|error| Error::incompatible(format!("the settings cannot be written: {error}")))?;
        metadata.insert(settings::KEY.to_owned(), text);
        notes.push(format!(
            "Vocable reads this file as the same model; other programs cannot tell from it that {}. diffusers reads it rightly with the \
             pipeline's folder as `config`.",
            differences.join("; ")
        ));
    }
    progress.total = entries.len();
    write_tensors(path, entries, &metadata, export.precision, &mut progress)?;
    Ok(notes)
}

fn metadata(export: &Export<'_>) -> BTreeMap<String, String> {
    let prediction = match export.schedule.prediction() {
        PredictionType::Epsilon => "epsilon",
        PredictionType::VPrediction => "v",
    };
    [
        ("format", "pt"),
        ("modelspec.sai_model_spec", "1.0.0"),
        ("modelspec.title", export.title),
        ("modelspec.prediction_type", prediction),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into()
}

/// A file that is put together.
#[derive(Default)]
struct File {
    whole: Vec<Entry>,
    /// By name the parts of matrices that lie in one.
    joined: BTreeMap<String, Vec<Option<Tensor>>>,
}

impl File {
    /// All tensors of a part under the file's names.
    fn add(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        prefix: &str,
        translate: fn(&str, Layout) -> Option<Alias>,
        layout: Layout,
    ) -> Result<()> {
        for (name, tensor) in tensors {
            let Some(alias) = translate(name, layout) else {
                return Err(Error::incompatible(format!("a single file has no name for the tensor {name}")));
            };
            let full = format!("{prefix}.{}", chosen(&alias, name, tensors));
            match alias.take {
                Take::Whole => {
                    let mut entry = Entry::new(full, tensor);
                    // The autoencoder's attention is made of linear layers here, of convolutions of one place there.
                    if entry.name.contains(".mid.attn_1.") && entry.shape.len() == 2 {
                        entry.shape.extend([1, 1]);
                    }
                    self.whole.push(entry);
                }
                Take::Transposed => self.whole.push(Entry::new(full, &tensor.t()?)),
                Take::Part(index, count) => {
                    let parts = self.joined.entry(full).or_insert_with(|| vec![None; count]);
                    parts[index] = Some(tensor.clone());
                }
            }
        }
        Ok(())
    }

    /// Empty tensors by which ComfyUI knows what an SDXL predicts.
    fn mark(&mut self, export: &Export<'_>) -> Result<()> {
        let schedule = export.schedule_config()?;
        let marked = matches!(export.family.prediction, PredictionRule::Marked)
            && schedule.prediction_type == PredictionType::VPrediction;
        for (name, wanted) in [("v_pred", marked), ("ztsnr", marked && schedule.rescale_betas_zero_snr)] {
            if wanted {
                self.whole.push(Entry::new(name, &Tensor::zeros(0, DType::F32, &Device::Cpu)?));
            }
        }
        Ok(())
    }

    fn entries(self) -> Result<Vec<Entry>> {
        let mut entries = self.whole;
        for (name, parts) in self.joined {
            let parts: Option<Vec<Tensor>> = parts.into_iter().collect();
            let parts = parts.ok_or_else(|| {
                Error::incompatible(format!(
                    "of the tensor {name} the model has some parts and not the others"
                ))
            })?;
            let mut shape = parts.first().map_or_else(Vec::new, |part| part.dims().to_vec());
            if let Some(rows) = shape.first_mut() {
                *rows *= parts.len();
            }
            entries.push(Entry { name, shape, parts });
        }
        Ok(entries)
    }
}

/// The one of a tensor's names that files have. An upsampler comes after the residual block and, where there is one, the transformer; the name for behind
/// both is the first.
fn chosen<'a>(alias: &'a Alias, ours: &str, all: &BTreeMap<String, Tensor>) -> &'a str {
    let block = ours.split("upsamplers.").next().unwrap_or_default();
    let transformer = format!("{block}attentions.");
    let has = alias.names.len() < 2 || all.keys().any(|name| name.starts_with(&transformer));
    &alias.names[usize::from(!has)]
}

/// The tensors of the file for a reader that looks at shapes: those that are joined have no numbers yet.
fn stand_ins(entries: &[Entry]) -> Result<HashMap<String, Tensor>> {
    let stand_in = |entry: &Entry| {
        let tensor = match &entry.parts[..] {
            [tensor] if tensor.is_contiguous() => tensor.reshape(entry.shape.as_slice())?,
            _ => Tensor::zeros((), DType::F32, &Device::Cpu)?.broadcast_as(entry.shape.as_slice())?,
        };
        Ok((entry.name.clone(), tensor))
    };
    entries.iter().map(stand_in).collect()
}

/// What the model has of its own, beside what the file `told` of it, and that in words.
fn settings_of(export: &Export<'_>, told: &SingleFile) -> Result<(Settings, Vec<String>)> {
    let mut own = Settings::default();
    let mut words = Vec::new();
    let side = export.family.resolution_for(export.schedule.prediction());

    let read: UNet2DConditionConfig = parsed(told.unet()?.config)?;
    let config = export.unet.config();
    if differ("unet", &configs::meaning_of_unet(config)?, &configs::meaning_of_unet(&read)?, &mut words) {
        let config = configs::unet(config, side / export.vae.factor())?;
        own.configs.insert("unet".to_owned(), config);
    }

    let read: AutoencoderKLConfig = parsed(told.vae()?.config)?;
    let config = configs::vae(export.vae.config(), export.scaling_factor, side)?;
    let ours: AutoencoderKLConfig = parsed(config.clone())?;
    if differ("vae", &configs::object(&ours)?, &configs::object(&read)?, &mut words) {
        own.configs.insert("vae".to_owned(), config);
    }

    for (row, tower) in export.family.text.iter().zip(export.text.towers()) {
        let folder = &row.folder;
        let read: ClipTextConfig = parsed(told.text(row)?.config)?;
        let layers = Layers::of_file(tower, row)?;
        let ours = ClipTextConfig { num_hidden_layers: layers.count, ..tower.encoder.config().clone() };
        let projects = tower.encoder.state_dict().contains_key(PROJECTION);
        let meaning = |config| configs::meaning_of_text(config, projects);
        if differ(folder.name, &meaning(&ours)?, &meaning(&read)?, &mut words) {
            own.configs.insert(folder.name.to_owned(), Value::Object(configs::object(&ours)?));
        }
        if !tower.tokenizer.is_like(&row.tokenizer()?)? {
            words.push(format!("the {} is the model's own", folder.tokenizer));
            own.tokenizers.insert(folder.tokenizer.to_owned(), tower.tokenizer.files()?);
        }
    }

    let (ours, read) = (export.schedule_config()?, told.schedule()?);
    if differ("scheduler", &configs::object(ours)?, &configs::object(&read)?, &mut words) {
        own.scheduler = Some(ours.clone());
    }
    Ok((own, words))
}

/// Whether a part is another than what was read of it; `words` get what is.
fn differ(part: &str, ours: &Map<String, Value>, read: &Map<String, Value>, words: &mut Vec<String>) -> bool {
    let before = words.len();
    for (name, read) in read {
        let ours = ours.get(name).unwrap_or(&Value::Null);
        if ours != read {
            words.push(format!("{part}.{name} is {ours} and not {read}"));
        }
    }
    words.len() > before
}

fn parsed<T: DeserializeOwned>(config: Value) -> Result<T> {
    serde_json::from_value(config)
        .map_err(|error| Error::incompatible(format!("the configuration that the file tells: {error}")))
}
