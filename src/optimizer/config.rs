//! The update rule and its learning rate, as a recipe describes them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Phase;
use crate::parameter::Tower;

/// The update rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum OptimizerConfig {
    AdamW(AdamWConfig),
    /// As the training stage before it, with its moments and its count of updates: for a stage that goes on with the same
    /// training, such as a decay of the learning rate of its own. Otherwise each stage begins without moments.
    Continue,
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
    /// Linear warm-up, then constant, then a decay over the last part of the stage: a constant rate with a cooldown
    /// (open_clip's `const-cooldown`; arXiv 2404.06395, 2405.18392). Where it is not known beforehand how long to train: the constant
    /// part can be prolonged, and a decay begun from any of its checkpoints.
    WarmupStableDecay(WarmupStableDecayConfig),
}

impl ScheduleConfig {
    /// Peak of the rate.
    pub fn lr(&self) -> PeakLr {
        match self {
            ScheduleConfig::Cosine(config) => config.lr,
            ScheduleConfig::Constant(config) => config.lr,
            ScheduleConfig::WarmupStableDecay(config) => config.lr,
        }
    }

    /// Time in which the rate rises.
    pub fn warmup(&self) -> Phase {
        match self {
            ScheduleConfig::Cosine(config) => config.warmup,
            ScheduleConfig::Constant(config) => config.warmup,
            ScheduleConfig::WarmupStableDecay(config) => config.warmup,
        }
    }

    /// Time at the end of the stage in which the rate falls, where that is a field of the schedule.
    pub fn decay(&self) -> Option<Phase> {
        match self {
            ScheduleConfig::WarmupStableDecay(config) => Some(config.decay),
            ScheduleConfig::Cosine(_) | ScheduleConfig::Constant(_) => None,
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
    #[serde(default = "Phase::none")]
    pub warmup: Phase,
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
    #[serde(default = "Phase::none")]
    pub warmup: Phase,
}

/// Linear warm-up, then constant, then a decay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmupStableDecayConfig {
    /// The learning rate between warm-up and decay.
    pub lr: PeakLr,
    /// Length of the linear warm-up. Default: none, the rate begins at its peak.
    #[serde(default = "Phase::none")]
    pub warmup: Phase,
    /// Length of the decay, which ends with the stage.
    pub decay: Phase,
    /// Course of the decay.
    #[serde(default)]
    pub shape: DecayShape,
    /// Learning rate at the end.
    #[serde(default)]
    pub min_lr: f64,
}

/// Course of the learning rate over a decay, of which the share t, from 0 to 1, is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DecayShape {
    /// 1 - t of the way from `min_lr` to the peak (open_clip's, with power 1).
    #[default]
    Linear,
    /// 1 - sqrt(t) of the way: falls sooner, and was the best of those compared in arXiv 2405.18392.
    OneMinusSqrt,
    /// peak (min_lr / peak)^t, for a `min_lr` above 0 (arXiv 2404.06395).
    Exponential,
}

/// An exponential moving average of the weights, evaluated beside them, kept in checkpoints and given out by `flip export --ema`
/// and `flip embed --ema`. It evens out the last steps, which matters most where the learning rate does not fall to 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// Share of the average that an update leaves of it: 0.9999 looks back some 10,000 steps.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub decay: f64,
    /// A smaller share to begin with, (1 + t) / (10 + t) at update t = 0, 1, ..., so that a short run forgets where it began.
    #[serde(default)]
    pub warmup: bool,
}

impl EmaConfig {
    /// The share at an update, counted from 0.
    pub fn decay_at(&self, update: u64) -> f64 {
        match self.warmup {
            true => self.decay.min((1.0 + update as f64) / (10.0 + update as f64)),
            false => self.decay,
        }
    }
}

/// A part of the model that does not learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Frozen {
    /// The image encoder (locked-image tuning, LiT, arXiv 2111.07991): a text encoder learns to read what it sees.
    Image,
    /// The text encoder.
    Text,
}

impl Frozen {
    /// The tower of the model.
    pub fn tower(self) -> Tower {
        match self {
            Frozen::Image => Tower::Image,
            Frozen::Text => Tower::Text,
        }
    }
}
