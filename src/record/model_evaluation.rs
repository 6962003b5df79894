//! The file of `flip evaluate`: what a model reaches on data sets.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Evaluation, RecordError};
use crate::whole_file;

/// Results of a model on data sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEvaluation {
    /// The model, as it was named.
    pub model: String,
    /// The checkpoint that its weights are from.
    pub checkpoint: String,
    /// SHA-256 of architecture, parameters and tokenizer.
    pub model_hash: String,
    /// `flip 0.1.0`.
    pub version: String,
    /// What was measured, in order.
    pub results: Vec<Measured>,
    /// What could not be measured.
    pub failed: Vec<Failed>,
    /// Known data sets that are not there.
    pub missing: Vec<MissingSet>,
}

/// One measurement, with the number that papers report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The metric that counts for this data set.
    pub metric: String,
    /// Its value; null where it is not a number.
    #[serde(deserialize_with = "super::number::or_nan")]
    pub value: f64,
    /// What guessing reaches by that metric, where that is known.
    pub chance: Option<f64>,
    /// Time that it took, seconds.
    pub seconds: f64,
    /// True if no image had to be embedded.
    pub cached: bool,
    /// Samples that were left out, in words; empty where none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub left_out: String,
    /// Where the data lies.
    pub data: String,
    /// All metrics, classes and confusions.
    #[serde(flatten)]
    pub evaluation: Evaluation,
}

/// A measurement that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Kind of evaluator.
    pub kind: String,
    /// Name of the data set.
    pub dataset: String,
    /// The reason, in words.
    pub reason: String,
}

/// A known data set that was not found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingSet {
    /// As CLIP_benchmark calls it.
    pub dataset: String,
    /// As papers call it.
    pub title: String,
    /// Where it is to be had.
    pub how_to_get: String,
}

impl ModelEvaluation {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or something else is in it.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let bytes = std::fs::read(path).map_err(RecordError::io("read", path))?;
        serde_json::from_slice(&bytes).map_err(|source| content(path, source))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|source| content(path, source))?;
        text.push(b'\n');
        whole_file::replace(path, &text).map_err(RecordError::io("write", path))
    }
}

fn content(path: &Path, source: serde_json::Error) -> RecordError {
    RecordError::Content {
        path: path.into(),
        expected: "results of `flip evaluate`",
        advice: "Evaluate again",
        source,
    }
}
