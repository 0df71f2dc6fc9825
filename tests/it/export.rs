//! Models written in the other layout and read back: every family, the tiny pipeline, other layers, precisions, and what goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde_json::Value as Json;
use vocable_engine::checkpoint::{Checkpoint, Export, ExportLayout, Family, Precision};
use vocable_engine::diffusion::{NoiseSchedule, PredictionType, ScheduleConfig};
use vocable_engine::models::{AutoencoderKL, TextEncoders, UNet2DConditionModel};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::tokenizer::Tokenizer;
use vocable_engine::{CancelToken, Error, ErrorKind, Result};

use crate::families::{FAMILIES, description, tensors, tokenizer_ending_at, write};
use crate::support::{root, tiny};

const LAYOUTS: [ExportLayout; 2] = [ExportLayout::SingleFile, ExportLayout::DiffusersFolder];

/// A loaded model.
struct Model {
    family: &'static Family,
    unet: Arc<UNet2DConditionModel>,
    schedule: NoiseSchedule,
    text: TextEncoders,
    vae: Arc<AutoencoderKL>,
}

impl Model {
    /// All of a checkpoint, with its own tokenizers or the given one.
    fn load_with(path: &Path, precision: Precision, tokenizer: Option<Tokenizer>) -> Self {
        let checkpoint = Checkpoint::open(path).unwrap();
        let (device, cancel) = (&Device::Cpu, &CancelToken::new());
        let text = match tokenizer {
            None => checkpoint.text_encoders(device, precision, cancel).unwrap(),
            Some(tokenizer) => {
                let tokenizer = Arc::new(tokenizer);
                let tower =
                    |index| checkpoint.text_tower(index, tokenizer.clone(), device, precision, cancel).ok();
                TextEncoders::new((0..2).map_while(tower).collect()).unwrap()
            }
        };
        Self {
            family: checkpoint.family(),
            unet: checkpoint.unet(device, precision, cancel).unwrap(),
            schedule: checkpoint.schedule().unwrap(),
            text,
            vae: checkpoint.vae(device, precision, cancel).unwrap(),
        }
    }

    fn load(path: &Path) -> Self {
        Self::load_with(path, Precision::F32, None)
    }

    /// The tiny checkpoint of a family, whose table of tokens has room for few words.
    fn of_family(family: &str, folder: &Path) -> Self {
        let path = write(folder, family, &tensors(family));
        let tokenizer = if family == "ldm" { word_pieces() } else { tokenizer_ending_at(599) };
        Self::load_with(&path, Precision::F32, Some(tokenizer))
    }

    fn export(&self) -> Export<'_> {
        Export {
            family: self.family,
            unet: &self.unet,
            schedule: &self.schedule,
            scaling_factor: self.vae.config().scaling_factor,
            text: &self.text,
            vae: &self.vae,
            title: "a model",
            precision: None,
        }
    }

    fn write(&self, layout: ExportLayout, path: &Path) -> Vec<String> {
        self.export().write(layout, path, &CancelToken::new(), &mut |_, _| {}).unwrap()
    }

    /// All numbers that anything is computed with: of a text encoder the layers up to the one that is taken, and those behind it where the pooled
    /// state is asked for.
    fn numbers(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let mut all = BTreeMap::new();
        let mut add = |part: &str, name: &str, tensor: &Tensor| {
            let values = tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
            all.insert(format!("{part}.{name}"), (tensor.dims().to_vec(), values));
        };
        self.unet.state_dict().iter().for_each(|(name, tensor)| add("unet", name, tensor));
        self.vae.state_dict().iter().for_each(|(name, tensor)| add("vae", name, tensor));
        for tower in self.text.towers() {
            let used = tower.encoder.config().num_hidden_layers - tower.layer.skip;
            for (name, tensor) in tower.encoder.state_dict() {
                let name = name.strip_prefix("text_model.").unwrap_or(name);
                let layer = name.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next());
                let pooled = !tower.layer.norm;
                let behind = layer.is_some_and(|layer| layer.parse::<usize>().unwrap() >= used);
                if pooled || !(behind || name.starts_with("text_projection")) {
                    add(&tower.key, name, tensor);
                }
            }
        }
        all
    }

    #[track_caller]
    fn assert_like(&self, other: &Self) {
        assert_eq!(self.family.id, other.family.id);
        assert_eq!(self.schedule, other.schedule);
        let (ours, theirs) = (self.numbers(), other.numbers());
        let names = |numbers: &BTreeMap<String, _>| numbers.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&ours), names(&theirs));
        assert!(ours == theirs, "other numbers");
        for (ours, theirs) in self.text.towers().iter().zip(other.text.towers()) {
            assert!(ours.tokenizer.is_like(&theirs.tokenizer).unwrap(), "{}", ours.key);
            let used = |tower: &vocable_engine::models::TextTower| {
                (tower.key.clone(), tower.encoder.config().num_hidden_layers - tower.layer.skip)
            };
            assert_eq!(used(ours), used(theirs));
        }
    }
}

/// BERT's tokenizer with 600 words.
fn word_pieces() -> Tokenizer {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words: Vec<String> = special.into_iter().chain((5..600).map(|id| format!("w{id}"))).collect();
    let files = BTreeMap::from([("vocab.txt".to_owned(), words.join("\n"))]);
    Tokenizer::from_texts("word pieces", &files).unwrap()
}

/// All files of a folder by their names in it, or the one file.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut places = vec![path.to_owned()];
    while let Some(place) = places.pop() {
        if place.is_dir() {
            places.extend(std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            files.insert(place.strip_prefix(path).unwrap().to_owned(), std::fs::read(&place).unwrap());
        }
    }
    files
}

#[track_caller]
fn assert_same_files(a: &Path, b: &Path) {
    let (a, b) = (contents(a), contents(b));
    assert!(a.keys().eq(b.keys()), "{:?} and {:?}", a.keys(), b.keys());
    for (name, bytes) in &a {
        assert!(*bytes == b[name], "{} differs", name.display());
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn json(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_family_goes_round() {
    for family in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let model = Model::of_family(family, dir.path());
        assert!(model.write(ExportLayout::DiffusersFolder, &path("folder")).is_empty(), "a folder says all");
        let of_folder = Model::load(&path("folder"));
        of_folder.assert_like(&model);
        let index = json(&path("folder/model_index.json"));
        let class = index["_class_name"].as_str().unwrap();
        let wanted = match family {
            "sd1_inpainting" => "StableDiffusionInpaintPipeline",
            "sdxl" => "StableDiffusionXLPipeline",
            "ldm" => "LDMTextToImagePipeline",
            _ => "StableDiffusionPipeline",
        };
        assert_eq!(class, wanted);

        let notes = of_folder.write(ExportLayout::SingleFile, &path("file.safetensors"));
        assert_eq!(notes.len(), 1, "{family}: {notes:?}");
        assert!(notes[0].contains("cannot tell from it that the tokenizer is the model's own"), "{notes:?}");
        let of_file = Model::load(&path("file.safetensors"));
        of_file.assert_like(&model);
        for (a, b) in of_file.text.towers().iter().zip(model.text.towers()) {
            assert_eq!(a.layer, b.layer, "{family}");
        }
        of_file.write(ExportLayout::DiffusersFolder, &path("again"));
        assert_same_files(&path("folder"), &path("again"));

        // The names and shapes are the file's, but for what nothing uses.
        let found = candle_core::safetensors::load(path("file.safetensors"), &Device::Cpu).unwrap();
        let unused = |name: &str| {
            name.ends_with("logit_scale") || name.starts_with("cond_stage_model.transformer.to_logits")
        };
        let wanted: BTreeMap<String, Json> =
            serde_json::from_value(description(family)["shapes"].clone()).unwrap();
        let wanted = wanted.into_iter().filter(|(name, _)| !unused(name));
        let found: BTreeMap<String, Json> =
            found.into_iter().map(|(name, tensor)| (name, tensor.dims().into())).collect();
        assert!(wanted.eq(found), "{family}");

        // Nothing was lost on the way where all layers are used.
        if !family.starts_with("sd2") {
            model.write(ExportLayout::SingleFile, &path("straight.safetensors"));
            assert_same_files(&path("straight.safetensors"), &path("file.safetensors"));
        }
    }
}

#[test]
fn a_folder_whose_settings_shapes_do_not_tell_goes_round() {
    for model in [tiny(), root().join("examples/models/creatures")] {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let original = Model::load(&model);
        let notes = original.write(ExportLayout::SingleFile, &path("file.safetensors"));
        assert!(notes[0].contains("unet.attention_head_dim"), "{notes:?}");
        let of_file = Model::load(&path("file.safetensors"));
        of_file.assert_like(&original);
        assert_eq!(of_file.vae.config().scaling_factor, original.vae.config().scaling_factor);
        of_file.write(ExportLayout::DiffusersFolder, &path("folder"));
        original.write(ExportLayout::DiffusersFolder, &path("straight"));
        assert_same_files(&path("folder"), &path("straight"));
        // What the folder said of its networks it still says.
        for part in ["unet", "vae"] {
            let config = |folder: &Path| json(&folder.join(part).join("config.json"));
            let (before, after) = (config(&model), config(&path("folder")));
            for (name, value) in before.as_object().unwrap() {
                let kept = &after[name];
                let same = kept == value
                    || kept.as_f64().zip(value.as_f64()).is_some_and(|(a, b)| (a - b).abs() < 1e-15);
                assert!(same || name == "_diffusers_version", "{part} {name}: {value} became {kept}");
            }
        }
    }
}

#[test]
fn what_sdxl_predicts_is_marked() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::of_family("sdxl", dir.path());
    for (i, (prediction_type, rescale_betas_zero_snr)) in [
        (PredictionType::VPrediction, false),
        (PredictionType::VPrediction, true),
        (PredictionType::Epsilon, true),
    ]
    .into_iter()
    .enumerate()
    {
        let config = ScheduleConfig { prediction_type, rescale_betas_zero_snr, ..ScheduleConfig::default() };
        model.schedule = NoiseSchedule::from_config(&config).unwrap();
        let path = |ending: &str| dir.path().join(format!("{i}{ending}"));
        let notes = model.write(ExportLayout::SingleFile, &path(".safetensors"));
        let tensors = candle_core::safetensors::load(path(".safetensors"), &Device::Cpu).unwrap();
        let is_v = prediction_type == PredictionType::VPrediction;
        assert_eq!(tensors.contains_key("v_pred"), is_v);
        assert_eq!(tensors.contains_key("ztsnr"), is_v && rescale_betas_zero_snr);
        // Zero SNR without v is no model that files are known of.
        assert_eq!(notes[0].contains("scheduler.rescale_betas_zero_snr"), !is_v, "{notes:?}");
        model.write(ExportLayout::DiffusersFolder, &path(""));
        for written in [path(".safetensors"), path("")] {
            assert_eq!(Checkpoint::open(&written).unwrap().schedule().unwrap().config(), Some(&config));
        }
    }
}

/// The hidden states of a text.
fn hidden(text: &TextEncoders) -> Vec<f32> {
    let tower = &text.towers()[0];
    let none: Traced = Tensor::zeros((0, tower.width()), DType::F32, &Device::Cpu).unwrap().into();
    let ids: Vec<u32> = (0..77).map(|i| i * 7 % 600).collect();
    let encoded = tower.encoder.forward(&Tape::default(), &ids, 1, &none, tower.layer, None).unwrap();
    encoded.hidden.value().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn the_layer_that_is_taken_is_kept() {
    for (family, skip, in_folder, in_file) in [
        ("sd1", 1, 2, 3),
        ("sd1", 2, 1, 3),
        ("sd2", 0, 3, 4),
        ("sd2", 1, 2, 3),
        ("sd2", 2, 1, 3),
        ("ldm", 1, 1, 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::of_family(family, dir.path());
        model.text = model.text.clone().skipping(skip);
        let states = hidden(&model.text);
        for (layout, layers) in LAYOUTS.into_iter().zip([in_file, in_folder]) {
            let path = dir.path().join(format!("{layout:?}"));
            let notes = model.write(layout, &path);
            let usual = if family == "sd2" { 1 } else { 0 };
            assert_eq!(notes.iter().any(|note| note.contains("earlier")), skip > usual, "{notes:?}");
            let text = Model::load(&path).text;
            assert_eq!(text.towers()[0].encoder.config().num_hidden_layers, layers, "{family} {layout:?}");
            assert!(hidden(&text) == states, "{family} without {skip} layers, {layout:?}");
        }
    }
    // SDXL takes its pooled state from behind all layers.
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::of_family("sdxl", dir.path());
    model.text = model.text.clone().skipping(2);
    for error in refused(&model.export(), dir.path()) {
        assert!(
            error.message.contains("clip_l stops 2 layers") && error.help.contains("Set Last Layer"),
            "{error}"
        );
    }
}

/// The errors of both layouts, of which nothing may be left.
fn refused(export: &Export<'_>, home: &Path) -> [Error; 2] {
    let folder = home.join("refused");
    std::fs::create_dir_all(&folder).unwrap();
    LAYOUTS.map(|layout| {
        let result = export.write(layout, &folder.join("a"), &CancelToken::new(), &mut |_, _| {});
        assert!(is_empty(&folder));
        result.unwrap_err()
    })
}

#[test]
fn precisions() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors("sd1");
    let large = "model.diffusion_model.out.2.bias";
    let value = Tensor::new(&[1e5f32, 0.1, -0.1, 0.0], &Device::Cpu).unwrap();
    tensors.insert(large.to_owned(), value);
    let source = write(dir.path(), "large", &tensors);
    let load = |precision| Model::load_with(&source, precision, Some(tokenizer_ending_at(599)));
    let model = load(Precision::F32);

    // f16 ends at 65504.
    for error in refused(&Export { precision: Some(Precision::F16), ..model.export() }, dir.path()) {
        assert_eq!(error.kind, ErrorKind::Incompatible);
        let named = error.message.contains(large) || error.message.contains("tensor conv_out.bias");
        assert!(named && error.message.contains("1e5") && error.help.contains("bf16"), "{error}");
    }
    let types = |path: &Path| -> BTreeSet<String> {
        let file = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        file.values().map(|tensor| format!("{:?}", tensor.dtype())).collect()
    };
    for (chosen, name) in [(None, "F32"), (Some(Precision::Bf16), "BF16"), (Some(Precision::F32), "F32")] {
        let path = dir.path().join(format!("{chosen:?}"));
        let export = Export { precision: chosen, ..model.export() };
        export.write(ExportLayout::SingleFile, &path, &CancelToken::new(), &mut |_, _| {}).unwrap();
        assert_eq!(types(&path), BTreeSet::from([name.to_owned()]));
    }
    // As loaded: rounding twice is rounding once.
    let half = load(Precision::Bf16);
    half.write(ExportLayout::SingleFile, &dir.path().join("half"));
    assert_same_files(&dir.path().join("half"), &dir.path().join("Some(Bf16)"));
}

#[test]
fn places_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::load(&tiny());
    let write = |layout, path: &Path| -> Result<Vec<String>> {
        model.export().write(layout, path, &CancelToken::new(), &mut |_, _| {})
    };
    let taken = dir.path().join("taken");
    std::fs::write(&taken, b"mine").unwrap();
    for layout in LAYOUTS {
        let error = write(layout, &taken).unwrap_err();
        assert!(error.message.contains("already") && error.kind == ErrorKind::InvalidInput, "{error}");
        assert!(write(layout, &taken.join("a")).unwrap_err().message.contains("taken"));
        let error = write(layout, &dir.path().join("none/a")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
    assert_eq!(contents(&taken).into_values().collect::<Vec<_>>(), [b"mine"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn stopping_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = Model::load(&tiny());
    for layout in LAYOUTS {
        let cancel = CancelToken::new();
        let mut last = (0, 0);
        let mut progress = |done, total| {
            assert_eq!(done, last.0 + 1);
            last = (done, total);
            if done == total - 1 {
                cancel.cancel();
            }
        };
        let error = model.export().write(layout, &dir.path().join("a"), &cancel, &mut progress).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled);
        assert!(last.1 > 100 && last.0 == last.1 - 1, "{last:?}");
        assert!(is_empty(dir.path()));
    }
}

#[test]
fn parts_of_different_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [sd1, sd2, ldm] = ["sd1", "sd2", "ldm"].map(|family| Model::of_family(family, dir.path()));
    let tiny = Model::load(&tiny());
    for (export, said) in [
        (
            Export { text: &sd2.text, ..sd1.export() },
            "has the text encoders clip_l, but this CLIP has clip_h",
        ),
        (Export { unet: &ldm.unet, ..sd1.export() }, "of width 96, but this CLIP writes 64"),
        (Export { text: &tiny.text, ..sd1.export() }, "of width 64, but this CLIP writes 32"),
    ] {
        for error in refused(&export, dir.path()) {
            assert!(error.message.contains(said), "{error}");
        }
    }
}

#[test]
fn settings_that_are_not_understood_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    Model::load(&tiny()).write(ExportLayout::SingleFile, &path);
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("vocable.settings") && text.contains("modelspec.title"));
    let at = bytes.windows(7).position(|window| window == b"configs").unwrap();
    let mut newer = bytes;
    newer[at] = b'k';
    std::fs::write(&path, newer).unwrap();
    let error = Checkpoint::open(&path).unwrap_err();
    assert!(error.message.contains("konfigs") && error.message.contains("a.safetensors"), "{error}");
}
