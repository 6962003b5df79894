//! The weights of a run on the host, as recipes start from them.

use std::path::{Path, PathBuf};

use super::TrainedError;
use crate::checkpoint;
use crate::data::text::{Tokenizer, TokenizerConfig};
use crate::exchange::Stored;
use crate::model::{Flip, GraphDevice, ModelConfig, ModelError};
use crate::parameter::NamedTensor;
use crate::recipe::model_of;
use crate::record::RunPaths;
use crate::train::run::{EMA, MODEL};

/// The weights of a run, on the host.
#[derive(Debug)]
pub struct Weights {
    /// Architecture.
    pub config: ModelConfig,
    /// Parameters by name, with their shapes.
    pub tensors: Vec<NamedTensor>,
    /// The checkpoint they are from.
    pub checkpoint: PathBuf,
    /// Pairs seen up to there; none where the checkpoint is another tool's.
    pub samples: Option<u64>,
    /// Whose checkpoint they were imported from, where they were.
    pub origin: Option<String>,
    /// How the other tool stored them, where they were not trained since.
    pub stored: Stored,
}

impl Weights {
    /// Opens a run, of whose checkpoints a damaged one is passed over for the one before it; or one checkpoint of a
    /// run.
    pub fn open(path: &Path) -> Result<Self, TrainedError> {
        Weights::open_file(path, MODEL)
    }

    /// As [`Weights::open`], the average of the weights.
    pub fn open_average(path: &Path) -> Result<Self, TrainedError> {
        Weights::open_file(path, EMA)
    }

    fn open_file(path: &Path, stem: &str) -> Result<Self, TrainedError> {
        let config = model_of(path)?;
        let snapshot = if checkpoint::run_of(path) == path {
            let found = checkpoint::newest(&RunPaths::new(path).checkpoints())?;
            for (path, reason) in &found.refused {
                tracing::warn!(target: "flip::checkpoint", path = %path.display(), %reason, "checkpoint refused");
            }
            found.snapshot.ok_or_else(|| TrainedError::NoCheckpoint { path: path.into() })?
        } else {
            checkpoint::read(path)?
        };
        let samples = snapshot.state["samples"].as_u64();
        let origin = snapshot.state["imported"]["format"].as_str().map(String::from);
        if stem == EMA && snapshot.state["ema"].is_null() {
            return Err(TrainedError::NoAverage { path: snapshot.path });
        }
        let stored = serde_json::from_value(snapshot.state["imported"]["stored"].clone()).unwrap_or_default();
        let tensors = snapshot.tensors(stem)?;
        Ok(Weights { config, tensors, checkpoint: snapshot.path, samples, origin, stored })
    }

    /// Makes a model start from these weights. Returns what was changed in them, where something was.
    ///
    /// # Errors
    /// An option that decides what the weights mean is another in `model`; or a tensor is missing, left over or of
    /// another shape. Everything of that kind is named.
    pub fn start<D: GraphDevice>(mut self, model: &mut Flip<f32, D>) -> Result<Option<String>, TrainedError> {
        let note = self.config.resample_positions(&mut self.tensors, model.config());
        let mut differences: Vec<String> =
            model.config().unlike(&self.config).iter().map(ToString::to_string).collect();
        if differences.is_empty() {
            match model.import(&self.tensors) {
                Ok(()) => return Ok(note),
                Err(ModelError::Weights(mismatch)) => differences.push(mismatch.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Err(TrainedError::OtherModel { path: self.checkpoint, differences: differences.join("\n") })
    }
}

/// The tokenizer of a run that starts from the weights at `path`: the one that lies with them, with which the one
/// of the recipe has to agree; or the recipe's, where none lies there. A vocabulary that the recipe would train is
/// not trained again.
pub fn tokenizer_of(path: &Path, config: &TokenizerConfig) -> Result<Option<Tokenizer>, TrainedError> {
    let file = RunPaths::new(checkpoint::run_of(path)).tokenizer();
    if !file.is_file() {
        return Ok(None);
    }
    let tokenizer = Tokenizer::load(&file)?;
    if !matches!(config, TokenizerConfig::Train(_)) {
        if let Some(difference) = Tokenizer::open(config)?.differs(&tokenizer) {
            return Err(TrainedError::OtherTokenizer { path: file, difference });
        }
    }
    Ok(Some(tokenizer))
}
