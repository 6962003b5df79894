//! Pretrain, unmask, evaluate.

mod clock;
pub mod evaluate;
pub mod identity;
pub mod images;
pub mod inputs;
pub mod plan;
pub mod resumed;
mod split;
pub mod train;
pub mod training;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::evaluator::EvaluatorConfig;
use crate::mask::{ImageMask, TextMask};
use crate::optimizer::{OptimizerConfig, ScheduleConfig};

/// One step of a recipe, run in sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Stage {
    /// Masked contrastive training.
    Pretrain(PretrainConfig),
    /// Short training without masks, closing the gap between masked training and unmasked use (section 3).
    Unmask(UnmaskConfig),
    /// Measurements.
    Evaluate(Vec<EvaluatorConfig>),
}

/// Evaluations in the course of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeanwhileConfig {
    /// Between two rounds of evaluations, counted from the beginning of the stage.
    pub every: Duration,
    /// What is measured each time. Choose what is quick: training waits for it.
    pub evaluators: Vec<EvaluatorConfig>,
}

impl Stage {
    /// Every evaluation of the stage, and where in it the list is.
    pub fn evaluators(&self) -> (&'static str, &[EvaluatorConfig]) {
        match self {
            Stage::Pretrain(PretrainConfig { evaluate: Some(meanwhile), .. })
            | Stage::Unmask(UnmaskConfig { evaluate: Some(meanwhile), .. }) => {
                (MEANWHILE, &meanwhile.evaluators)
            }
            Stage::Pretrain(_) | Stage::Unmask(_) => (MEANWHILE, &[]),
            Stage::Evaluate(evaluators) => ("", evaluators),
        }
    }

    /// The same, to be changed.
    pub fn evaluators_mut(&mut self) -> (&'static str, &mut [EvaluatorConfig]) {
        match self {
            Stage::Pretrain(PretrainConfig { evaluate: Some(meanwhile), .. })
            | Stage::Unmask(UnmaskConfig { evaluate: Some(meanwhile), .. }) => {
                (MEANWHILE, &mut meanwhile.evaluators)
            }
            Stage::Pretrain(_) | Stage::Unmask(_) => (MEANWHILE, &mut []),
            Stage::Evaluate(evaluators) => ("", evaluators),
        }
    }
}

/// Where the evaluations of a training stage are.
const MEANWHILE: &str = ".evaluate.evaluators";

/// Masked contrastive training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// How long.
    pub length: Duration,
    /// Pairs of one update, all of which compete with each other.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub batch: NonZeroUsize,
    /// Pairs encoded at a time; bounds memory, never changes the gradient. Default: the whole batch.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub micro_batch: Option<NonZeroUsize>,
    /// Which patches are dropped: `Random(0.5)` as the paper, or `Keep` to train without a mask, as CLIP. It has no
    /// default, because a recipe without it would train at twice the cost, or a model of another kind, without a word.
    pub image_mask: ImageMask,
    /// Which tokens are dropped.
    #[serde(default)]
    pub text_mask: TextMask,
    /// Side of the training images, pixels, where smaller than the model's (CLIPA). Positions follow.
    #[serde(default)]
    pub image_size: Option<NonZeroUsize>,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    /// Largest global norm of the gradient; larger ones are scaled down. Default: none, as the paper.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub clip_grad_norm: Option<f64>,
    /// Evaluations in the course of the stage. They change nothing that training computes.
    #[serde(default)]
    pub evaluate: Option<MeanwhileConfig>,
}

/// Training without masks. It has no mask field, so it cannot be masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnmaskConfig {
    /// How long.
    pub length: Duration,
    /// Pairs of one update, all of which compete with each other.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub batch: NonZeroUsize,
    /// Pairs encoded at a time; bounds memory, never changes the gradient. Default: the whole batch.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub micro_batch: Option<NonZeroUsize>,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    /// Largest global norm of the gradient; larger ones are scaled down. Default: none, as the paper.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub clip_grad_norm: Option<f64>,
    /// Evaluations in the course of the stage. They change nothing that training computes.
    #[serde(default)]
    pub evaluate: Option<MeanwhileConfig>,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Complete,
    /// By SIGINT, SIGTERM, SIGHUP or SIGUSR1, after writing a checkpoint.
    Interrupted,
}

/// A stage that failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("stages[{stage}]: {source}")]
    Plan { stage: usize, source: plan::PlanError },
    #[error("checkpoints.every: {0}")]
    CheckpointEvery(crate::duration::DurationError),
    #[error("stages[{stage}].evaluate.every: {source}")]
    EvaluateEvery { stage: usize, source: crate::duration::DurationError },
    #[error(
        "stages[{stage}] ({kind}), step {step}: the loss is {loss} and the gradient norm {norm}, so nothing was updated; \
         the batch went from sample {first} to {last}. {}. Try a lower learning rate, a longer warm-up or clip_grad_norm",
        last_good(.saved)
    )]
    NotFinite {
        stage: usize,
        kind: &'static str,
        step: u64,
        loss: f64,
        norm: f64,
        first: String,
        last: String,
        saved: Option<PathBuf>,
    },
    #[error("interrupted")]
    Stopped,
    #[error("rank {rank} cannot go on: {reason}")]
    OtherRank { rank: usize, reason: String },
    #[error("stages[{stage}]: {source}")]
    Parts { stage: usize, source: crate::ranks::RanksError },
    #[error(transparent)]
    Ranks(#[from] crate::ranks::RanksError),
    #[error("evaluation {evaluator:?} has no data: set data.validation, or data in the evaluation itself")]
    NoEvaluationData { evaluator: String },
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error(transparent)]
    Optimizer(#[from] crate::optimizer::OptimizerError),
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    #[error(transparent)]
    Evaluator(#[from] crate::evaluator::EvaluatorError),
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    #[error(transparent)]
    RunFolder(#[from] crate::record::RunFolderError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the training source ended although it should repeat; this is a bug in the source")]
    NoMoreData,
    #[error(
        "{path} is not what a run writes there: {source}. Delete it: then a checkpoint that is of another run, or of \
         other data, is told apart by its hashes alone"
    )]
    Identity { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    NotTheSame(#[from] identity::NotTheSame),
    #[error("what ranks told each other is not readable: {0}")]
    Told(serde_json::Error),
    #[error("this rank's share of a checkpoint did not reach rank 0: {0}")]
    NoValues(crate::checkpoint::NoValues),
}

impl StageError {
    fn json(source: serde_json::Error) -> Self {
        StageError::Told(source)
    }

    /// Whether data could not be had, here or by another rank that told of it: the model is as good as before.
    fn is_of_data(&self) -> bool {
        matches!(
            self,
            StageError::Data(_)
                | StageError::Evaluator(crate::evaluator::EvaluatorError::Data(_))
                | StageError::OtherRank { .. }
        )
    }
}

fn last_good(saved: &Option<PathBuf>) -> String {
    match saved {
        Some(path) => format!("The last good checkpoint is {}", path.display()),
        None => "No checkpoint had been written yet".into(),
    }
}
