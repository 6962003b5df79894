//! When snapshots are written.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// When snapshots are written and how many are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Between two snapshots of a stage. One is always written at the end of a stage and on interruption.
    pub every: Duration,
    /// How many of the newest are kept; the last of every stage is kept besides.
    pub keep: NonZeroUsize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every: Duration::Steps(500), keep: NonZeroUsize::new(3).expect("3 is not 0") }
    }
}
