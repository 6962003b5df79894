//! Ranks in a recipe.

use std::num::{NonZeroU64, NonZeroUsize};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs of several processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RanksConfig {
    /// Parts that a batch is computed in, each by itself and on one rank; it divides every batch. Sums over a batch are
    /// taken over its parts, so that the numbers of a run depend on this and not on how many ranks compute it: set, it
    /// gives the same run, bit for bit, on one rank and on up to so many. Default: the smallest divisor of the batch that
    /// gives each rank a part.
    pub parts: Option<NonZeroUsize>,
    /// State of which each rank has only a shard. It changes memory and what is sent, not the numbers of a run or its checkpoints:
    /// sums of gradients go only to the rank that updates with them, and parameters come back in the place of sums.
    pub shard: Shard,
    /// Seconds that a rank may go without an exchange, or waiting for one, in a step or an evaluation, before it ends the
    /// run on all ranks. A rank that is gone ends it much sooner.
    pub stall_limit_s: NonZeroU64,
}

impl Default for RanksConfig {
    fn default() -> Self {
        const HALF_AN_HOUR: NonZeroU64 = NonZeroU64::new(1800).unwrap();
        RanksConfig { parts: None, shard: Shard::Nothing, stall_limit_s: HALF_AN_HOUR }
    }
}

/// State that is sharded among ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Shard {
    /// Every rank has everything.
    #[default]
    Nothing,
    /// Each rank keeps the moments of some parameters, 8 bytes a number, and updates these alone. Parameters are not cut:
    /// where one is larger than an even share, so is its rank's.
    Optimizer,
    /// The masters of weights as well, 4 more bytes a number: the others have the rounded copies that products read, and
    /// get them anew after every update, in half of the bytes. With `precision: Bf16` and `compute: Fused`. Embeddings, positions, norms and
    /// biases stay on every rank.
    Masters,
}
