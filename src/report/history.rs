//! The lines of `metrics.jsonl` and `timing.jsonl` on one axis: of steps, of pairs seen, or of time.

use std::collections::BTreeMap;
use std::path::Path;

use super::ReportError;
use crate::record::{read_lines, EvaluationRow, RunPaths, StepMetrics, StepTiming};

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
    metrics: Vec<StepMetrics>,
    timing: Vec<StepTiming>,
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
        let paths = RunPaths::new(run_dir);
        let (metrics, timing) = (read_lines(&paths.metrics())?, read_lines(&paths.timing())?);
        let mut history = History { metrics, timing, ..History::default() };
        let metrics = history.metrics.iter().map(|row| (row.stage, row.step));
        let timing = history.timing.iter().map(|row| (row.stage, row.step));
        for (stage, step) in metrics.chain(timing) {
            let steps = history.steps.entry(stage).or_default();
            *steps = step.max(*steps);
        }
        history.measure();
        Ok(history)
    }

    /// Fills in what the other axes need.
    fn measure(&mut self) {
        for row in &self.metrics {
            self.samples.insert((row.stage, row.step), row.samples);
        }
        let mut step_ms = BTreeMap::new();
        for row in &self.timing {
            if row.step_ms.is_finite() {
                step_ms.insert((row.stage, row.step), row.step_ms);
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
    pub fn place(&self, row: &EvaluationRow, axis: Axis) -> f64 {
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
    pub fn metric(&self, field: impl Fn(&StepMetrics) -> f64, axis: Axis) -> Points {
        self.points(self.metrics.iter().map(|row| ((row.stage, row.step), field(row))), axis)
    }

    /// A field of `timing.jsonl`.
    pub fn timing(&self, field: impl Fn(&StepTiming) -> f64, axis: Axis) -> Points {
        self.points(self.timing.iter().map(|row| ((row.stage, row.step), field(row))), axis)
    }

    /// The last finite loss, nats.
    pub fn last_loss(&self) -> Option<f32> {
        self.metrics.iter().rev().map(|row| row.loss).find(|loss| loss.is_finite())
    }

    /// Pairs the run has seen.
    pub fn samples(&self) -> u64 {
        self.metrics.iter().map(|row| row.samples).max().unwrap_or(0)
    }

    fn points(&self, values: impl Iterator<Item = ((usize, u64), f64)>, axis: Axis) -> Points {
        // By step: steps that a resumed run did again are there twice, and the later row counts.
        let points: BTreeMap<(usize, u64), f64> = values.filter(|(_, value)| value.is_finite()).collect();
        points.into_iter().map(|(at, value)| (self.at(at, axis), value)).collect()
    }
}
