//! The folder of a run: everything that is needed to go on as if nothing had happened.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::trainer::Trainer;
use crate::diffusion::TorchRng;
use crate::{Error, Result};

const FILE: &str = "state.safetensors";

/// A run's folder. It holds one file, replaced as a whole: vectors, where they started, moments, random state, queues, losses.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// The folder of the run `key` (see [`TrainingSettings::run_key`](super::TrainingSettings::run_key)) below `runs`.
    pub fn new(runs: &Path, key: &str) -> Self {
        Self { path: runs.join(key) }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Write the run's state, beside the old one and then over it.
    pub fn save(&self, trainer: &Trainer) -> Result<()> {
        let state = &trainer.state;
        let d = state.vectors.len() / trainer.settings().num_vectors;
        let matrix = vec![trainer.settings().num_vectors, d];
        let tensors = [
            ("vectors", &state.vectors, matrix.clone()),
            ("initial", &state.initial, matrix.clone()),
            ("adam.m", &state.adam.m, matrix.clone()),
            ("adam.v", &state.adam.v, matrix),
            ("losses", &state.losses, vec![state.losses.len()]),
        ];
        let bytes: Vec<(&str, Vec<u8>, Vec<usize>)> = tensors
            .into_iter()
            .map(|(name, values, shape)| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect(), shape))
            .collect();
        let views = bytes
            .iter()
            .map(|(name, bytes, shape)| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
                view.map(|view| (*name, view)).map_err(|error| Error::invalid(format!("{name}: {error}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let metadata = HashMap::from([
            ("adam.t".to_owned(), state.adam.t.to_string()),
            ("rng".to_owned(), state.draws.rng.state().iter().map(|byte| format!("{byte:02x}")).collect()),
            ("queues".to_owned(), serde_json::to_string(&state.draws.queues).unwrap_or_default()),
            // Bits, since a decimal may round.
            ("rate_scale".to_owned(), state.rate_scale.to_bits().to_string()),
        ]);
        let file = safetensors::serialize(views, Some(metadata))
            .map_err(|error| Error::invalid(format!("the state of a run cannot be written: {error}")))?;
        std::fs::create_dir_all(&self.path).map_err(|error| Error::io(&self.path, &error))?;
        let (beside, target) = (self.path.join(format!("{FILE}.part")), self.path.join(FILE));
        std::fs::write(&beside, file).map_err(|error| Error::io(&beside, &error))?;
        std::fs::rename(&beside, &target).map_err(|error| Error::io(&target, &error))
    }

    /// Put the saved state, if there is one, into `trainer`, which must be of the same run. Returns whether there was one. A state that has
    /// gone further than the run should is left alone.
    pub fn resume(&self, trainer: &mut Trainer) -> Result<bool> {
        let path = self.path.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io(&path, &error)),
        };
        let damaged = |what: String| {
            Error::incompatible(format!("{}: {what}", path.display()))
                .help("the run's folder is damaged: remove it to start the run again")
        };
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |name: &str| metadata.get(name).ok_or_else(|| damaged(format!("{name} is missing")));
        let number =
            |name: &str| text(name)?.parse::<u64>().map_err(|error| damaged(format!("{name}: {error}")));
        let values = |name: &str| -> Result<Vec<f32>> {
            let view = file.tensor(name).map_err(|error| damaged(error.to_string()))?;
            let numbers = view.data().chunks_exact(4);
            Ok(numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        let losses = values("losses")?;
        if losses.len() > trainer.settings().steps {
            return Ok(false);
        }
        let count = trainer.state.vectors.len();
        let matrix = |name: &str| {
            let values = values(name)?;
            if values.len() == count {
                Ok(values)
            } else {
                Err(damaged(format!("{name} holds {} numbers", values.len())))
            }
        };
        let rng = text("rng")?;
        let rng = (0..rng.len() / 2)
            .map(|i| rng.get(2 * i..2 * i + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()))
            .collect::<Option<Vec<u8>>>()
            .ok_or_else(|| damaged("the random state is no hexadecimal".into()))?;
        let queues: Vec<Vec<usize>> =
            serde_json::from_str(text("queues")?).map_err(|error| damaged(format!("queues: {error}")))?;
        if queues.len() != trainer.state.draws.queues.len() {
            return Err(damaged(format!("{} queues", queues.len())));
        }
        let mut state = trainer.state.clone();
        state.vectors = matrix("vectors")?;
        state.initial = matrix("initial")?;
        state.adam.m = matrix("adam.m")?;
        state.adam.v = matrix("adam.v")?;
        state.adam.t = number("adam.t")?;
        state.draws.rng = TorchRng::from_state(&rng).map_err(|error| damaged(error.message))?;
        state.draws.queues = queues;
        state.losses = losses;
        state.rate_scale = f64::from_bits(number("rate_scale")?);
        trainer.state = state;
        Ok(true)
    }
}
