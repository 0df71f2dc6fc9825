//! Learn a word and paint with it, with the engine alone: no host, no graph, no plugin.
//!
//! ```sh
//! cargo run --release -p engine-only
//! ```

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use clap::Parser;
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::concept::{Concept, ConceptOptions, OBJECT_TEMPLATES};
use vocable_engine::ops::{Tape, Traced};
use vocable_engine::sampling::{Denoiser, Guidance, Prompt, Sampling};
use vocable_engine::training::{
    Choices, LatentCache, Preset, PromptIds, Trainer, TrainingModels, vocabulary_rms, vocabulary_scales,
};

#[derive(Parser)]
struct Arguments {
    /// A diffusers pipeline folder.
    #[arg(long, default_value = "examples/models/creatures")]
    model: PathBuf,
    /// A folder of three to five pictures.
    #[arg(long, default_value = "examples/concepts/quandle")]
    pictures: PathBuf,
    /// Steps; the preset decides if none are given.
    #[arg(long)]
    steps: Option<usize>,
    /// Where the picture goes.
    #[arg(long, default_value = "output")]
    output: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let (word, device, cancel) = ("<quandle>", Device::Cpu, CancelToken::new());

    // 1. The frozen models.
    let checkpoint = Checkpoint::open(&arguments.model)?;
    let vae = checkpoint.vae(&device, Precision::F32, &cancel)?;
    let models = TrainingModels::read(&checkpoint, &device, Precision::F32, &cancel)?;

    // 2. The pictures, encoded once.
    let options = ConceptOptions { resolution: 96, multiple: 8, ..ConceptOptions::default() };
    let concept = Concept::load_folder(&arguments.pictures, &options, &cancel)?;
    let latents = LatentCache::new(&vae, &concept, false, &cancel, |_, _| {})?;

    // 3. The training: every step is a call.
    let rms = vocabulary_rms(&vocabulary_scales(&models.text)?);
    let choices = Choices { steps: arguments.steps, ..Choices::default() };
    let templates = OBJECT_TEMPLATES.iter().map(|t| (*t).to_owned()).collect();
    let settings = Preset::Recommended.settings(&choices, word, "creature", 1, templates, 0, rms);
    let mut trainer = Trainer::new(models.clone(), latents, settings)?;
    while !trainer.is_finished() {
        let report = trainer.step(&cancel)?;
        if report.step % 25 == 0 || trainer.is_finished() {
            println!(
                "step {:4}  loss {:.4}  norm {:.2}  angle {:.0}°",
                report.step, report.loss, report.norm, report.angle
            );
        }
    }

    // 4. A picture of the word.
    let encode = |prompt: &str, vectors: &Tensor| -> Result<Prompt, Box<dyn std::error::Error>> {
        let ids = PromptIds::new(&models.text, word, vectors.dim(0)?).encode(prompt)?;
        let text = models.text.forward(&Tape::default(), &ids, 1, &vectors.clone().into(), true)?;
        let pooled = text.pooled.map(Traced::into_value);
        Ok(Prompt { hidden: text.hidden.into_value(), pooled, time_ids: None })
    };
    let vectors = trainer.vectors()?;
    let side = 96 / vae.factor();
    let how = Sampling {
        seed: 7,
        steps: 20,
        cfg: 3.0,
        sampler: "dpmpp_2m".into(),
        scheduler: "karras".into(),
        denoise: 1.0,
    };
    let guidance = Guidance {
        positive: vec![encode("a photo of a <quandle> on a yellow background", &vectors)?],
        // What the word meant before it was learned: guidance away from it.
        negative: vec![encode("<quandle>", &trainer.initial_vectors()?)?],
    };
    let blank = Tensor::zeros((1, 4, side, side), DType::F32, &device)?;
    let scaling_factor = vae.config().scaling_factor;
    let denoiser = Denoiser { unet: models.unet.clone(), schedule: models.schedule.clone(), scaling_factor };
    let latents = denoiser.sample(&how, &guidance, &blank, &cancel, &mut |_| Ok(()))?;
    let pixels = ((vae.decode(&latents, &cancel)?.clamp(-1f32, 1f32)? + 1.0)? * 127.5)?;
    let bytes: Vec<u8> = pixels
        .get(0)?
        .permute((1, 2, 0))?
        .flatten_all()?
        .to_vec1::<f32>()?
        .iter()
        .map(|x| x.round() as u8)
        .collect();
    std::fs::create_dir_all(&arguments.output)?;
    let file = arguments.output.join("engine_only.png");
    image::save_buffer(&file, &bytes, 96, 96, image::ColorType::Rgb8)?;
    println!("{}", file.display());
    Ok(())
}
