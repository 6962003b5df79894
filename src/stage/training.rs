//! What a training run consists of while it runs, and exactly what a checkpoint of it holds.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, CheckpointConfig, Name, Part};
use crate::data::source::Source;
use crate::data::storage::with_stall_timeout;
use crate::data::text::Tokenizer;
use crate::data::{Cursor, DataConfig, DataError};
use crate::duration::Duration;
use crate::log::{MetricsConfig, Progress};
use crate::model::{Flip, GraphDevice, ModelConfig};
use crate::optimizer::AdamW;
use crate::parameter::Parameter;
use crate::ranks::{Owners, Ranks, RanksConfig};
use crate::record::{Metrics, RunFolder, Timing};
use crate::report::EventWriter;

use super::identity::Identity;
use super::StageError;

/// Name of the model's part of a checkpoint.
pub const MODEL: &str = "model";
/// Name of the optimizer's part of a checkpoint.
pub const OPTIMIZER: &str = "optimizer";

/// What ranks tell each other before a step.
const READY: u8 = 0;
const INTERRUPTED: u8 = 1;
const FAILED: u8 = 2;

/// Where a run stands: together with model and optimizer, all that is needed to go on exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// Index of the stage.
    pub stage: usize,
    /// Updates done in this stage.
    pub step: u64,
    /// Updates done in the whole run; masks are drawn from it.
    pub global_step: u64,
    /// Pairs seen in the whole run.
    pub samples: u64,
    /// The next pair of the training source.
    pub cursor: Cursor,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// Length of `timing.jsonl`.
    pub timing_bytes: u64,
}

impl Position {
    /// Name of the checkpoint taken here.
    pub fn name(&self) -> Name {
        Name { stage: self.stage, step: self.step }
    }

    /// True if a row of this stage and step belongs to a run that stands here: it was not written later.
    pub fn includes(&self, stage: usize, step: u64) -> bool {
        (stage, step) <= (self.stage, self.step)
    }
}

/// What a checkpoint holds beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    #[serde(flatten)]
    pub position: Position,
    /// The next pair of each part of a batch, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Cursor>,
    /// What the run is of; earlier versions did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
}

/// Where a run is recorded. Rank 0 does it for all.
pub struct Records<'a> {
    pub folder: &'a RunFolder,
    pub metrics: Metrics,
    pub timing: Timing,
    pub events: EventWriter,
}

/// What the stages of one run share.
pub struct Run<'a, D: GraphDevice> {
    pub seed: u64,
    pub model_config: &'a ModelConfig,
    pub data: &'a DataConfig,
    pub checkpoints: &'a CheckpointConfig,
    pub metrics_config: &'a MetricsConfig,
    pub ranks: &'a dyn Ranks,
    pub ranks_config: &'a RanksConfig,
    /// Ranks on this machine, this one included.
    pub neighbours: usize,
    pub progress: &'a Progress,
    /// Set by the signals that end a run.
    pub interrupt: &'a AtomicBool,
    pub device: D,
    pub model: Flip<f32, D>,
    pub tokenizer: Arc<Tokenizer>,
    pub train: Arc<dyn Source>,
    /// `None` on other ranks than 0.
    pub records: Option<Records<'a>>,
    pub position: Position,
    /// As in [`State`].
    pub parts: Vec<Cursor>,
    /// What the run is of; `None` on other ranks than 0.
    pub identity: Option<Identity>,
    /// The newest checkpoint written or read.
    pub saved: Option<PathBuf>,
}

impl<D: GraphDevice> Run<'_, D> {
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// Size of an epoch in samples, where one is known. The source is counted only where one of `durations` is in
    /// epochs: a large set takes long.
    ///
    /// # Errors
    /// The source does not answer in time.
    pub fn epoch_samples(&self, durations: &[Duration]) -> Result<Option<u64>, DataError> {
        let given = self.data.epoch_samples.map(|samples| samples.get());
        let in_epochs = durations.iter().any(|duration| matches!(duration, Duration::Epochs(_)));
        if given.is_some() || !in_epochs {
            return Ok(given);
        }
        let (source, progress) = (self.train.clone(), self.train.progress());
        let count = move || source.samples();
        with_stall_timeout(
            self.data.storage.stall_timeout(),
            &self.train.name(),
            "counting the samples",
            progress,
            count,
        )
    }

    /// Threads that decode and tokenize.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let share = || (cores() / self.neighbours.max(1)).max(1);
        self.data.workers.map_or_else(share, |workers| workers.get())
    }

    /// Tells the other ranks whether this one can go on, and learns whether all can: `Ok(true)` where a rank was
    /// interrupted. `failure` is this rank's reason not to go on.
    ///
    /// # Errors
    /// Another rank cannot go on.
    pub fn agree(&self, failure: Option<&str>) -> Result<bool, StageError> {
        if self.ranks.count() == 1 {
            return Ok(self.interrupted());
        }
        self.ranks.mark();
        let own = match failure {
            Some(reason) => [&[FAILED], reason.as_bytes()].concat(),
            None if self.interrupted() => vec![INTERRUPTED],
            None => vec![READY],
        };
        let all = self.ranks.gather(&own)?;
        let failed = all.iter().enumerate().find(|(_, said)| said.first() == Some(&FAILED));
        if let (Some((rank, said)), None) = (failed, failure) {
            let reason = String::from_utf8_lossy(&said[1..]).into_owned();
            return Err(StageError::OtherRank { rank, reason });
        }
        Ok(all.iter().any(|said| said.first() == Some(&INTERRUPTED)))
    }

    /// Writes a checkpoint of this very moment, with the optimizer's state where there is one, and removes those that are no
    /// longer kept. Rank 0 writes it; where `owners` have shares of the state, all ranks call this, and rank 0 gets
    /// theirs tensor by tensor, as they are written.
    pub fn save(
        &mut self,
        optimizer: Option<&mut AdamW<f32, D>>,
        owners: Option<&Owners>,
    ) -> Result<(), StageError> {
        let (model, ranks) = (&self.model, self.ranks);
        let mut parts = vec![Part {
            stem: MODEL,
            outline: model.parameters().iter().map(Parameter::outline).collect(),
            show: Box::new(|place, see| Ok(model.show_first(ranks, owners, place, see)?)),
        }];
        if let Some(optimizer) = optimizer {
            parts.push(Part {
                stem: OPTIMIZER,
                outline: AdamW::<f32, D>::outline(model.parameters()),
                show: Box::new(|index, see| Ok(optimizer.show_first(ranks, owners, model, index, see)?)),
            });
        }
        let Some(records) = &self.records else {
            return match owners {
                Some(_) => checkpoint::visit(parts).map_err(StageError::NoValues),
                None => Ok(()),
            };
        };
        records.folder.still_there()?;
        records.metrics.sync()?;
        records.timing.sync()?;
        self.position.metrics_bytes = records.metrics.position();
        self.position.timing_bytes = records.timing.position();
        let folder = records.folder.checkpoints();
        let name = self.position.name();
        let (parts_of_batch, identity) = (self.parts.clone(), self.identity.clone());
        let state = State { position: self.position, parts: parts_of_batch, identity };
        let path = checkpoint::write_parts(&folder, name, parts, &state)?;
        tracing::info!(target: "flip::checkpoint", path = %path.display(), "checkpoint written");
        checkpoint::retain(&folder, name, self.checkpoints.keep, &[])?;
        self.saved = Some(path);
        Ok(())
    }
}
