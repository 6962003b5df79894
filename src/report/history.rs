//! The lines of `metrics.jsonl` and `timing.jsonl` on one axis: of steps, of pairs seen, or of time.

use std::collections::BTreeMap;
use std::path::Path;

use super::words::rate;
use super::ReportError;
use crate::record::{read_lines, EvaluationRow, RunPaths, StepMetrics, StepTiming};

/// Points of a curve: (where in the run, value), finite only.
pub type Points = Vec<(f64, f64)>;

/// Horizontal axis of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Updates since the run began.
    Steps,
    /// Pairs that the run has seen.
    Samples,
    /// Minutes of training, without evaluations and checkpoints, and without what was lost to a kill.
    Minutes,
}

/// Lines that a run has logged so far.
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

    /// Fills in pairs and minutes by step.
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

    /// Place of a step of a stage on an axis; step 0 is the end of all stages before.
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

    /// Place of an evaluation on an axis.
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

    /// The stage whose speed differs most between its lines, where that is more than training itself explains: another
    /// program was busy on the machine, or data came late. Neither then tells how fast the run can be.
    pub fn swing(&self) -> Option<Swing> {
        let mut speeds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for row in self.timing.iter().filter(|row| row.images_per_s.is_finite() && row.images_per_s > 0.0) {
            speeds.entry(row.stage).or_default().push(row.images_per_s);
        }
        let of_stage = |mut speeds: Vec<f64>| {
            speeds.sort_by(f64::total_cmp);
            // Without the tenth at each end: a first step is always slow.
            let (slow, fast) = (speeds.len() / 10, speeds.len() - 1 - speeds.len() / 10);
            Swing { slow: speeds[slow], fast: speeds[fast] }
        };
        let swings = speeds.into_values().filter(|speeds| speeds.len() >= FEWEST_LINES).map(of_stage);
        let widest = swings.max_by(|one, other| one.ratio().total_cmp(&other.ratio()))?;
        (widest.ratio() > STEADY).then_some(widest)
    }

    fn points(&self, values: impl Iterator<Item = ((usize, u64), f64)>, axis: Axis) -> Points {
        // By step: steps that a resumed run did again are there twice, and the later row counts.
        let points: BTreeMap<(usize, u64), f64> = values.filter(|(_, value)| value.is_finite()).collect();
        points.into_iter().map(|(at, value)| (self.at(at, axis), value)).collect()
    }
}

/// Lines of a stage from which on its speed is judged.
const FEWEST_LINES: usize = 10;
/// Ratio of fast and slow lines up to which a speed is steady.
const STEADY: f64 = 1.5;

/// Images a second of slow and of fast lines of one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Swing {
    /// The tenth of lines that is slowest ends here.
    pub slow: f64,
    /// The tenth that is fastest begins here.
    pub fast: f64,
}

impl Swing {
    fn ratio(&self) -> f64 {
        self.fast / self.slow
    }

    /// A sentence of warning.
    pub fn told(&self) -> String {
        let (slow, fast) = (rate(self.slow), rate(self.fast));
        format!(
            "The speed swung between {slow} and {fast} images a second: the machine was busy with something else, or data \
             came late. Times of this run say little about how fast it can be."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_that_swings_is_told_and_a_slow_beginning_is_not() {
        let history = |speeds: &[f64]| {
            let line = |(step, speed): (usize, &f64)| StepTiming {
                stage: 0,
                step: step as u64,
                images_per_s: *speed,
                data_wait: 0.0,
                step_ms: 1.0,
                elapsed_s: 0.0,
                ranks: Vec::new(),
            };
            History { timing: speeds.iter().enumerate().map(line).collect(), ..History::default() }
        };
        let mut steady = vec![100.0; 20];
        steady[0] = 1.0;
        assert_eq!(history(&steady).swing(), None);
        steady[4..12].fill(40.0);
        let swing = history(&steady).swing().unwrap();
        assert_eq!(swing, Swing { slow: 40.0, fast: 100.0 });
        assert!(swing.told().contains("between 40 and 100 images"));
        assert_eq!(history(&[1.0, 5.0]).swing(), None);
        assert_eq!(history(&[0.0; 20]).swing(), None);
    }
}
