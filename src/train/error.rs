//! Errors of stages.

use std::path::PathBuf;

use crate::checkpoint::{CheckpointError, NoValues};
use crate::data::DataError;
use crate::evaluator::EvaluatorError;
use crate::model::ModelError;
use crate::optimizer::OptimizerError;
use crate::ranks::RanksError;
use crate::record::{RecordError, RunFolderError, StageKind};
use crate::report::ReportError;

use super::identity::IdentityError;
use super::plan::PlanError;

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Its fields do not fit each other, the data or the ranks.
    #[error("stages[{stage}]: {source}")]
    Plan {
        /// Index of the stage.
        stage: usize,
        /// The field.
        source: PlanError,
    },
    /// A step whose loss or gradient is not finite.
    #[error(transparent)]
    NotFinite(Box<NotFinite>),
    /// Another rank, or the exchange with it.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A checkpoint that the run cannot go on from.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An evaluation that nothing was given to.
    #[error("evaluation {evaluator:?} has no data: set data.validation, or data in the evaluation itself")]
    NoEvaluationData {
        /// Its name in the recipe.
        evaluator: String,
    },
    /// A mistake of a source.
    #[error("the training source ended although it should repeat; this is a bug in the source")]
    NoMoreData,
    /// Data that cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model or its device.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An update.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// A snapshot that cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// An evaluation.
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    /// A file of the run folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An image that cannot be drawn.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// A step whose loss or gradient is not finite: nothing was updated.
#[derive(Debug, thiserror::Error)]
#[error(
    "stages[{stage}] ({kind}), step {step}: the loss is {loss} and the gradient norm {norm}, so nothing was updated; \
     the batch went from sample {first} to {last}. {}. Try a lower learning rate, a longer warm-up or clip_grad_norm",
    last_good(.saved)
)]
pub struct NotFinite {
    /// Index of the stage.
    pub stage: usize,
    /// Kind of the stage.
    pub kind: StageKind,
    /// Updates of the stage that were done.
    pub step: u64,
    /// Loss of the batch, nats.
    pub loss: f64,
    /// Global L2 norm of its gradient.
    pub norm: f64,
    /// Key of the first sample of the batch.
    pub first: String,
    /// Key of its last sample.
    pub last: String,
    /// The newest checkpoint.
    pub saved: Option<PathBuf>,
}

fn last_good(saved: &Option<PathBuf>) -> String {
    match saved {
        Some(path) => format!("The last good checkpoint is {}", path.display()),
        None => "No checkpoint had been written yet".into(),
    }
}

/// Ranks that cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The transport.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// Another rank has told why it cannot go on.
    #[error("rank {rank} cannot go on: {reason}")]
    OtherRank {
        /// The rank.
        rank: usize,
        /// Its error, as text.
        reason: String,
    },
    /// A mistake of the program: all ranks are of one build.
    #[error("a message between ranks is not readable: {0}")]
    Message(serde_json::Error),
    /// A checkpoint that could not be put together.
    #[error("this rank's part of a checkpoint did not reach rank 0: {0}")]
    NoValues(NoValues),
}

impl From<RanksError> for TrainError {
    fn from(error: RanksError) -> Self {
        ExchangeError::from(error).into()
    }
}

impl From<RunFolderError> for TrainError {
    fn from(error: RunFolderError) -> Self {
        RecordError::from(error).into()
    }
}

impl TrainError {
    /// An error of reading or writing a message between ranks.
    pub(super) fn message(source: serde_json::Error) -> Self {
        ExchangeError::Message(source).into()
    }

    /// True if data could not be had, here or by another rank that told of it: the model is as good as before.
    pub(super) fn is_of_data(&self) -> bool {
        matches!(
            self,
            TrainError::Data(_)
                | TrainError::Evaluator(EvaluatorError::Data(_))
                | TrainError::Exchange(ExchangeError::OtherRank { .. })
        )
    }
}
