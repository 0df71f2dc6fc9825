//! Preview pictures of a run: made from the word as it is, shown by the host, kept in the run's folder.

use std::path::{Path, PathBuf};

use image::RgbImage;
use sha2::{Digest, Sha256};
use vocable_engine::embedding::Embedding;
use vocable_engine::prompt::contains_word;
use vocable_engine::sampling::{Guidance, Sampling};
use vocable_engine::{CancelToken, write_whole};
use vocable_host_sdk::abi::{HostContext, Level, NodeError, PreviewImage, TensorBuf};

use crate::convert::{bytes_from_pixels, node_error, zeros};
use crate::encoding::{Library, encode};
use crate::files::make_folder;
use crate::training::Run;

/// What previews show and when.
#[derive(Clone, Debug)]
pub(crate) struct PreviewSettings {
    /// The prompt, with `{}` for the word; empty: no previews.
    pub(crate) prompt: String,
    /// Steps between two previews; 0: only at the end.
    pub(crate) interval: usize,
    /// Pictures of each preview.
    pub(crate) count: usize,
    pub(crate) steps: usize,
    pub(crate) cfg: f64,
    /// Words that the prompt may use beside the one that is learned.
    pub(crate) others: Vec<Embedding>,
}

impl PreviewSettings {
    /// The prompt with the word in it.
    pub(crate) fn prompt_with(&self, word: &str) -> String {
        let template = if self.prompt.is_empty() { "a photo of {}" } else { &self.prompt };
        template.replace("[name]", "{}").replace("{}", word)
    }
}

/// The previews of a run.
pub(crate) struct Previews<'a> {
    run: &'a Run,
    host: &'a HostContext<'a>,
    folder: PathBuf,
}

impl<'a> Previews<'a> {
    /// Previews of other settings have another folder, so that none are mixed up when a run goes on with another prompt.
    pub(crate) fn new(run: &'a Run, host: &'a HostContext<'a>, place: &Path) -> Self {
        let PreviewSettings { prompt, interval: _, count, steps, cfg, others } = &run.previews;
        let others: Vec<&str> = others.iter().map(|word| word.name.as_str()).collect();
        let hash = Sha256::digest(format!("{prompt}\n{count} {steps} {cfg}\n{others:?}"));
        let key = vocable_engine::hex(&hash[..4]);
        Self { run, host, folder: place.join(format!("previews-{key}")) }
    }

    /// Whether those of a step are there.
    pub(crate) fn exist(&self, step: usize) -> bool {
        self.folder.join(file_name(step, 0)).is_file()
    }

    pub(crate) fn are_wanted(&self) -> bool {
        !self.run.previews.prompt.is_empty() && self.run.previews.count > 0
    }

    /// Makes the pictures of a step, always from the same noise.
    pub(crate) fn make(&self, word: Embedding, step: usize, cancel: &CancelToken) -> Result<(), NodeError> {
        self.host.status(&format!("painting the preview of step {step}"));
        let pictures = self.paint(word, cancel).map_err(node_error)?;
        make_folder(&self.folder)?;
        for (index, picture) in pictures.iter().enumerate() {
            let mut png = std::io::Cursor::new(Vec::new());
            picture
                .write_to(&mut png, image::ImageFormat::Png)
                .map_err(|error| NodeError::internal("a preview cannot be encoded").caused_by(&error))?;
            write_whole(&self.folder.join(file_name(step, index)), png.get_ref()).map_err(node_error)?;
        }
        let total = self.run.settings.steps;
        self.host.progress(step as u64, total as u64, side_by_side(&pictures)?.as_ref());
        Ok(())
    }

    fn paint(&self, word: Embedding, cancel: &CancelToken) -> vocable_engine::Result<Vec<RgbImage>> {
        let Run { model, clip, vae, settings, previews, .. } = self.run;
        let prompt = previews.prompt_with(&settings.placeholder);
        // Words that were learned for another model are handed on through this graph; only a prompt that asks for one is wrong.
        let needed = |other: &&Embedding| clip.fits(other).is_ok() || contains_word(&prompt, &other.name);
        let words = previews.others.iter().filter(needed).cloned().chain([word]).collect();
        let mut library = Library::new(clip, words, Vec::new())?;
        let mut encoded =
            |text: &str| -> vocable_engine::Result<_> { encode(clip, &library.spell(text)?, cancel) };
        let guidance = Guidance { positive: vec![encoded(&prompt)?], negative: vec![encoded("")?] };
        // The first picture's size.
        let (height, width) = self.run.pictures.items.first().map_or((512, 512), |item| item.size());
        let side = |pixels: usize| (pixels / vae.autoencoder.factor()).max(1);
        let channels = vae.autoencoder.config().latent_channels;
        let latent = zeros(&[previews.count, channels, side(height), side(width)])?;
        let request = Sampling {
            seed: settings.seed,
            steps: previews.steps,
            cfg: previews.cfg,
            sampler: "dpmpp_2m".to_string(),
            scheduler: "karras".to_string(),
            denoise: 1.0,
        };
        let latents = model.denoiser.sample(&request, &guidance, &latent, cancel, &mut |_| Ok(()))?;
        let pictures = (0..previews.count).map(|index| {
            let pixels = vae.autoencoder.decode(&latents.narrow(0, index, 1)?, cancel)?;
            let (width, height, bytes) = bytes_from_pixels(&pixels)?;
            RgbImage::from_raw(width, height, bytes)
                .ok_or_else(|| vocable_engine::Error::invalid("a preview without pixels"))
        });
        pictures.collect()
    }

    /// All previews of the run, in order of their steps, as one batch: those of the last one's size.
    pub(crate) fn all(&self) -> Result<Option<TensorBuf>, NodeError> {
        if !self.are_wanted() {
            return Ok(None);
        }
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "png"));
        files.sort();
        let files = spread(files, MOST_PICTURES);
        let mut pictures = Vec::new();
        for file in files {
            match image::open(&file) {
                Ok(picture) => pictures.push(picture.into_rgb8()),
                Err(error) => self.host.log(Level::Warn, &format!("{}: {error}", file.display())),
            }
        }
        let Some((width, height)) = pictures.last().map(RgbImage::dimensions) else { return Ok(None) };
        pictures.retain(|picture| picture.dimensions() == (width, height));
        let values = pictures
            .iter()
            .flat_map(|picture| picture.as_raw())
            .map(|byte| f32::from(*byte) / 255.0)
            .collect();
        let image = TensorBuf::from_vec_f32(&[pictures.len(), height as usize, width as usize, 3], values)?;
        Ok(Some(image))
    }
}

/// What the output holds at most: it stays in memory with the graph's results.
const MOST_PICTURES: usize = 64;

/// At most `most` of them, evenly spread, the first and the last included.
fn spread<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let last = all.len().saturating_sub(1);
    if all.len() <= most || most < 2 {
        return all.into_iter().take(most).collect();
    }
    let mut chosen = (0..most).map(|i| i * last / (most - 1)).peekable();
    all.into_iter().enumerate().filter_map(|(i, item)| chosen.next_if_eq(&i).map(|_| item)).collect()
}

fn file_name(step: usize, index: usize) -> String {
    format!("step-{step:06}-{:02}.png", index + 1)
}

/// The pictures in one row.
fn side_by_side(pictures: &[RgbImage]) -> Result<Option<PreviewImage>, NodeError> {
    let Some((width, height)) = pictures.first().map(RgbImage::dimensions) else { return Ok(None) };
    let mut row = RgbImage::new(width * pictures.len() as u32, height);
    for (index, picture) in pictures.iter().enumerate() {
        image::imageops::replace(&mut row, picture, i64::from(width) * index as i64, 0);
    }
    PreviewImage::new(row.width(), row.height(), row.into_raw()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_previews_are_thinned_out_evenly() {
        assert_eq!(spread((0..5).collect(), 8), [0, 1, 2, 3, 4]);
        let few = spread((0..1000).collect(), 64);
        assert_eq!((few.len(), few.first(), few.last()), (64, Some(&0), Some(&999)));
    }

    #[test]
    fn pictures_stand_in_a_row() {
        let pictures = [RgbImage::from_pixel(2, 1, image::Rgb([9; 3])), RgbImage::new(2, 1)];
        let row = side_by_side(&pictures).unwrap().unwrap();
        assert_eq!((row.width(), row.height()), (4, 1));
        assert_eq!(row.rgb(), [9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0]);
        assert!(side_by_side(&[]).unwrap().is_none());
    }
}
