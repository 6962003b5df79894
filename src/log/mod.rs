//! What a run says while it runs, and the files it leaves.
//!
//! [`Logging`] sends `tracing` events to the terminal and to files as `logging.ron` says, and follows edits
//! of that file while the run goes on. [`Progress`] draws bars on a terminal and writes plain lines
//! elsewhere. [`Metrics`] and [`Timing`] are the run folder's `metrics.jsonl` and `timing.jsonl`.

mod config;
mod metrics;
mod progress;
mod reload;
mod sink;
mod watch;

use std::num::NonZeroU64;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{Format, Level, LoggingConfig, Sink};
pub use metrics::{JsonLines, Metrics, StepMetrics, StepTiming, Timing};
pub use progress::{Bar, Progress};
pub use reload::Logging;

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

/// What can go wrong with logging and with the metrics files.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// `logging.ron` is not what [`LoggingConfig`] reads.
    #[error("{path}:{line}:{column}: {reason}")]
    Config { path: PathBuf, line: usize, column: usize, reason: String },
    #[error("logging was already set up in this process")]
    AlreadyStarted,
    #[error("the log subscriber cannot be changed: {0}")]
    Reload(String),
    /// A resumed run cannot continue a file that lost or changed what was written before.
    #[error(
        "{path} does not have a line end at byte {expected}, where the checkpoint continues it (it has {found} \
         bytes): put the original back, or start in a new run folder"
    )]
    NotContinued { path: PathBuf, expected: u64, found: u64 },
}
