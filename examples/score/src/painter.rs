//! Pictures from prompts in which a word may stand for learned vectors.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use vocable_engine::CancelToken;
use vocable_engine::checkpoint::{Checkpoint, Precision};
use vocable_engine::models::AutoencoderKL;
use vocable_engine::ops::Tape;
use vocable_engine::sampling::{Denoiser, Guidance, Sampling};
use vocable_engine::training::{PromptIds, TrainingModels};

use crate::judge::Result;

/// A pipeline, ready to paint.
pub(crate) struct Painter {
    pub(crate) models: TrainingModels,
    pub(crate) vae: Arc<AutoencoderKL>,
    denoiser: Denoiser,
    pub(crate) cfg: f64,
    pub(crate) steps: usize,
}

impl Painter {
    pub(crate) fn open(model: &Path, cfg: f64, steps: usize) -> Result<Self> {
        let checkpoint = Checkpoint::open(model)?;
        let (cancel, device) = (CancelToken::new(), Device::Cpu);
        let models = TrainingModels::read(&checkpoint, &device, Precision::F32, &cancel)?;
        let vae = checkpoint.vae(&device, Precision::F32, &cancel)?;
        let denoiser = Denoiser {
            unet: models.unet.clone(),
            schedule: models.schedule.clone(),
            scaling_factor: vae.config().scaling_factor,
        };
        Ok(Self { models, vae, denoiser, cfg, steps })
    }

    /// The pictures' side in pixels: what the UNet was made for.
    pub(crate) fn side(&self) -> usize {
        12 * self.vae.factor()
    }

    /// `prompt`, in which `word` stands for `vectors [n, d]`, encoded to `[1, 77, d]`.
    fn encode(&self, prompt: &str, word: &str, vectors: &Tensor) -> Result<Tensor> {
        let text = &self.models.text;
        let ids = if prompt.contains(word) {
            PromptIds::new(text, word, vectors.dim(0)?).encode(prompt)?
        } else {
            // No placeholder: the same row, without vectors.
            let tokenizer = &text.towers()[0].tokenizer;
            let mut ids = vec![tokenizer.bos()];
            ids.extend(tokenizer.encode_words(prompt)?);
            ids.truncate(tokenizer.max_length() - 1);
            ids.push(tokenizer.eos());
            ids.resize(tokenizer.max_length(), tokenizer.pad());
            vec![ids]
        };
        let encoded = text.forward(&Tape::default(), &ids, 1, &vectors.clone().into(), false)?;
        Ok(encoded.hidden.into_value())
    }

    /// One picture for each prompt, `[B, 3, side, side]` in −1..1.
    pub(crate) fn paint(
        &self,
        prompts: &[String],
        word: &str,
        vectors: &Tensor,
        seed: u64,
    ) -> Result<Tensor> {
        let cancel = CancelToken::new();
        let rows =
            prompts.iter().map(|prompt| self.encode(prompt, word, vectors)).collect::<Result<Vec<_>>>()?;
        let side = self.side() / self.vae.factor();
        let how = Sampling {
            seed,
            steps: self.steps,
            cfg: self.cfg,
            sampler: "dpmpp_2m".into(),
            scheduler: "karras".into(),
            denoise: 1.0,
        };
        let guidance = Guidance {
            positive: vec![Tensor::cat(&rows, 0)?.into()],
            negative: vec![self.encode("", word, vectors)?.into()],
        };
        let blank = Tensor::zeros((prompts.len(), 4, side, side), DType::F32, &Device::Cpu)?;
        let latents = self.denoiser.sample(&how, &guidance, &blank, &cancel, &mut |_| Ok(()))?;
        Ok(self.vae.decode(&latents, &cancel)?.clamp(-1f32, 1f32)?)
    }
}
