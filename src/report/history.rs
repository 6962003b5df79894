//! The lines of `metrics.jsonl` and `timing.jsonl` on one axis: of steps, of pairs seen, or of time.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::evaluation::EvalRow;
use super::{read_if_there, ReportError};

/// Points of a curve: (where in the run, value), finite only.
pub type Points = Vec<(f64, f64)>;

/// What a curve runs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Updates since the run began.
    Steps,
    /// Pairs that the run has seen.
    Samples,
    /// Minutes of training, without evaluations and checkpoints, and without what was lost to a kill.
    Minutes,
}

/// What a run has logged so far.
#[derive(Debug, Default)]
pub struct History {
    metrics: Vec<Value>,
    timing: Vec<Value>,
    /// By stage: the steps logged of it.
    steps: BTreeMap<usize, u64>,
    /// By stage and step: pairs seen.
    samples: BTreeMap<(usize, u64), u64>,
    /// By stage and step: minutes of training since the run began.
    minutes: BTreeMap<(usize, u64), f64>,
}

impl History {
    /// Reads the files of a run folder. Absent files are empty, and a line that is no JSON, such as one that
    /// is just being written, is left out.
    pub fn read(run_dir: &Path) -> Result<Self, ReportError> {
        let rows = |name: &str| -> Result<Vec<Value>, ReportError> {
            let text = read_if_there(&run_dir.join(name))?.unwrap_or_default();
            Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        };
        let mut history =
            History { metrics: rows("metrics.jsonl")?, timing: rows("timing.jsonl")?, ..History::default() };
        for row in history.metrics.iter().chain(&history.timing) {
            if let Some((stage, step)) = place(row) {
                let steps = history.steps.entry(stage).or_default();
                *steps = step.max(*steps);
            }
        }
        history.measure();
        Ok(history)
    }

    /// Fills in what the other axes need.
    fn measure(&mut self) {
        for row in &self.metrics {
            if let (Some(at), Some(samples)) = (place(row), row["samples"].as_u64()) {
                self.samples.insert(at, samples);
            }
        }
        let mut step_ms = BTreeMap::new();
        for row in &self.timing {
            if let (Some(at), Some(ms)) = (place(row), row["step_ms"].as_f64()) {
                step_ms.insert(at, ms);
            }
        }
        let (mut minutes, mut before) = (0.0, (0, 0));
        for ((stage, step), ms) in step_ms {
            let from = if stage == before.0 { before.1 } else { 0 };
            minutes += (step - from) as f64 * ms / 60e3;
            self.minutes.insert((stage, step), minutes);
            before = (stage, step);
        }
    }

    /// Where on an axis a step of a stage is; step 0 is the end of all stages before.
    fn at(&self, (stage, step): (usize, u64), axis: Axis) -> f64 {
        let until = ..=(stage, step);
        match axis {
            Axis::Steps => self.begin(stage) + step as f64,
            Axis::Samples => {
                self.samples.range(until).next_back().map_or(0.0, |(_, samples)| *samples as f64)
            }
            Axis::Minutes => self.minutes_at(stage, step),
        }
    }

    /// Between two lines of the log, training went on evenly.
    fn minutes_at(&self, stage: usize, step: u64) -> f64 {
        let before = self.minutes.range(..=(stage, step)).next_back();
        let after = self.minutes.range((stage, step)..).next().filter(|((other, _), _)| *other == stage);
        let (from, minutes) = match before {
            Some((&(other, from), minutes)) => (if other == stage { from } else { 0 }, *minutes),
            None => (0, 0.0),
        };
        match after {
            Some((&(_, to), then)) if to > from => {
                minutes + (then - minutes) * (step - from) as f64 / (to - from) as f64
            }
            _ => minutes,
        }
    }

    /// Steps that were logged of a stage.
    pub fn steps_of(&self, stage: usize) -> u64 {
        self.steps.get(&stage).copied().unwrap_or(0)
    }

    /// Where on an axis an evaluation was made.
    pub fn place(&self, row: &EvalRow, axis: Axis) -> f64 {
        match axis {
            Axis::Samples if row.samples > 0 => row.samples as f64,
            _ => self.at((row.stage, row.step), axis),
        }
    }

    /// Minutes of training in all.
    pub fn minutes(&self) -> f64 {
        self.minutes.values().next_back().copied().unwrap_or(0.0)
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
    pub fn metric(&self, field: &str, axis: Axis) -> Points {
        self.points(&self.metrics, field, axis)
    }

    /// A field of `timing.jsonl`.
    pub fn timing(&self, field: &str, axis: Axis) -> Points {
        self.points(&self.timing, field, axis)
    }

    /// The last value of a field of `metrics.jsonl`.
    pub fn last(&self, field: &str) -> Option<f64> {
        self.metrics.iter().rev().find_map(|row| row[field].as_f64())
    }

    /// Pairs the run has seen.
    pub fn samples(&self) -> u64 {
        self.metrics.iter().filter_map(|row| row["samples"].as_u64()).max().unwrap_or(0)
    }

    fn points(&self, rows: &[Value], field: &str, axis: Axis) -> Points {
        // By step: steps that a resumed run did again are there twice, and the later line counts.
        let mut points = BTreeMap::new();
        for row in rows {
            let (Some((stage, step)), Some(value)) = (place(row), row[field].as_f64()) else { continue };
            if value.is_finite() {
                points.insert((stage, step), value);
            }
        }
        points.into_iter().map(|(at, value)| (self.at(at, axis), value)).collect()
    }
}

fn place(row: &Value) -> Option<(usize, u64)> {
    Some((usize::try_from(row["stage"].as_u64()?).ok()?, row["step"].as_u64()?))
}
