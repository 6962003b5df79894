//! Where a run computes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The device of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum DeviceConfig {
    /// The first GPU where the binary was built with the feature `cuda` and a driver answers, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this ordinal.
    Cuda(usize),
}
