//! Failures of a whole source.

use std::path::PathBuf;

use crate::data::storage::StorageError;

/// What can go wrong with a whole source (a single broken sample is a [`super::Skip`]).
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{pattern} matches no shard; check the path, or quote the braces if a shell expanded them")]
    NoShards { pattern: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("no usable sample in a whole pass over {source_name}: {skipped}")]
    NothingUsable { source_name: String, skipped: String },
    #[error(
        "{source_name}: {broken} of the first {of} samples are broken, more than the share of {limit} that \
         data.limits.broken_share allows: {skipped}. Look at them with `flip data inspect`, or raise the limit"
    )]
    TooManyBroken { source_name: String, broken: u64, of: u64, limit: f64, skipped: String },
    #[error(
        "{source_name}: nothing from {what} for {seconds:.1} s, which is data.storage.stall_limit_s; the storage \
         is stalled. Resume when it answers again"
    )]
    Stalled { source_name: String, what: String, seconds: f64 },
    #[error("{0}")]
    Tokenizer(String),
    #[error("{0}")]
    Invalid(String),
}
