//! Failures of a whole source.

use std::path::PathBuf;

use crate::data::storage::StorageError;

/// A failure of a whole source (a single broken sample is a [`super::Skip`]).
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A pattern matches no shard.
    #[error("{pattern} matches no shard; check the path, or quote the braces if a shell expanded them")]
    NoShards {
        /// The pattern as written.
        pattern: String,
    },
    /// A file of this machine cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// A file cannot be fetched or opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A whole pass had no sample that could be used.
    #[error("no usable sample in a whole pass over {source_name}: {skipped}")]
    NothingUsable {
        /// The source.
        source_name: String,
        /// Reasons, counted.
        skipped: String,
    },
    /// More samples are broken than `data.limits.broken_share` allows.
    #[error(
        "{source_name}: {broken} of the first {of} samples are broken, more than the share of {limit} that \
         data.limits.broken_share allows: {skipped}. Look at them with `flip data inspect`, or raise the limit"
    )]
    TooManyBroken {
        /// The source.
        source_name: String,
        /// Broken samples.
        broken: u64,
        /// Samples so far.
        of: u64,
        /// The share that is allowed.
        limit: f64,
        /// Reasons, counted.
        skipped: String,
    },
    /// The source made no progress within the stall timeout.
    #[error(
        "{source_name}: nothing from {what} for {seconds:.1} s, which is data.storage.stall_limit_s; the storage \
         is stalled. Resume when it answers again"
    )]
    Stalled {
        /// The source.
        source_name: String,
        /// The file or the work that is waited for.
        what: String,
        /// Time without progress.
        seconds: f64,
    },
    /// Shards that are not those of an index, or of the other ranks.
    #[error("{0}")]
    OtherData(String),
    /// A tokenizer cannot be read, trained or used.
    #[error("{0}")]
    Tokenizer(String),
    /// Anything else: the message names the cause and what was expected.
    #[error("{0}")]
    Invalid(String),
}
