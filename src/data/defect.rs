//! Defects of samples, and their consequences for the run.

use crate::data::storage::StorageError;
use crate::data::DataError;

/// A sample that was left out, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// The reason that is counted: `image_decode`, `caption_missing`, `shard_truncated`, ...
    pub reason: &'static str,
    /// Shard and key, for messages.
    pub sample: String,
    /// The cause, in words.
    pub detail: String,
}

/// A defect of a sample, before it is known which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// The reason that is counted.
    pub reason: &'static str,
    /// The cause, in words.
    pub detail: String,
}

impl Defect {
    /// A defect for this reason; `detail` says the cause in words.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Defect { reason, detail: detail.into() }
    }

    /// The defect of this sample.
    pub fn of(self, sample: impl Into<String>) -> Skip {
        Skip { reason: self.reason, sample: sample.into(), detail: self.detail }
    }
}

/// A failure to load a sample.
#[derive(Debug)]
pub enum LoadError {
    /// It is broken, or its shard is: it is left out and counted.
    Skip(Skip),
    /// The machine or the network failed, or the file is another one by now: that ends the run.
    Failed(DataError),
}

impl LoadError {
    /// The broken sample.
    pub fn skip(self) -> Option<Skip> {
        match self {
            LoadError::Skip(skip) => Some(skip),
            LoadError::Failed(_) => None,
        }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Skip(skip) => write!(f, "{}: {}", skip.sample, skip.detail),
            LoadError::Failed(error) => error.fmt(f),
        }
    }
}

impl From<Skip> for LoadError {
    fn from(skip: Skip) -> Self {
        LoadError::Skip(skip)
    }
}

impl From<DataError> for LoadError {
    fn from(error: DataError) -> Self {
        LoadError::Failed(error)
    }
}

/// The same before it is known which sample it is.
#[derive(Debug)]
pub(crate) enum Cause {
    Defect(Defect),
    Failed(DataError),
}

impl Cause {
    /// That of a sample of this name.
    pub fn of(self, sample: impl FnOnce() -> String) -> LoadError {
        match self {
            Cause::Defect(defect) => LoadError::Skip(defect.of(sample())),
            Cause::Failed(error) => LoadError::Failed(error),
        }
    }
}

impl From<Defect> for Cause {
    fn from(defect: Defect) -> Self {
        Cause::Defect(defect)
    }
}

impl From<DataError> for Cause {
    fn from(error: DataError) -> Self {
        Cause::Failed(error)
    }
}

impl From<StorageError> for Cause {
    fn from(error: StorageError) -> Self {
        Cause::Failed(error.into())
    }
}
