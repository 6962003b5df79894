//! Fields of a recipe that were changed while its run went on: `amendments.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read_if_there, RecordError};

/// A field that was given another value, and where the run stood then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Amendment {
    /// As it was asked for, `PATH=VALUE`.
    pub set: String,
    /// Path of the field: `stages[0].schedule.lr`.
    pub field: String,
    /// Value before.
    pub old: String,
    /// Value from there on.
    pub new: String,
    /// UTC, RFC 3339.
    pub when: String,
    /// Stage of the checkpoint that the run went on from: from there on the new value holds.
    pub stage: usize,
    /// Step of that checkpoint.
    pub step: u64,
    /// Pairs seen up to there.
    pub samples: u64,
}

impl Amendment {
    /// Those of a run, in order; none where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read_all(path: &Path) -> Result<Vec<Amendment>, RecordError> {
        let Some(text) = read_if_there(path)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&text).map_err(|source| RecordError::Content {
            path: path.to_path_buf(),
            expected: "list of amendments that a run writes",
            advice: "Put the original back",
            source,
        })
    }
}
