//! The folder of a run: everything that is needed to go on as if nothing had happened.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::trainer::{State, Trainer};
use crate::diffusion::TorchRng;
use crate::files::write_whole;
use crate::{Error, Result};

const FILE: &str = "state.safetensors";

/// A run's folder. It holds one file, replaced as a whole: vectors, where they started, the optimiser's numbers, random state, queues, losses.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

/// What a run has learned so far.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The vectors `[n, D]`, in f32; [`TextEncoders::split`](crate::models::TextEncoders::split) tells whose columns are whose.
    pub vectors: Tensor,
    /// The loss of every step.
    pub losses: Vec<f32>,
}

impl Snapshot {
    /// Steps done.
    pub fn step_count(&self) -> usize {
        self.losses.len()
    }
}

impl RunFolder {
    /// The folder of the run `key` (see [`TrainingSettings::run_key`](super::TrainingSettings::run_key)) below `runs`.
    pub fn new(runs: &Path, key: &str) -> Self {
        Self { path: runs.join(key) }
    }

    /// The folder of the run `key` that ends after `steps`. With a constant rate a longer run goes on in the folder of a shorter one; a run
    /// that is shorter than what lies there gets a folder of its own, `key-steps`, so that the longer one is not lost.
    pub fn for_steps(runs: &Path, key: &str, steps: usize) -> Self {
        let shared = Self::new(runs, key);
        if shared.has_more_than(steps) { Self::new(runs, &format!("{key}-{steps}")) } else { shared }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the run has learned, if something was saved: no model is needed to look.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for a damaged file.
    pub fn snapshot(&self) -> Result<Option<Snapshot>> {
        let Some(file) = StateFile::read(&self.path)? else { return Ok(None) };
        let saved = file.open()?;
        let (vectors, shape) = saved.tensor("vectors")?;
        let &[n, width] = shape.as_slice() else {
            return Err(file.damaged(format!("vectors have the shape {shape:?}, wanted [n, D]")));
        };
        let vectors = Tensor::from_vec(vectors, (n, width), &Device::Cpu)?;
        Ok(Some(Snapshot { vectors, losses: saved.tensor("losses")?.0 }))
    }

    /// Write the run's state, beside the old one and then over it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a longer run lies: it is never written over.
    pub fn save(&self, trainer: &Trainer) -> Result<()> {
        let settings = trainer.settings();
        self.write(&trainer.state, settings.num_vectors, settings.steps)
    }

    /// Put the saved state, if there is one, into `trainer`, which must be of the same run. Returns whether there was one. A state that has
    /// gone further than the run should is left alone.
    pub fn resume(&self, trainer: &mut Trainer) -> Result<bool> {
        let steps = trainer.settings().steps;
        self.fill(&mut trainer.state, steps)
    }

    /// Whether a readable state with more steps than that lies here. One that cannot be read is told of by whoever goes on from it.
    fn has_more_than(&self, steps: usize) -> bool {
        matches!(self.snapshot(), Ok(Some(saved)) if saved.step_count() > steps)
    }

    /// Write `state` of `n` vectors, unless it would replace one of more than `most` steps.
    fn write(&self, state: &State, n: usize, most: usize) -> Result<()> {
        if self.has_more_than(most) {
            return Err(Error::invalid(format!(
                "{}: there is a state of a run of more than {most} steps, which would be lost",
                self.path.display()
            ))
            .help("give the shorter run a folder of its own"));
        }
        let matrix = vec![n, state.vectors.len() / n];
        let mut tensors = vec![("vectors", &state.vectors), ("initial", &state.initial)];
        tensors.extend(state.optimiser.matrices());
        let tensors = tensors.into_iter().map(|(name, values)| (name, values, matrix.clone()));
        let losses = ("losses", &state.losses, vec![state.losses.len()]);
        let bytes: Vec<(&str, Vec<u8>, Vec<usize>)> = tensors
            .chain([losses])
            .map(|(name, values, shape)| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect(), shape))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, bytes, shape)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
                view.map(|view| (*name, view)).map_err(|error| Error::invalid(format!("{name}: {error}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let mut metadata = HashMap::from([
            ("rng".to_owned(), state.draws.rng.state().iter().map(|byte| format!("{byte:02x}")).collect()),
            ("queues".to_owned(), serde_json::to_string(&state.draws.queues).unwrap_or_default()),
            // Bits, since a decimal may round.
            ("rate_scale".to_owned(), state.rate_scale.to_bits().to_string()),
        ]);
        metadata.extend(state.optimiser.count().map(|(name, count)| (name.to_owned(), count.to_string())));
        let file = safetensors::serialize(views, Some(metadata))
            .map_err(|error| Error::invalid(format!("the state of a run cannot be written: {error}")))?;
        std::fs::create_dir_all(&self.path).map_err(|error| Error::io(&self.path, &error))?;
        write_whole(&self.path.join(FILE), &file)
    }

    /// Put what was saved into `state`, which has the shapes that are wanted. Nothing is changed where it returns false or fails.
    fn fill(&self, state: &mut State, most: usize) -> Result<bool> {
        let Some(file) = StateFile::read(&self.path)? else { return Ok(false) };
        let saved = file.open()?;
        let losses = saved.tensor("losses")?.0;
        if losses.len() > most {
            return Ok(false);
        }
        let count = state.vectors.len();
        let matrix = |name: &str| match saved.tensor(name)?.0 {
            values if values.len() == count => Ok(values),
            values => Err(file.damaged(format!("{name} holds {} numbers, wanted {count}", values.len()))),
        };
        let mut next = state.clone();
        next.vectors = matrix("vectors")?;
        next.initial = matrix("initial")?;
        for (name, numbers) in next.optimiser.matrices_mut() {
            *numbers = matrix(name)?;
        }
        if let Some((name, count)) = next.optimiser.count_mut() {
            *count = saved.number(name)?;
        }
        next.draws.rng = saved.rng()?;
        next.draws.queues = saved.queues(state.draws.queues.len())?;
        next.losses = losses;
        next.rate_scale = f64::from_bits(saved.number("rate_scale")?);
        if !(next.rate_scale > 0.0 && next.rate_scale <= 1.0) {
            return Err(file.damaged(format!("the rate's factor is {}", next.rate_scale)));
        }
        *state = next;
        Ok(true)
    }
}

/// The file of a state as it lies in the folder.
struct StateFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl StateFile {
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(Self { path, bytes })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    fn damaged(&self, what: impl Display) -> Error {
        Error::incompatible(format!("{}: {what}", self.path.display()))
            .help("the run's folder is damaged: remove it to start the run again")
    }

    fn open(&self) -> Result<Saved<'_>> {
        let tensors = SafeTensors::deserialize(&self.bytes).map_err(|error| self.damaged(error))?;
        let (_, header) = SafeTensors::read_metadata(&self.bytes).map_err(|error| self.damaged(error))?;
        let texts = header.metadata().clone().unwrap_or_default();
        Ok(Saved { file: self, tensors, texts })
    }
}

/// What a state file holds, part by part. Each error names the file.
struct Saved<'a> {
    file: &'a StateFile,
    tensors: SafeTensors<'a>,
    texts: HashMap<String, String>,
}

impl Saved<'_> {
    /// Numbers and shape.
    fn tensor(&self, name: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let view = self.tensors.tensor(name).map_err(|error| self.file.damaged(error))?;
        if view.dtype() != Dtype::F32 {
            return Err(self.file.damaged(format!("{name} is {:?}, wanted F32", view.dtype())));
        }
        let numbers = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok((numbers.collect(), view.shape().to_vec()))
    }

    fn text(&self, name: &str) -> Result<&str> {
        let text = self.texts.get(name).map(String::as_str);
        text.ok_or_else(|| self.file.damaged(format!("{name} is missing")))
    }

    fn number(&self, name: &str) -> Result<u64> {
        self.text(name)?.parse::<u64>().map_err(|error| self.file.damaged(format!("{name}: {error}")))
    }

    fn rng(&self) -> Result<TorchRng> {
        let digits = self.text("rng")?;
        let bytes = (0..digits.len() / 2)
            .map(|i| digits.get(2 * i..2 * i + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| self.file.damaged("the random state is no hexadecimal"))?;
        TorchRng::from_state(&bytes).map_err(|error| self.file.damaged(error.message))
    }

    /// The pictures that are still to come, in as many groups as there are.
    fn queues(&self, groups: usize) -> Result<Vec<Vec<usize>>> {
        let queues: Vec<Vec<usize>> = serde_json::from_str(self.text("queues")?)
            .map_err(|error| self.file.damaged(format!("queues: {error}")))?;
        if queues.len() == groups {
            Ok(queues)
        } else {
            Err(self.file.damaged(format!("{} queues, wanted {groups}", queues.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::optimiser::{Optimiser, OptimiserState};
    use crate::training::trainer::Draws;

    /// The state of a run of two vectors after some steps, each against another gradient.
    fn state(optimiser: Optimiser, steps: usize) -> State {
        let draws = Draws { rng: TorchRng::new(7), queues: vec![vec![2, 0], vec![]] };
        let mut state = State {
            vectors: vec![0.5, -1.0, 0.25, 2.0],
            initial: vec![0.5, -1.0, 0.25, 2.0],
            optimiser: optimiser.config(None, 0.01).start(4),
            draws,
            losses: Vec::new(),
            rate_scale: 0.5,
        };
        for step in 0..steps {
            let gradient = [step as f32, 1.0, -0.5, 0.1];
            state.optimiser.step(&mut state.vectors, &gradient, 0.1);
            state.losses.push(step as f32);
        }
        state
    }

    fn same(a: &State, b: &State) -> bool {
        a.vectors == b.vectors
            && a.initial == b.initial
            && a.optimiser == b.optimiser
            && a.losses == b.losses
            && a.rate_scale == b.rate_scale
            && a.draws.queues == b.draws.queues
            && a.draws.rng.state() == b.draws.rng.state()
    }

    #[test]
    fn every_optimisers_state_comes_back() {
        let runs = tempfile::tempdir().unwrap();
        for (name, optimiser) in Optimiser::ALL {
            let folder = RunFolder::new(runs.path(), name);
            assert!(folder.snapshot().unwrap().is_none());
            let saved = state(optimiser, 3);
            folder.write(&saved, 2, 5).unwrap();
            let mut other = state(optimiser, 0);
            assert!(folder.fill(&mut other, 5).unwrap());
            assert!(same(&other, &saved), "{name}");
            let snapshot = folder.snapshot().unwrap().unwrap();
            assert_eq!(snapshot.losses, saved.losses);
            assert_eq!(snapshot.vectors.to_vec2::<f32>().unwrap().concat(), saved.vectors);
            assert_eq!(snapshot.vectors.dims(), [2, 2]);
        }
        // A state of another optimiser is not taken for one of this.
        let adam = RunFolder::new(runs.path(), "adamw");
        let mut sgd = state(Optimiser::Sgd, 0);
        assert!(adam.fill(&mut sgd, 5).unwrap_err().message.contains("sgd.momentum"));
        assert!(same(&sgd, &state(Optimiser::Sgd, 0)), "nothing was changed");
    }

    #[test]
    fn a_state_of_adamw_has_the_names_that_it_always_had() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(runs.path(), "run");
        folder.write(&state(Optimiser::AdamW, 2), 2, 2).unwrap();
        let file = StateFile::read(folder.path()).unwrap().unwrap();
        let saved = file.open().unwrap();
        let mut names = saved.tensors.names();
        names.sort_unstable();
        assert_eq!(names, ["adam.m", "adam.v", "initial", "losses", "vectors"]);
        let mut texts: Vec<&str> = saved.texts.keys().map(String::as_str).collect();
        texts.sort_unstable();
        assert_eq!(texts, ["adam.t", "queues", "rate_scale", "rng"]);
        assert_eq!(saved.number("adam.t").unwrap(), 2);
        assert!(matches!(state(Optimiser::Adam, 0).optimiser, OptimiserState::AdamW(_)));
    }

    #[test]
    fn a_shorter_run_leaves_a_longer_one_alone() {
        let runs = tempfile::tempdir().unwrap();
        let place = |steps: usize| RunFolder::for_steps(runs.path(), "key", steps);
        let longer = place(9);
        longer.write(&state(Optimiser::AdamW, 6), 2, 9).unwrap();
        for steps in [6, 9, 20] {
            assert_eq!(place(steps).path(), longer.path(), "{steps} steps go on from the 6 that are there");
        }
        let shorter = place(4);
        assert_eq!(shorter.path(), runs.path().join("key-4"));
        shorter.write(&state(Optimiser::AdamW, 4), 2, 4).unwrap();
        assert_eq!(longer.snapshot().unwrap().unwrap().step_count(), 6);
        assert_eq!(place(4).snapshot().unwrap().unwrap().step_count(), 4);
        // Whoever has the wrong folder is stopped.
        let error = longer.write(&state(Optimiser::AdamW, 4), 2, 4).unwrap_err();
        assert!(error.message.contains("more than 4 steps"), "{error}");
        assert!(!longer.fill(&mut state(Optimiser::AdamW, 0), 4).unwrap());
        assert_eq!(longer.snapshot().unwrap().unwrap().step_count(), 6);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let runs = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(runs.path(), "run");
        folder.write(&state(Optimiser::AdamW, 2), 2, 2).unwrap();
        let file = folder.path().join(FILE);
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(folder.snapshot().unwrap_err().message.contains(FILE));
        assert_eq!(RunFolder::for_steps(runs.path(), "run", 1).path(), folder.path());
        // The next saving mends it.
        folder.write(&state(Optimiser::AdamW, 1), 2, 2).unwrap();
        assert_eq!(folder.snapshot().unwrap().unwrap().step_count(), 1);
    }
}
