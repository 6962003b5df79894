//! Errors of runs.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::model::ModelError;
use crate::ranks::RanksError;
use crate::record::{RecordError, RunFolderError};
use crate::train::{RecorderError, TrainError};
use crate::trained::TrainedError;

/// A run that could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    /// A device that is not there, or cannot compute the recipe.
    #[error("{0}")]
    Device(String),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training data cannot be had.
    #[error("data.train: {0}")]
    Train(DataError),
    /// The tokenizer cannot be had.
    #[error("model.text.tokenizer: {0}")]
    Tokenizer(#[from] DataError),
    /// A tokenizer of more tokens than the model embeds.
    #[error(
        "model.text.vocab_size is {expected}, but the tokenizer has {found} tokens; set it to {found} or more"
    )]
    Vocabulary {
        /// Tokens of the model.
        expected: usize,
        /// Tokens of the tokenizer.
        found: usize,
    },
    /// Checkpoints that are all broken.
    #[error(
        "{path}: no usable checkpoint is left; all of them were refused. Start again with --restart, or restore one"
    )]
    AllRefused {
        /// Their folder.
        path: PathBuf,
    },
    /// A snapshot that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Weights that the run cannot start from.
    #[error("init: {0}")]
    Init(#[from] TrainedError),
    /// A stage.
    #[error(transparent)]
    Stage(#[from] TrainError),
    /// The run folder.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// A file of the run folder that cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file of the run folder that cannot be gone on with.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The other ranks.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The index of the training data.
    #[error("the index of the training data: {0}")]
    Index(String),
    /// A message of rank 0.
    #[error("rank 0 handed out what cannot be read: {0}")]
    Shared(String),
}
