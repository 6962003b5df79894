//! Snapshots in a recipe.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// Times at which snapshots are written, and the number that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Between two snapshots of a stage. One is always written at the end of a stage and on interruption.
    pub every: Duration,
    /// Number of the newest that are kept; the last of every stage is kept besides.
    pub keep: NonZeroUsize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every: Duration::Steps(500), keep: NonZeroUsize::new(3).expect("3 is not 0") }
    }
}
