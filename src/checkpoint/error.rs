//! Errors of snapshots.

use std::path::{Path, PathBuf};

use super::manifest::VERSION;

/// A snapshot that could not be written, or is refused. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk, or permissions.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// In words: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A tensor that the format cannot hold; a mistake of the calling code.
    #[error("tensor {tensor} of {part} cannot be saved: {reason}")]
    Unsaveable {
        /// Stem of the file of tensors.
        part: String,
        /// Name of the tensor.
        tensor: String,
        /// In words.
        reason: String,
    },
    /// A file that its manifest lists, or the manifest.
    #[error("{path} is missing: the snapshot was not copied as a whole")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file of another length than its manifest says.
    #[error("{path} has {found} bytes where its manifest says {expected}: truncated or replaced")]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes, as the manifest has them.
        expected: u64,
        /// Found in their place.
        found: u64,
    },
    /// A file with other contents than its manifest says.
    #[error("{path} does not hash to what its manifest says: damaged or edited")]
    Hash {
        /// The file.
        path: PathBuf,
    },
    /// State or manifest.
    #[error("{path} is not the JSON it should be: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
    /// A snapshot of a later program.
    #[error("{path} is of checkpoint format {found}, this program reads {}", VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Found in their place.
        found: u64,
    },
    /// A file of tensors.
    #[error("{path} is not a safetensors file of f32 tensors: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// A folder with the name of another snapshot.
    #[error("{path} says it is {written}: the folder was renamed")]
    Renamed {
        /// The file.
        path: PathBuf,
        /// Name that the manifest has.
        written: String,
    },
    /// A manifest that leads out of its folder.
    #[error("{path} lists a file named {file:?}: only plain file names are read")]
    FileName {
        /// The file.
        path: PathBuf,
        /// Name of the file.
        file: String,
    },
    /// A file of tensors that the snapshot does not have.
    #[error("{path} has no part {part}, only: {there}")]
    NoPart {
        /// The file.
        path: PathBuf,
        /// Stem of the file of tensors.
        part: String,
        /// Those that there are.
        there: String,
    },
}

impl CheckpointError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| CheckpointError::Io { action, path: path.to_path_buf(), source }
    }
}
