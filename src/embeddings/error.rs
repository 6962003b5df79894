//! Files of embeddings that cannot be written or gone on with.

use std::io;
use std::path::{Path, PathBuf};

/// A file of embeddings that cannot be written or gone on with.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// What was asked for does not fit what is there; the message says what to do.
    #[error("{0}")]
    Refused(String),
    /// The disk refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
    /// A name that is no JSON string.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The Parquet library refuses.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
}

/// Names the file in an error of the system.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> EmbeddingsError + '_ {
    move |source| EmbeddingsError::Io { path: path.into(), source }
}
