//! Log lines and progress of a run while it goes on.
//!
//! [`Logging`] sends `tracing` events to the terminal and to files as `logging.ron` says, and follows edits
//! of that file while the run goes on. [`Progress`] draws bars on a terminal and writes plain lines
//! elsewhere. The metrics of a run are in [`crate::record`].

#![warn(missing_docs)]

mod config;
mod progress;
mod progress_line;
mod reload;
mod sink;
mod warnings;
mod watch;

use std::num::NonZeroU64;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{Format, Level, LoggingConfig, Sink};
pub use progress::{Bar, Progress};
pub use reload::Logging;
pub use warnings::Warnings;

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

/// Logging that cannot be set up, or changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file that cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// In words: "read", "open the log file".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `logging.ron` is not what [`LoggingConfig`] reads.
    #[error("{path}:{line}:{column}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// In words.
        reason: String,
    },
    /// A second subscriber in one process.
    #[error("logging was already set up in this process")]
    AlreadyStarted,
    /// A subscriber that is gone.
    #[error("the log subscriber cannot be changed: {0}")]
    Reload(String),
}
