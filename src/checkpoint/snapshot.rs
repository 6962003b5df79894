//! Snapshots that were read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::CheckpointError;
use super::manifest::STATE;
use super::name::Name;
use crate::parameter::NamedTensor;

/// A snapshot that was verified as a whole. Its tensors stay on disk until they are asked for.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its folder.
    pub path: PathBuf,
    /// Its name.
    pub name: Name,
    /// State, as the caller of [`write()`](super::write()) gave it.
    pub state: serde_json::Value,
    /// Tensors of each file by its stem, sorted by name.
    pub files: BTreeMap<String, Vec<Stored>>,
}

/// A tensor in a file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Dotted path.
    pub name: String,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    pub(super) at: u64,
}

impl Snapshot {
    /// The tensors of the file with this stem.
    ///
    /// # Errors
    /// There is none; the error lists those there are.
    pub fn outline(&self, stem: &str) -> Result<&[Stored], CheckpointError> {
        match self.files.get(stem) {
            Some(tensors) => Ok(tensors),
            None => Err(CheckpointError::NoPart {
                path: self.path.clone(),
                part: stem.to_string(),
                there: self.files.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The tensors of the file with this stem, with their values.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn tensors(&self, stem: &str) -> Result<Vec<NamedTensor>, CheckpointError> {
        let load = |stored: &Stored| {
            let mut data = Vec::new();
            self.values(stem, stored, &mut data)?;
            Ok(NamedTensor { name: stored.name.clone(), shape: stored.shape.clone(), data })
        };
        self.outline(stem)?.iter().map(load).collect()
    }

    /// The state as the type it was written from.
    ///
    /// # Errors
    /// It is of another type.
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T, CheckpointError> {
        T::deserialize(&self.state)
            .map_err(|source| CheckpointError::Json { path: self.path.join(STATE), source })
    }
}

/// Result of [`newest`](super::newest).
#[derive(Debug, Default)]
pub struct Found {
    /// The newest whole snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Newer ones that are broken, newest first, and why. They are left as they are.
    pub refused: Vec<(PathBuf, CheckpointError)>,
}
