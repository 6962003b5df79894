//! Atomic, hashed snapshots of a run.
//!
//! A snapshot is a folder that is either whole or not there:
//!
//! ```text
//! checkpoints/stage0-step00000500/
//!   model.safetensors       f32, little-endian, sorted by name; one file a part
//!   optimizer.safetensors
//!   state.json              whatever the caller needs to continue
//!   manifest.json           format version, name, bytes and sha256 of every other file
//! ```
//!
//! It is written into a hidden sibling folder, every file is synced, and one rename makes it appear. A kill
//! at any moment leaves the former snapshots and at most a hidden folder, which [`prepare`] removes. The
//! same tensors and state give the same bytes: nothing in it depends on time or order of insertion.
//!
//! Values are stored bit for bit, non-finite ones included: whether a NaN may be saved is for the stage to
//! say, which knows the step that made it.

mod init;
mod manifest;
mod read;
mod retain;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::parameter::NamedTensor;

pub use init::{run_of, InitConfig};
pub use read::{newest, read};
pub use retain::{prepare, retain};
pub use write::{visit, write, write_files};

/// When snapshots are written and how many are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Between two snapshots of a stage. One is always written at the end of a stage and on interruption.
    pub every: Duration,
    /// How many of the newest are kept; the last of every stage is kept besides.
    pub keep: NonZeroUsize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every: Duration::Steps(500), keep: NonZeroUsize::new(3).expect("3 is not 0") }
    }
}

/// Where in a run a snapshot was taken. Snapshots are ordered by it, never by file times, which copying
/// changes. Written `stage0-step00000500`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of that stage that are done.
    pub step: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage{}-step{:08}", self.stage, self.step)
    }
}

impl FromStr for Name {
    type Err = ();

    /// Accepts exactly what `Display` writes, so that a folder has one name and a name one folder.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (stage, step) = text.strip_prefix("stage").and_then(|rest| rest.split_once("-step")).ok_or(())?;
        let name = Name { stage: stage.parse().map_err(drop)?, step: step.parse().map_err(drop)? };
        if name.to_string() == text {
            Ok(name)
        } else {
            Err(())
        }
    }
}

/// A tensor lent for writing.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Dotted path, unique within its part.
    pub name: &'a str,
    /// Logical shape; its product is `data.len()`.
    pub shape: &'a [usize],
    /// Row-major values.
    pub data: &'a [f32],
}

impl<'a> From<&'a NamedTensor> for TensorView<'a> {
    fn from(tensor: &'a NamedTensor) -> Self {
        TensorView { name: &tensor.name, shape: &tensor.shape, data: &tensor.data }
    }
}

/// What keeps values from being written.
pub type NoValues = Box<dyn std::error::Error + Send + Sync>;

/// Tensors of a part whose values are asked for one after the other, when they are written: they need not be in memory
/// together, nor on this machine.
pub struct TensorFile<'a> {
    /// File stem, for example `model`.
    pub stem: &'a str,
    /// Name and shape of each tensor, in any order.
    pub outline: Vec<(String, Vec<usize>)>,
    /// Shows the values of a tensor, by its place in the outline.
    pub show: Box<Show<'a>>,
}

/// See [`TensorFile::show`]; what it is given is called once.
pub type Show<'a> = dyn FnMut(usize, &mut dyn FnMut(&[f32])) -> Result<(), NoValues> + 'a;

impl fmt::Debug for TensorFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile")
            .field("stem", &self.stem)
            .field("outline", &self.outline)
            .finish_non_exhaustive()
    }
}

impl<'a> TensorFile<'a> {
    /// Of tensors that are in memory.
    fn lent(stem: &'a str, tensors: &'a [TensorView<'a>]) -> TensorFile<'a> {
        let outline = tensors.iter().map(|tensor| (tensor.name.to_string(), tensor.shape.to_vec())).collect();
        let show = move |index: usize, see: &mut dyn FnMut(&[f32])| {
            see(tensors[index].data);
            Ok(())
        };
        TensorFile { stem, outline, show: Box::new(show) }
    }

    /// Places in the outline, in the order of the file: by name, so that the same tensors give the same bytes.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.outline.len()).collect();
        order.sort_by_key(|&index| &self.outline[index].0);
        order
    }
}

/// A snapshot that was verified as a whole. Its tensors stay on disk until they are asked for.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its folder.
    pub path: PathBuf,
    pub name: Name,
    /// What the caller of [`write()`] gave.
    pub state: serde_json::Value,
    /// Tensors of each part, sorted by name.
    pub parts: BTreeMap<String, Vec<Stored>>,
}

/// A tensor in a file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    /// Its first byte in the file.
    at: u64,
}

impl Snapshot {
    /// The tensors of one part, or an error that lists the parts there are.
    pub fn outline(&self, part: &str) -> Result<&[Stored], CheckpointError> {
        match self.parts.get(part) {
            Some(tensors) => Ok(tensors),
            None => Err(CheckpointError::NoPart {
                path: self.path.clone(),
                part: part.to_string(),
                there: self.parts.keys().cloned().collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The tensors of one part with their values.
    pub fn part(&self, part: &str) -> Result<Vec<NamedTensor>, CheckpointError> {
        let load = |stored: &Stored| {
            let mut data = Vec::new();
            self.values(part, stored, &mut data)?;
            Ok(NamedTensor { name: stored.name.clone(), shape: stored.shape.clone(), data })
        };
        self.outline(part)?.iter().map(load).collect()
    }

    /// The state as the type it was written from.
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T, CheckpointError> {
        T::deserialize(&self.state)
            .map_err(|source| CheckpointError::Json { path: self.path.join(manifest::STATE), source })
    }
}

/// What [`newest`] came back with.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest whole snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Newer ones that are broken, newest first, and why. They are left as they are.
    pub refused: Vec<(PathBuf, CheckpointError)>,
}

/// Why a snapshot could not be written or is refused. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    /// A tensor that the format cannot hold; a mistake of the calling code.
    #[error("tensor {tensor} of {part} cannot be saved: {reason}")]
    Unsaveable { part: String, tensor: String, reason: String },
    #[error("{path} is missing: the snapshot was not copied as a whole")]
    Missing { path: PathBuf },
    #[error("{path} has {found} bytes where its manifest says {expected}: truncated or replaced")]
    Size { path: PathBuf, expected: u64, found: u64 },
    #[error("{path} does not hash to what its manifest says: damaged or edited")]
    Hash { path: PathBuf },
    #[error("{path} is not the JSON it should be: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} is of checkpoint format {found}, this program reads {}", manifest::VERSION)]
    Version { path: PathBuf, found: u64 },
    #[error("{path} is not a safetensors file of f32 tensors: {reason}")]
    Format { path: PathBuf, reason: String },
    #[error("{path} says it is {written}: the folder was renamed")]
    Renamed { path: PathBuf, written: String },
    #[error("{path} lists a file named {file:?}: only plain file names are read")]
    FileName { path: PathBuf, file: String },
    #[error("{path} has no part {part}, only: {there}")]
    NoPart { path: PathBuf, part: String, there: String },
}

impl CheckpointError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| CheckpointError::Io { action, path: path.to_path_buf(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_order_by_stage_then_step_and_have_one_spelling() {
        let name = Name { stage: 0, step: 500 };
        assert_eq!(name.to_string(), "stage0-step00000500");
        assert_eq!("stage0-step00000500".parse(), Ok(name));
        let long = Name { stage: 12, step: 123_456_789_012 };
        assert_eq!(long.to_string().parse(), Ok(long));
        assert!(Name { stage: 2, step: 0 } < Name { stage: 10, step: 0 });
        assert!(Name { stage: 0, step: 99_999_999 } < Name { stage: 0, step: 100_000_000 });
        for other in ["stage0-step500", "stage00-step00000500", "stage0-step+0000500", "stage0", "model", ""]
        {
            assert_eq!(other.parse::<Name>(), Err(()), "{other}");
        }
    }
}
