//! Textual inversion (Gal et al. 2022): n vectors of the text encoder's token table are learned with the model's own denoising
//! loss; everything else stays as it is.
//!
//! One step: z = s·(mean + std·ε₀) from the cached posterior of a picture → z_t = √ᾱ_t·z + √(1−ᾱ_t)·ε → a prompt from a template or
//! caption, in which the placeholder stands for the vectors → text encoders → UNet → mean squared error against ε or v → the gradient of
//! the `[n, D]` matrix alone → optimiser → norm control. D is the width of all text encoders together: SDXL's two are learned in one run.

mod captions;
mod initial;
mod latents;
mod loss;
mod norm;
mod optimiser;
mod preset;
mod settings;
mod state;
mod trainer;

pub use captions::PromptIds;
pub use initial::{VocabularyScale, check_placeholder, initial_vectors, vocabulary_rms, vocabulary_scales};
pub use latents::{CachedLatents, LatentCache};
pub use loss::{MicroBatch, loss_and_gradient};
pub use norm::{NormControl, angle, norm};
pub use optimiser::{AdamW, AdamWConfig, LearningRateSchedule, Optimiser, OptimiserConfig, Sgd, SgdConfig};
pub use preset::Preset;
pub use settings::{Choices, TrainingSettings};
pub use state::{RunFolder, Snapshot};
pub use trainer::{StepReport, Trainer, TrainingModels};
