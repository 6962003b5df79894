//! Rows of `metrics.jsonl` and `timing.jsonl`.
//!
//! They are two files on purpose. A run that is killed and resumed computes the same losses as one that is
//! not, so its `metrics.jsonl` is the same, byte for byte, and comparing two files proves it. How fast the
//! machine was is never the same twice, and goes to `timing.jsonl`.
//!
//! A float that is not finite is written as null, JSON having no word for it, and read as NaN. So is one that a row of
//! another version does not have.

use serde::{Deserialize, Serialize};

use super::lines::JsonLines;
use super::number::{nan, or_nan};

/// A row of `metrics.jsonl`: results of the computation, none of which depends on the clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of this stage that are done.
    pub step: u64,
    /// Pairs the whole run has seen.
    #[serde(default)]
    pub samples: u64,
    /// Of the batch of this step, before its update; nats.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub loss: f32,
    /// Learning rate of this update.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub lr: f64,
    /// The factor on the similarities (the exponential of the parameter).
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub logit_scale: f32,
    /// Global L2 norm before clipping.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub grad_norm: f32,
}

/// A row of `timing.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of this stage that are done.
    pub step: u64,
    /// Pairs a second since the row before.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub images_per_s: f64,
    /// Fraction of that time spent waiting for data, 0 to 1.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub data_wait: f64,
    /// Mean milliseconds of a step since the row before: without evaluations, checkpoints, and time in which the
    /// process was stopped.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub step_ms: f64,
    /// Seconds since this process began the stage.
    #[serde(default = "nan", deserialize_with = "or_nan")]
    pub elapsed_s: f64,
    /// The same of each rank, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranks: Vec<RankTiming>,
}

/// A rank in a row of `timing.jsonl`: means of the steps since the row before, in which it waits for no other rank.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RankTiming {
    /// Milliseconds of a step spent waiting for data.
    pub data_ms: f64,
    /// Milliseconds of a step in the forward pass of both encoders.
    pub encode_ms: f64,
}

/// `metrics.jsonl`.
pub type Metrics = JsonLines<StepMetrics>;
/// `timing.jsonl`.
pub type Timing = JsonLines<StepTiming>;
