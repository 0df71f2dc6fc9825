//! A run of textual inversion inside a host: progress, previews, saving, going on where a run stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vocable_engine::CancelToken;
use vocable_engine::concept::Concept;
use vocable_engine::embedding::{Embedding, file_stem_for};
use vocable_engine::training::{
    LatentCache, RunFolder, Snapshot, StepReport, Trainer, TrainingModels, TrainingSettings,
};
use vocable_host_sdk::abi::{ErrorKind, HostContext, Level, NodeError, TensorBuf, folder};

use crate::convert::node_error;
use crate::handles::{Clip, Model, Vae};
use crate::previews::{PreviewSettings, Previews};
use crate::run::with_cancel_for_nodes;

/// What a run is made of.
pub(crate) struct Run {
    pub(crate) model: Arc<Model>,
    pub(crate) clip: Arc<Clip>,
    pub(crate) vae: Arc<Vae>,
    pub(crate) pictures: Concept,
    pub(crate) settings: TrainingSettings,
    pub(crate) preset: String,
    pub(crate) previews: PreviewSettings,
    /// Steps between two savings; 0: only at the end.
    pub(crate) save_interval: usize,
}

/// What a run gives.
pub(crate) struct Learned {
    pub(crate) embedding: Embedding,
    pub(crate) losses: Vec<f32>,
    pub(crate) previews: Option<TensorBuf>,
    pub(crate) folder: PathBuf,
}

/// The status line and the log need not be newer than this.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// Lines that a run writes into the log.
const LOG_LINES: usize = 20;

/// Runs to the end, or goes on where the same run stopped; a run that was finished before is handed back. On cancel and on failure what was
/// learned is kept first.
pub(crate) fn learn(run: &Run, host: &HostContext<'_>) -> Result<Learned, NodeError> {
    let runs = host.folder(folder::OUTPUT)?.join("vocable_runs");
    let layers: Vec<_> = run.clip.text.towers().iter().map(|tower| tower.layer).collect();
    let layers = format!("{layers:?}");
    let parts = [
        run.model.fingerprint.as_str(),
        &run.clip.fingerprint,
        &layers,
        &run.vae.fingerprint,
        &run.pictures.fingerprint,
    ];
    let place = RunFolder::for_steps(&runs, &run.settings.run_key(&parts), run.settings.steps);
    with_cancel_for_nodes(host, |cancel| {
        let mut session = Session::new(run, host, &place);
        let saved = place.snapshot().map_err(node_error)?;
        if let Some(finished) = saved.filter(|saved| saved.step_count() >= run.settings.steps) {
            return session.hand_back(&finished, cancel);
        }
        let mut trainer = prepare(run, host, cancel)?;
        let resumed = place.resume(&mut trainer).map_err(node_error)?;
        session.announce(&trainer, resumed);
        let finished = session.go(&mut trainer, cancel);
        if let Err(error) = finished {
            return Err(session.keep_after(&trainer, error));
        }
        session.learned(&trainer.snapshot().map_err(node_error)?)
    })
}

/// Encodes the pictures and makes the trainer.
fn prepare(run: &Run, host: &HostContext<'_>, cancel: &CancelToken) -> Result<Trainer, NodeError> {
    host.status("encoding the pictures");
    let mirror = run.settings.flip && !run.pictures.has_twins();
    let progress = |done: usize, total: usize| host.progress(done as u64, total as u64, None);
    let latents = LatentCache::new(&run.vae.autoencoder, &run.pictures, mirror, cancel, progress)
        .map_err(node_error)?;
    // The denoiser's own scale, as for sampling: a VAE from elsewhere may say another.
    let latents = LatentCache { scaling_factor: run.model.denoiser.scaling_factor, ..latents };
    let models = TrainingModels {
        unet: run.model.denoiser.unet.clone(),
        text: run.clip.text.clone(),
        schedule: run.model.denoiser.schedule.clone(),
    };
    let trainer = Trainer::new(models, latents, run.settings.clone()).map_err(node_error)?;
    for remark in trainer.remarks() {
        host.log(Level::Warn, remark);
    }
    Ok(trainer)
}

struct Session<'a> {
    run: &'a Run,
    host: &'a HostContext<'a>,
    place: &'a RunFolder,
    previews: Previews<'a>,
    start: Instant,
    steps_here: usize,
    shown: Option<Instant>,
    smooth_loss: Option<f64>,
}

impl<'a> Session<'a> {
    fn new(run: &'a Run, host: &'a HostContext<'a>, place: &'a RunFolder) -> Self {
        let previews = Previews::new(run, host, place.path());
        let start = Instant::now();
        Self { run, host, place, previews, start, steps_here: 0, shown: None, smooth_loss: None }
    }

    /// The values that the run has, and where it stands.
    fn announce(&self, trainer: &Trainer, resumed: bool) {
        let settings = &self.run.settings;
        let norms = trainer.vocabulary_scales().iter().map(|scale| format!("{:.4}", scale.mean_norm));
        let norms = norms.collect::<Vec<_>>().join(" and ");
        let vectors = if settings.num_vectors == 1 {
            "1 vector".to_string()
        } else {
            format!("{} vectors", settings.num_vectors)
        };
        self.host.log(
            Level::Info,
            &format!(
                "learning {} ({vectors} from `{}`): preset {}, {} steps of {} x {}, rate {:.2e} ({:?}), {:?}, norm control {:?}, \
                 mean norm of the vocabulary {norms}",
                settings.placeholder,
                settings.init_text,
                self.run.preset,
                settings.steps,
                settings.batch_size,
                settings.gradient_accumulation,
                settings.learning_rate,
                settings.learning_rate_schedule,
                settings.optimiser,
                settings.norm_control,
            ),
        );
        if resumed {
            self.tell_of_folder("goes on", trainer.step_count());
        }
    }

    fn tell_of_folder(&self, what: &str, step: usize) {
        let total = self.run.settings.steps;
        let place = self.place.path().display();
        self.host.log(Level::Info, &format!("the run {what} at step {step} of {total}: {place}"));
    }

    /// A run that was finished before: nothing is encoded or trained. It may be asked for other previews than it was trained with.
    fn hand_back(&self, finished: &Snapshot, cancel: &CancelToken) -> Result<Learned, NodeError> {
        let steps = finished.step_count();
        self.tell_of_folder("was finished before", steps);
        if self.previews.are_wanted() && !self.previews.exist(steps) {
            let painted = self.previews.make(self.embedding(finished)?, steps, cancel);
            self.tolerate("painted", painted)?;
        }
        self.learned(finished)
    }

    fn learned(&self, last: &Snapshot) -> Result<Learned, NodeError> {
        Ok(Learned {
            embedding: self.embedding(last)?,
            losses: last.losses.clone(),
            previews: self.previews.all()?,
            folder: self.place.path().to_path_buf(),
        })
    }

    fn go(&mut self, trainer: &mut Trainer, cancel: &CancelToken) -> Result<(), NodeError> {
        if trainer.step_count() == 0 {
            self.preview(trainer, cancel)?;
        }
        self.start = Instant::now();
        while !trainer.is_finished() {
            let before = trainer.step_count();
            let report = trainer.step(cancel).map_err(node_error)?;
            self.steps_here += 1;
            self.tell(&report);
            // A step that was taken back is made again, what was due before it is not.
            if trainer.step_count() == before {
                continue;
            }
            let ends = trainer.is_finished();
            if ends {
                self.save(trainer)?;
            } else if is_due(report.step, self.run.save_interval) {
                let saved = self.save(trainer).map(drop);
                self.tolerate("saved", saved)?;
            }
            if ends || is_due(report.step, self.run.previews.interval) {
                self.preview(trainer, cancel)?;
            }
        }
        Ok(())
    }

    /// Pictures and savings on the way are no reason to lose what is being learned, unless the user asked for what cannot be.
    fn tolerate(&self, what: &str, result: Result<(), NodeError>) -> Result<(), NodeError> {
        let asked =
            [ErrorKind::Cancelled, ErrorKind::InvalidInput, ErrorKind::NotFound, ErrorKind::Incompatible];
        match result {
            Err(error) if !asked.contains(&error.kind) => {
                self.host.log(Level::Warn, &format!("this step could not be {what}: {error}"));
                Ok(())
            }
            result => result,
        }
    }

    /// Progress, status line and, now and then, a line in the log.
    fn tell(&mut self, report: &StepReport) {
        let total = self.run.settings.steps;
        if let Some(remark) = &report.remark {
            self.host.log(Level::Warn, remark);
        }
        let before = self.smooth_loss.unwrap_or(report.loss);
        let smooth = if report.loss.is_finite() { 0.95 * before + 0.05 * report.loss } else { before };
        self.smooth_loss = Some(smooth);
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= STATUS_INTERVAL);
        let logged =
            report.step == 1 || report.step == total || is_due(report.step, total.div_ceil(LOG_LINES));
        self.host.progress(report.step as u64, total as u64, None);
        if !due && !logged {
            return;
        }
        let speed = self.steps_here as f64 / self.start.elapsed().as_secs_f64().max(1e-6);
        let left = (total - report.step.min(total)) as f64 / speed.max(1e-9);
        let line = format!(
            "step {} of {total}, loss {smooth:.4}, norm {:.3}, angle {:.1}°, {speed:.1} steps/s, {} left",
            report.step,
            report.norm,
            report.angle,
            span(left)
        );
        if due {
            self.host.status(&line);
            self.shown = Some(Instant::now());
        }
        if logged {
            self.host.log(Level::Info, &line);
        }
    }

    fn preview(&mut self, trainer: &Trainer, cancel: &CancelToken) -> Result<(), NodeError> {
        if self.previews.are_wanted() {
            let before = Instant::now();
            let word = self.embedding(&trainer.snapshot().map_err(node_error)?)?;
            let painted = self.previews.make(word, trainer.step_count(), cancel);
            self.tolerate("painted", painted)?;
            // Pictures are not part of the speed.
            self.start += before.elapsed();
        }
        Ok(())
    }

    /// The word after some steps.
    fn embedding(&self, learned: &Snapshot) -> Result<Embedding, NodeError> {
        let vectors = crate::convert::to_cpu(&learned.vectors).map_err(node_error)?;
        let settings = &self.run.settings;
        let metadata = BTreeMap::from([
            ("trained_with".to_string(), format!("vocable {}", env!("CARGO_PKG_VERSION"))),
            ("base_model".to_string(), self.run.model.name.clone()),
            ("base_model_fingerprint".to_string(), self.run.model.fingerprint.clone()),
            ("init_text".to_string(), settings.init_text.clone()),
            ("preset".to_string(), self.run.preset.clone()),
            ("steps".to_string(), learned.step_count().to_string()),
            ("learning_rate".to_string(), settings.learning_rate.to_string()),
            ("batch_size".to_string(), (settings.batch_size * settings.gradient_accumulation).to_string()),
            ("seed".to_string(), settings.seed.to_string()),
            ("pictures".to_string(), self.run.pictures.items.len().to_string()),
        ]);
        let vectors = self.run.clip.text.split(&vectors).map_err(node_error)?;
        Embedding::new(&settings.placeholder, vectors, metadata).map_err(node_error)
    }

    /// Writes the run's state, and the word as a file of its own.
    fn save(&self, trainer: &Trainer) -> Result<PathBuf, NodeError> {
        self.place.save(trainer).map_err(node_error)?;
        let stem = file_stem_for(&self.run.settings.placeholder);
        let path = self.place.path().join(format!("{stem}-{:06}.safetensors", trainer.step_count()));
        self.embedding(&trainer.snapshot().map_err(node_error)?)?.save(&path).map_err(node_error)?;
        Ok(path)
    }

    /// Keeps what was learned, and says in the error where.
    fn keep_after(&self, trainer: &Trainer, error: NodeError) -> NodeError {
        if trainer.step_count() == 0 {
            return error;
        }
        match self.save(trainer) {
            Ok(path) => {
                let kept = format!(
                    "the vectors after {} steps are kept in {}",
                    trainer.step_count(),
                    path.display()
                );
                self.host.log(Level::Info, &kept);
                let help = format!("{} {kept}; the same graph goes on from there.", error.help);
                error.help(help.trim())
            }
            Err(second) => {
                self.host.log(Level::Error, &format!("what was learned could not be kept: {second}"));
                error
            }
        }
    }
}

fn is_due(step: usize, interval: usize) -> bool {
    interval > 0 && step.is_multiple_of(interval)
}

/// Seconds as people say them.
fn span(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!([3.4, 61.0, 7260.0].map(span), ["3 s", "1 min 01 s", "2 h 01 min"]);
        assert!(is_due(100, 50) && !is_due(99, 50) && !is_due(7, 0));
    }
}
