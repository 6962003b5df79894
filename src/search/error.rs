//! Searches that cannot be made.

use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::embeddings::EmbeddingsError;
use crate::trained::TrainedError;

/// A search that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// An index that is not the one that is asked for; the message says what to do.
    #[error("{path}: {detail}")]
    Refused {
        /// The index.
        path: PathBuf,
        /// In words.
        detail: String,
    },
    /// The disk refuses.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// In words: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer of the system.
        source: std::io::Error,
    },
    /// The images cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Embeddings that wait for their index.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    /// The model fails.
    #[error(transparent)]
    Model(#[from] TrainedError),
    /// The system refuses threads.
    #[error("{0}")]
    Threads(String),
    /// Names of rows that are no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl SearchError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| SearchError::Io { action, path: path.into(), source }
    }

    pub(super) fn refused(path: &Path, detail: impl Into<String>) -> Self {
        SearchError::Refused { path: path.into(), detail: detail.into() }
    }
}
