//! A loaded model, written in either layout that people have: a diffusers pipeline's folder, or everything in one file in the names of CompVis'
//! latent-diffusion. Both are read back as the same model, here and elsewhere.
//!
//! | file | what it does |
//! |---|---|
//! | `folder.rs`, `configs.rs` | the folder, and the JSON in it |
//! | `single_file.rs` | the one file: names, what other loaders want, and what its shapes do not tell |
//! | `text_layers.rs` | a text encoder for a reader that leaves out other layers than the model does |
//! | `tensors.rs` | a safetensors file, written tensor after tensor |

mod configs;
mod folder;
mod single_file;
mod tensors;
mod text_layers;

use std::path::Path;

use super::{Family, Precision};
use crate::diffusion::{NoiseSchedule, ScheduleConfig};
use crate::models::{AutoencoderKL, TextEncoders, UNet2DConditionModel};
use crate::{CancelToken, Error, Result};

/// In which layout a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportLayout {
    /// One `.safetensors` in the names of latent-diffusion, as ComfyUI and A1111 have it.
    SingleFile,
    /// A pipeline's folder for diffusers' `from_pretrained`.
    DiffusersFolder,
}

impl ExportLayout {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 2] =
        [("single file", Self::SingleFile), ("diffusers folder", Self::DiffusersFolder)];
}

/// The parts of a loaded model, and how they are to be written.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// What kind of model it is.
    pub family: &'static Family,
    /// The denoiser.
    pub unet: &'a UNet2DConditionModel,
    /// The noise schedule that it was trained with.
    pub schedule: &'a NoiseSchedule,
    /// s: the denoiser sees latents times s.
    pub scaling_factor: f64,
    /// The text encoders with the layers that they stop at.
    pub text: &'a TextEncoders,
    /// The autoencoder.
    pub vae: &'a AutoencoderKL,
    /// What people call it; a single file says so.
    pub title: &'a str,
    /// The type of the numbers in the files; `None` is the type that each is kept in.
    pub precision: Option<Precision>,
}

impl Export<'_> {
    /// Write the model to `path`, a file or a folder that is not there yet, in a folder that is. `progress` is told how many of how many tensors are
    /// written; numbers are converted as they go out, so that no second model is ever in memory.
    ///
    /// What is given back is for the user: what other programs cannot read off the file.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for parts that are of different models, a text encoder that stops where the layout
    /// cannot say, or a number that the precision does not have (the message names the tensor); failures of the file system; cancelled. Then
    /// nothing is left of the file or folder.
    pub fn write(
        &self,
        layout: ExportLayout,
        path: &Path,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<String>> {
        self.check()?;
        if path.symlink_metadata().is_ok() {
            return Err(Error::invalid(format!("{}: is there already", path.display()))
                .help("choose another name, or take away what is there"));
        }
        let progress = Progress { cancel, done: 0, total: 0, tell: progress };
        match layout {
            ExportLayout::SingleFile => single_file::write(self, path, progress),
            ExportLayout::DiffusersFolder => folder::write(self, path, progress),
        }
    }

    /// Refuse parts that do not belong together: as one model they could not be used.
    fn check(&self) -> Result<()> {
        let (unet, text) = (self.unet.config(), self.text);
        let problem = if !self.family.has_text_encoders(text) {
            let keys = |keys: Vec<&str>| keys.join(" and ");
            format!(
                "{} has the text encoders {}, but this CLIP has {}",
                self.family.name,
                keys(self.family.text.iter().map(|row| row.key).collect()),
                keys(text.towers().iter().map(|tower| tower.key.as_str()).collect())
            )
        } else if unet.cross_attention_dim != text.width() {
            format!(
                "the UNet reads texts of width {}, but this CLIP writes {}",
                unet.cross_attention_dim,
                text.width()
            )
        } else if unet.out_channels != self.vae.config().latent_channels {
            format!(
                "the UNet makes latents of {} channels, but this VAE reads {}",
                unet.out_channels,
                self.vae.config().latent_channels
            )
        } else {
            return self.schedule_config().map(drop);
        };
        Err(Error::incompatible(format!("the parts are of different models: {problem}"))
            .help("export MODEL, CLIP and VAE of one checkpoint"))
    }

    /// The settings of the schedule, as a file says them.
    fn schedule_config(&self) -> Result<&ScheduleConfig> {
        self.schedule.config().ok_or_else(|| {
            Error::incompatible("the model has noise levels of its own, which no file can say")
                .help("export the model without the node that changed its schedule")
        })
    }

    /// Whether it paints into a picture that it is given.
    fn is_inpainting(&self) -> bool {
        // Beside the noisy latents, those of the picture and the mask.
        let unet = self.unet.config();
        unet.in_channels == 2 * unet.out_channels + 1
    }
}

/// How far the writing is, and whether it is still wanted.
struct Progress<'a> {
    cancel: &'a CancelToken,
    done: usize,
    total: usize,
    tell: &'a mut dyn FnMut(usize, usize),
}

impl Progress<'_> {
    /// One tensor more is written.
    fn step(&mut self) -> Result<()> {
        self.done += 1;
        (self.tell)(self.done, self.total);
        self.cancel.check()
    }
}
