//! A run while it goes on.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{self, CheckpointConfig, TensorFile};
use crate::data::source::Source;
use crate::data::storage::with_stall_timeout;
use crate::data::text::Tokenizer;
use crate::data::{DataConfig, DataError};
use crate::duration::Duration;
use crate::log::MetricsConfig;
use crate::model::{Flip, GraphDevice, ModelConfig};
use crate::optimizer::{AdamW, Average};
use crate::parameter::Parameter;
use crate::ranks::{Owners, RanksConfig};

use super::error::{ExchangeError, TrainError};
use super::processes::Processes;
use super::recorder::Recorder;
use super::state::State;

/// Name of the model's tensors in a checkpoint.
pub const MODEL: &str = "model";
/// Name of the tensors of the weights' average in a checkpoint.
pub const EMA: &str = "ema";
/// Name of the optimizer's tensors in a checkpoint.
pub const OPTIMIZER: &str = "optimizer";

/// Fields of the recipe that every stage reads.
#[derive(Debug, Clone, Copy)]
pub struct RunConfig<'a> {
    /// Every random choice derives from it.
    pub seed: u64,
    /// `model`.
    pub model: &'a ModelConfig,
    /// `data`.
    pub data: &'a DataConfig,
    /// `checkpoints`.
    pub checkpoints: &'a CheckpointConfig,
    /// `metrics`.
    pub metrics: &'a MetricsConfig,
    /// `ranks`.
    pub ranks: &'a RanksConfig,
}

/// A run while it goes on: what its stages share, and hand on to each other.
pub struct Run<'a, D: GraphDevice> {
    /// Fields of the recipe.
    pub config: RunConfig<'a>,
    /// The processes that compute it.
    pub processes: Processes<'a>,
    /// The training source.
    pub source: Arc<dyn Source>,
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The model, with its weights.
    pub model: Flip<f32, D>,
    /// Moments that the next training stage goes on with.
    pub moments: Option<AdamW<f32, D>>,
    /// Average of the weights, where the newest stage that trains has one.
    pub ema: Option<Average<f32, D>>,
    /// Position, parts and identity.
    pub state: State,
    /// The newest checkpoint written or read.
    pub newest_checkpoint: Option<PathBuf>,
    /// Open files of the run folder; `None` on other ranks than 0.
    pub recorder: Option<Recorder<'a>>,
}

impl<D: GraphDevice> Run<'_, D> {
    /// Size of an epoch in samples, where one is known. The source is counted only where one of `durations` is in
    /// epochs: a large set takes long.
    ///
    /// # Errors
    /// The source does not answer in time.
    pub fn epoch_samples(&self, durations: &[Duration]) -> Result<Option<u64>, DataError> {
        let given = self.config.data.epoch_samples.map(|samples| samples.get());
        let in_epochs = durations.iter().any(|duration| matches!(duration, Duration::Epochs(_)));
        if given.is_some() || !in_epochs {
            return Ok(given);
        }
        let (source, progress) = (self.source.clone(), self.source.progress());
        let count = move || source.samples();
        let timeout = self.config.data.storage.stall_timeout();
        with_stall_timeout(timeout, &self.source.name(), "counting the samples", progress, count)
    }

    /// Threads that decode and tokenize.
    pub fn workers(&self) -> usize {
        self.config.data.workers.map_or(self.processes.cores, |workers| workers.get())
    }

    /// Writes a checkpoint of this very moment, with the optimizer's state where there is one, and removes those that are no
    /// longer kept. Rank 0 writes it; where the state is sharded among `owners`, all ranks call this, and rank 0 gets
    /// theirs tensor by tensor, as they are written.
    ///
    /// # Errors
    /// The disk's, or an exchange fails.
    pub fn save(
        &mut self,
        optimizer: Option<&AdamW<f32, D>>,
        owners: Option<&Owners>,
    ) -> Result<(), TrainError> {
        let (model, ranks) = (&self.model, self.processes.ranks);
        self.state.ema = self.ema.as_ref().map(Average::updates);
        let mut files = vec![TensorFile {
            stem: MODEL,
            outline: model.parameters().iter().map(Parameter::outline).collect(),
            show: Box::new(|place, see| Ok(model.show_first(ranks, owners, place, see)?)),
        }];
        if let Some(average) = &self.ema {
            let weights = average.weights();
            files.push(TensorFile {
                stem: EMA,
                outline: model.parameters().iter().map(Parameter::outline).collect(),
                show: Box::new(|place, see| Ok(model.show_first_of(weights, ranks, owners, place, see)?)),
            });
        }
        if let Some(optimizer) = optimizer {
            files.push(TensorFile {
                stem: OPTIMIZER,
                outline: AdamW::<f32, D>::outline(model.parameters()),
                show: Box::new(|index, see| Ok(optimizer.show_first(ranks, owners, model, index, see)?)),
            });
        }
        let Some(recorder) = &self.recorder else {
            return match owners {
                Some(_) => Ok(checkpoint::visit(files).map_err(ExchangeError::NoValues)?),
                None => Ok(()),
            };
        };
        recorder.sync(&mut self.state.position)?;
        let folder = recorder.folder.checkpoints();
        let name = self.state.position.name();
        let path = checkpoint::write_files(&folder, name, files, &self.state)?;
        tracing::info!(target: "flip::checkpoint", path = %path.display(), "checkpoint written");
        checkpoint::retain(&folder, name, self.config.checkpoints.keep, &[])?;
        self.newest_checkpoint = Some(path);
        Ok(())
    }
}
