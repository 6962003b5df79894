//! Errors of import and export. Every message names the file, and the field or the tensor.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::format::Format;
use crate::data::DataError;
use crate::parameter::Mismatch;

/// A field of a configuration that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path, for example `vision_cfg.ls_init_value`.
    pub field: String,
    /// Expected and found.
    pub problem: String,
}

/// An option of a model that another architecture does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Dotted path inside the model's configuration, for example `image.pool`.
    pub field: &'static str,
    /// Its value, and what the other architecture would need.
    pub why: String,
}

/// A checkpoint that cannot be imported or exported.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    NoCheckpoint { path: PathBuf, reason: String },
    #[error("{path} is not the JSON it should be: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path} cannot be expressed as a model of ours:\n{}", lines(.problems))]
    Config { path: PathBuf, problems: Vec<Problem> },
    /// A file that is broken as a whole.
    #[error("{path}: {reason}")]
    Broken { path: PathBuf, reason: String },
    #[error("{path}: these tensors do not fit its configuration:\n{mismatch}")]
    Tensors { path: PathBuf, mismatch: Mismatch },
    /// The same where the configuration of another tool lies there too.
    #[error(
        "{source}\n{other} lies there too: if the weights are those of {format}, say so with --from {flag}"
    )]
    OtherConfig { source: Box<ExchangeError>, other: &'static str, format: Format, flag: &'static str },
    /// One tensor that is broken.
    #[error("{path}: tensor {tensor}: {reason}")]
    Tensor { path: PathBuf, tensor: String, reason: String },
    #[error(
        "{path}: tensor {tensor}: element {index} is {value}; a usable checkpoint has finite values only"
    )]
    NotFinite { path: PathBuf, tensor: String, index: usize, value: f32 },
    #[error("{format} cannot express this model; in the way:\n{}", lines(.obstacles))]
    Inexpressible { format: Format, obstacles: Vec<Obstacle> },
    #[error("{0} checkpoints are read, not written; open_clip, transformers and ONNX are written")]
    ReadOnly(Format),
    #[error("{0} is written, not read; open_clip, transformers and FLIP checkpoints are read")]
    WriteOnly(Format),
    #[error(
        "the tokenizer has {tokens} tokens and the model {expected}; give the model's own with --tokenizer"
    )]
    OtherTokenizer { tokens: usize, expected: usize },
    #[error(transparent)]
    Tokenizer(#[from] DataError),
    #[error("{path} is there already; give the name of a new folder, or remove this one")]
    Occupied { path: PathBuf },
}

impl ExchangeError {
    pub(super) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| ExchangeError::Io { action, path: path.to_path_buf(), source }
    }

    pub(super) fn broken(path: &Path, reason: impl Into<String>) -> Self {
        ExchangeError::Broken { path: path.to_path_buf(), reason: reason.into() }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, reason: impl Into<String>) -> Self {
        ExchangeError::Tensor { path: path.to_path_buf(), tensor: tensor.into(), reason: reason.into() }
    }

    pub(super) fn config(path: &Path, problems: Vec<Problem>) -> Self {
        ExchangeError::Config { path: path.to_path_buf(), problems }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model.{}: {}", self.field, self.why)
    }
}

fn lines(items: &[impl fmt::Display]) -> String {
    items.iter().map(|item| format!("  {item}")).collect::<Vec<_>>().join("\n")
}
