//! The lines of `metrics.jsonl` and `timing.jsonl` on one axis of steps.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{read_if_there, ReportError};

/// Points of a curve: (steps since the run began, value), finite only.
pub type Points = Vec<(f64, f64)>;

/// What a run has logged so far.
#[derive(Debug, Default)]
pub struct History {
    metrics: Vec<Value>,
    timing: Vec<Value>,
    /// By stage: the steps logged of it.
    steps: BTreeMap<usize, u64>,
}

impl History {
    /// Reads the files of a run folder. Absent files are empty, and a line that is no JSON, such as one that
    /// is just being written, is left out.
    pub fn read(run_dir: &Path) -> Result<Self, ReportError> {
        let rows = |name: &str| -> Result<Vec<Value>, ReportError> {
            let text = read_if_there(&run_dir.join(name))?.unwrap_or_default();
            Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        };
        let mut history = History {
            metrics: rows("metrics.jsonl")?,
            timing: rows("timing.jsonl")?,
            steps: BTreeMap::new(),
        };
        for row in history.metrics.iter().chain(&history.timing) {
            if let Some((stage, step)) = place(row) {
                let steps = history.steps.entry(stage).or_default();
                *steps = step.max(*steps);
            }
        }
        Ok(history)
    }

    /// Steps that all stages before this one took. Steps are counted from 0 in every stage.
    pub fn begin(&self, stage: usize) -> f64 {
        self.steps.range(..stage).map(|(_, steps)| *steps as f64).sum()
    }

    /// The stages that took steps, in sequence.
    pub fn stages(&self) -> impl Iterator<Item = usize> + '_ {
        self.steps.keys().copied()
    }

    /// A field of `metrics.jsonl`.
    pub fn metric(&self, field: &str) -> Points {
        self.points(&self.metrics, field)
    }

    /// A field of `timing.jsonl`.
    pub fn timing(&self, field: &str) -> Points {
        self.points(&self.timing, field)
    }

    /// The last value of a field of `metrics.jsonl`.
    pub fn last(&self, field: &str) -> Option<f64> {
        self.metrics.iter().rev().find_map(|row| row[field].as_f64())
    }

    /// Pairs the run has seen.
    pub fn samples(&self) -> u64 {
        self.metrics.iter().filter_map(|row| row["samples"].as_u64()).max().unwrap_or(0)
    }

    fn points(&self, rows: &[Value], field: &str) -> Points {
        // By step: steps that a resumed run did again are there twice, and the later line counts.
        let mut points = BTreeMap::new();
        for row in rows {
            let (Some((stage, step)), Some(value)) = (place(row), row[field].as_f64()) else { continue };
            if value.is_finite() {
                points.insert((stage, step), value);
            }
        }
        points.into_iter().map(|((stage, step), value)| (self.begin(stage) + step as f64, value)).collect()
    }
}

fn place(row: &Value) -> Option<(usize, u64)> {
    Some((usize::try_from(row["stage"].as_u64()?).ok()?, row["step"].as_u64()?))
}
