//! Lengths of stages that were resolved to steps when the stages began: `lengths.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{read_if_there, RecordError, RunFolder};

/// The steps of a stage whose length is a budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResolvedLength {
    /// Index of the stage.
    pub stage: usize,
    /// The budget, as the recipe has it: `Hours(2.0)`.
    pub length: String,
    /// Steps that it is: those that the stage has, wherever it is resumed.
    pub steps: u64,
    /// Seconds that a step took when the stage began; of a budget of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_step: Option<f64>,
    /// Floating-point operations of a step; of a budget of work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flop_per_step: Option<f64>,
}

impl ResolvedLength {
    /// Those of a run, by stage; none where there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read_all(path: &Path) -> Result<Vec<ResolvedLength>, RecordError> {
        let Some(text) = read_if_there(path)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&text).map_err(|source| content(path, source))
    }

    /// Adds it to those of a run, in the place of one of the same stage.
    ///
    /// # Errors
    /// The folder was moved, or cannot be read or written.
    pub fn record(self, folder: &RunFolder) -> Result<(), RecordError> {
        let path = folder.lengths();
        let mut all = ResolvedLength::read_all(&path)?;
        all.retain(|other| other.stage != self.stage);
        all.push(self);
        all.sort_by_key(|length| length.stage);
        let mut text = serde_json::to_vec_pretty(&all).map_err(|source| content(&path, source))?;
        text.push(b'\n');
        Ok(folder.replace(&path, &text)?)
    }
}

fn content(path: &Path, source: serde_json::Error) -> RecordError {
    RecordError::Content {
        path: path.to_path_buf(),
        expected: "list of lengths that a run writes",
        advice: "Put the original back: it says how many steps the stages have",
        source,
    }
}
