//! What a recipe says about ranks.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Runs of several processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RanksConfig {
    /// Parts that a batch is computed in, each by itself and on one rank; it divides every batch. Sums over a batch are
    /// taken over its parts, so that the numbers of a run depend on this and not on how many ranks compute it: set, it
    /// gives the same run, bit for bit, on one rank and on up to so many. Default: the smallest divisor of the batch that
    /// gives each rank a part.
    pub parts: Option<NonZeroUsize>,
    /// What each rank has only a share of. It changes memory and nothing else; checkpoints are the same.
    pub shard: Shard,
}

/// What ranks share out among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Shard {
    /// Every rank has everything.
    #[default]
    Nothing,
    /// Each rank keeps the moments of some parameters, 8 bytes a number, and updates these alone. Parameters are not cut:
    /// where one is larger than an even share, so is its rank's.
    Optimizer,
}
