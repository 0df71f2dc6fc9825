//! The trainer on the tiny random model: determinism, resume, cancel, and what is refused.

use std::path::Path;

use candle_core::Device;
use image::{Rgb, RgbImage};
use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::concept::{Concept, ConceptOptions};
use vocable_engine::training::{
    Choices, LatentCache, LearningRateSchedule, NormControl, Preset, RunFolder, Trainer, TrainingModels,
    TrainingSettings, initial_vectors,
};
use vocable_engine::{CancelToken, ErrorKind};

use crate::support::tiny;

fn write_pictures(folder: &Path, count: u32, width: u32, height: u32) {
    for i in 0..count {
        let picture =
            RgbImage::from_fn(width, height, |x, y| Rgb([(x * 4) as u8, (y * 4) as u8, (i * 90) as u8]));
        picture.save(folder.join(format!("{i}.png"))).unwrap();
    }
}

struct Ready {
    models: TrainingModels,
    latents: LatentCache,
}

fn ready() -> Ready {
    let checkpoint = Checkpoint::open(&tiny()).unwrap();
    let (cancel, device) = (CancelToken::new(), Device::Cpu);
    let models = TrainingModels::read(&checkpoint, &device, Precision::F32, &cancel).unwrap();
    let pictures = tempfile::tempdir().unwrap();
    write_pictures(pictures.path(), 3, 64, 64);
    let options = ConceptOptions { resolution: 64, ..ConceptOptions::default() };
    let concept = Concept::load_folder(pictures.path(), &options, &cancel).unwrap();
    let vae = checkpoint.vae(&device, Precision::F32, &cancel).unwrap();
    let latents = LatentCache::new(&vae, &concept, true, &cancel, |_, _| {}).unwrap();
    assert_eq!(latents.len(), 6, "three pictures and their mirrored twins");
    Ready { models, latents }
}

fn settings(steps: usize, seed: u64) -> TrainingSettings {
    let choices = Choices { steps: Some(steps), batch_size: Some(2), ..Choices::default() };
    let templates = vec!["a photo of a {}".into(), "the {}".into()];
    Preset::Recommended.settings(&choices, "<x>", "cat", 2, templates, seed, 0.02)
}

impl Ready {
    fn trainer(&self, settings: TrainingSettings) -> vocable_engine::Result<Trainer> {
        Trainer::new(self.models.clone(), self.latents.clone(), settings)
    }

    fn refused(&self, change: impl FnOnce(&mut TrainingSettings)) -> String {
        let mut settings = settings(2, 0);
        change(&mut settings);
        let error = self.trainer(settings).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert!(!error.help.is_empty(), "{error}");
        error.message
    }
}

fn run(trainer: &mut Trainer, steps: usize) {
    for _ in 0..steps {
        trainer.step(&CancelToken::new()).unwrap();
    }
}

fn bits(trainer: &Trainer) -> Vec<u32> {
    let values: Vec<f32> = trainer.vectors().unwrap().flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn twenty_steps_equal_ten_and_resume_and_ten() {
    let ready = ready();
    let mut straight = ready.trainer(settings(20, 1)).unwrap();
    run(&mut straight, 20);
    assert!(straight.is_finished());

    let runs = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(runs.path(), "run");
    let mut first = ready.trainer(settings(20, 1)).unwrap();
    assert!(!folder.resume(&mut first).unwrap(), "there is nothing to resume yet");
    run(&mut first, 10);
    folder.save(&first).unwrap();
    drop(first);
    let mut second = ready.trainer(settings(20, 1)).unwrap();
    assert!(folder.resume(&mut second).unwrap());
    assert_eq!(second.step_count(), 10);
    run(&mut second, 10);
    assert_eq!(bits(&second), bits(&straight));
    assert_eq!(second.losses(), straight.losses());

    let mut other = ready.trainer(settings(20, 2)).unwrap();
    run(&mut other, 20);
    assert_ne!(bits(&other), bits(&straight), "another seed draws otherwise");
}

#[test]
fn a_damaged_run_folder_is_an_error_that_names_it() {
    let ready = ready();
    let runs = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(runs.path(), "run");
    let mut trainer = ready.trainer(settings(4, 1)).unwrap();
    folder.save(&trainer).unwrap();
    let file = folder.path().join("state.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let error = folder.resume(&mut trainer).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Incompatible);
    assert!(error.message.contains("state.safetensors"), "{error}");
}

#[test]
fn a_cancelled_step_leaves_everything_as_it_was() {
    let ready = ready();
    let mut trainer = ready.trainer(settings(6, 1)).unwrap();
    run(&mut trainer, 2);
    let before = bits(&trainer);
    let cancel = CancelToken::new();
    cancel.cancel();
    assert_eq!(trainer.step(&cancel).unwrap_err().kind, ErrorKind::Cancelled);
    assert_eq!((bits(&trainer), trainer.step_count()), (before, 2));
    run(&mut trainer, 4);
    let mut undisturbed = ready.trainer(settings(6, 1)).unwrap();
    run(&mut undisturbed, 6);
    assert_eq!(bits(&trainer), bits(&undisturbed));
}

#[test]
fn a_step_that_is_not_finite_is_taken_back() {
    let ready = ready();
    let mut trainer = ready.trainer(settings(20, 1)).unwrap();
    run(&mut trainer, 1);
    let before = bits(&trainer);
    let gradient = vec![f32::NAN; before.len()];
    let report = trainer.apply(0.5, &gradient).unwrap();
    assert!(report.remark.unwrap().contains("halved"));
    assert_eq!((bits(&trainer), trainer.step_count()), (before.clone(), 1));
    let error = (0..20).find_map(|_| trainer.apply(f64::INFINITY, &gradient).err()).unwrap();
    assert_eq!(error.kind, ErrorKind::Diverged);
    assert_eq!(bits(&trainer), before);
}

#[test]
fn norm_control_holds_during_training() {
    let ready = ready();
    let mut settings = settings(5, 1);
    settings.norm_control = NormControl::Fixed { scale: 1.0 };
    settings.learning_rate_schedule = LearningRateSchedule::Constant;
    let mut trainer = ready.trainer(settings).unwrap();
    let report = trainer.step(&CancelToken::new()).unwrap();
    assert!((report.norm / trainer.vocabulary_scales()[0].mean_norm - 1.0).abs() < 1e-5);
    assert!(report.angle > 0.0);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let ready = ready();
    assert!(ready.refused(|s| s.num_vectors = 200).contains("200 vectors"));
    assert!(
        ready.refused(|s| s.num_vectors = 75).contains("do not fit"),
        "75 vectors leave no room for the template"
    );
    assert!(ready.refused(|s| s.placeholder = "cat".into()).contains("already knows"));
    assert!(ready.refused(|s| s.placeholder = "my cat".into()).contains("my cat"));
    assert!(ready.refused(|s| s.init_text = " ".into()).contains("init word"));
}

#[test]
fn an_init_text_of_several_tokens_is_shared_or_averaged() {
    let ready = ready();
    let tower = &ready.models.text.towers()[0];
    let row = |word: &str| -> Vec<f32> {
        let id = tower.tokenizer.encode_words(word).unwrap()[0];
        tower.encoder.token_embedding().get(id as usize).unwrap().to_vec1().unwrap()
    };
    let (cat, dog) = (row("cat"), row("dog"));
    let init = |text: &str, n: usize| {
        let (vectors, remark) = initial_vectors(&ready.models.text, text, n).unwrap();
        (vectors.to_vec2::<f32>().unwrap(), remark)
    };
    let (vectors, remark) = init("cat dog", 2);
    assert_eq!((vectors[0].clone(), vectors[1].clone(), remark), (cat.clone(), dog.clone(), None));
    let (vectors, _) = init("cat", 2);
    assert_eq!((&vectors[0], &vectors[1]), (&cat, &cat));
    let (vectors, remark) = init("cat dog", 1);
    let mean: Vec<f32> = cat.iter().zip(&dog).map(|(a, b)| 0.5 * a + 0.5 * b).collect();
    assert!(vectors[0].iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(remark.unwrap().contains("averaged"));
}
