//! Errors of evaluations.

use std::path::PathBuf;

use crate::data::DataError;

/// Any error of the code that embeds.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An evaluation without a result.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("embedding {what}: {source}")]
    Embed { what: &'static str, source: BoxError },
    #[error("embedding {what}: expected {rows} rows of {dim} numbers, got {got} numbers")]
    Shape { what: &'static str, rows: usize, dim: usize, got: usize },
    #[error("embedding {what}: the embedding of {which} is not finite; the model has diverged")]
    NotFinite { what: &'static str, which: String },
    #[error("{path}: {detail}")]
    ClassFile { path: PathBuf, detail: String },
    #[error("classes: {0}")]
    Classes(String),
    #[error("sample {key}: label {label} is none of the {classes} classes; expected {expected}")]
    Label { key: String, label: i64, classes: usize, expected: String },
    #[error("evaluation \"{name}\": {detail}")]
    NothingToMeasure { name: String, detail: String },
    #[error("evaluators cannot compute here: {0}")]
    Kernel(String),
    /// A mistake of the calling code.
    #[error("evaluation \"{name}\" learns from data, but was given none")]
    NoTrainingData { name: String },
}
