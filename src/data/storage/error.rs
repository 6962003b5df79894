//! Failures to get a file.

use std::io;

use crate::data::storage::Location;

/// A failure to get a file.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It is not there, and will not be a minute later.
    #[error("{location}: {detail}")]
    Absent {
        /// The file.
        location: Location,
        /// The cause, in words.
        detail: String,
    },
    /// The machine cannot open or read it.
    #[error("{location}: {source}")]
    Io {
        /// The file.
        location: Location,
        /// The answer of the system.
        source: io::Error,
    },
    /// A server refuses it, or every attempt failed.
    #[error("{location}: {detail}")]
    Remote {
        /// The file.
        location: Location,
        /// The cause, in words.
        detail: String,
    },
    /// It is longer than it may be.
    #[error("{location}: longer than {longest} bytes")]
    TooLong {
        /// The file.
        location: Location,
        /// Most bytes that it may have.
        longest: u64,
    },
    /// It is another file than the one that the run read before.
    #[error(
        "{location}: it was changed while the run reads it: {detail}. Put it back as it was and resume, or start a \
         new run"
    )]
    Changed {
        /// The file.
        location: Location,
        /// The cause, in words.
        detail: String,
    },
}
