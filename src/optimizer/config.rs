//! The update rule and its learning rate, as a recipe describes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// The update rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum OptimizerConfig {
    AdamW(AdamWConfig),
}

/// AdamW with decoupled weight decay on the official groups: everything but biases, norm parameters and
/// position embeddings. The defaults are the official constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, per unit of learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.2 }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig::AdamW(AdamWConfig::default())
    }
}

/// Schedule of the learning rate. The k-th update (k = 0, 1, ...) uses the rate at k.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum ScheduleConfig {
    /// Linear warm-up, then half a cosine down to `min_lr`, over the rest of the stage.
    Cosine(CosineConfig),
    /// Linear warm-up, then constant.
    Constant(ConstantConfig),
}

impl ScheduleConfig {
    /// Time in which the rate rises.
    pub fn warmup(&self) -> Duration {
        match self {
            ScheduleConfig::Cosine(config) => config.warmup,
            ScheduleConfig::Constant(config) => config.warmup,
        }
    }
}

/// Peak of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum PeakLr {
    /// base * batch / 256, the linear scaling rule of the paper.
    Per256(#[schemars(range(min = 0.0))] f64),
    /// As it is.
    Absolute(#[schemars(range(min = 0.0))] f64),
}

impl PeakLr {
    /// The rate for a batch of this many pairs.
    pub fn at(self, batch: u64) -> f64 {
        match self {
            PeakLr::Per256(base) => base * batch as f64 / 256.0,
            PeakLr::Absolute(rate) => rate,
        }
    }
}

/// Linear warm-up, then half a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CosineConfig {
    /// Peak of the learning rate.
    pub lr: PeakLr,
    /// Length of the linear warm-up. Default: none, the rate begins at its peak.
    #[serde(default = "Duration::none")]
    pub warmup: Duration,
    /// Learning rate at the start of the warm-up.
    #[serde(default)]
    pub warmup_lr: f64,
    /// Learning rate at the end.
    #[serde(default)]
    pub min_lr: f64,
}

/// Linear warm-up, then constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConstantConfig {
    /// The learning rate after the warm-up.
    pub lr: PeakLr,
    /// Length of the linear warm-up. Default: none, the rate begins at its peak.
    #[serde(default = "Duration::none")]
    pub warmup: Duration,
}
