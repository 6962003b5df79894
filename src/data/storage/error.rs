//! Why a file cannot be had.

use std::io;

use crate::data::storage::Location;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It is not there, and will not be a minute later.
    #[error("{location}: {detail}")]
    Absent { location: Location, detail: String },
    #[error("{location}: {source}")]
    Io { location: Location, source: io::Error },
    /// A server refuses it, or every attempt failed.
    #[error("{location}: {detail}")]
    Remote { location: Location, detail: String },
    /// It is longer than it may be.
    #[error("{location}: longer than {longest} bytes")]
    TooLong { location: Location, longest: u64 },
    /// It is another file than the one that the run read before.
    #[error(
        "{location}: it was changed while the run reads it: {detail}. Put it back as it was and resume, or start a \
         new run"
    )]
    Changed { location: Location, detail: String },
}
