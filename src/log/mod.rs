//! What a run says while it runs, and the files it leaves.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The lines of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Steps between two lines.
    pub every_steps: NonZeroU64,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        MetricsConfig { every_steps: NonZeroU64::new(10).expect("10 is not 0") }
    }
}
