//! Pretrain, unmask, evaluate.

use std::num::NonZeroUsize;

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

/// Masked contrastive training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// How long.
    pub length: Duration,
    /// Pairs of one update, all of which compete with each other.
    pub batch: NonZeroUsize,
    /// Pairs encoded at a time; bounds memory, never changes the gradient. Default: the whole batch.
    #[serde(default)]
    pub micro_batch: Option<NonZeroUsize>,
    /// Which patches are dropped.
    #[serde(default)]
    pub image_mask: ImageMask,
    /// Which tokens are dropped.
    #[serde(default)]
    pub text_mask: TextMask,
    /// Side of the training pictures, pixels, where smaller than the model's (CLIPA). Positions follow.
    #[serde(default)]
    pub image_size: Option<NonZeroUsize>,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    /// Largest global norm of the gradient; larger ones are scaled down. Default: none, as the paper.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub clip_grad_norm: Option<f64>,
}

/// Training without masks. It has no mask field, so it cannot be masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnmaskConfig {
    /// How long.
    pub length: Duration,
    /// Pairs of one update, all of which compete with each other.
    pub batch: NonZeroUsize,
    /// Pairs encoded at a time; bounds memory, never changes the gradient. Default: the whole batch.
    #[serde(default)]
    pub micro_batch: Option<NonZeroUsize>,
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    pub schedule: ScheduleConfig,
    /// Largest global norm of the gradient; larger ones are scaled down. Default: none, as the paper.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub clip_grad_norm: Option<f64>,
}
