//! The same measurement side by side at different stages.

use std::collections::BTreeSet;
use std::fmt;

use crate::record::EvaluationRow;

/// The subject of a measurement, whenever that was made. Two rows with the same subject measure the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    pub kind: &'a str,
    pub dataset: &'a str,
    pub task: &'a str,
}

impl<'a> Subject<'a> {
    /// The subject of a row.
    pub fn of(row: &'a EvaluationRow) -> Subject<'a> {
        Subject { kind: &row.kind, dataset: &row.dataset, task: &row.task }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.replace('_', " "), self.dataset)?;
        if !self.task.is_empty() && self.task != self.dataset {
            write!(f, " / {}", self.task)?;
        }
        Ok(())
    }
}

/// One metric of one subject at every stage that measured it.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison<'a> {
    pub subject: Subject<'a>,
    pub metric: &'a str,
    /// By the stages of [`stages`]; none where a stage did not measure it.
    pub values: Vec<Option<f64>>,
    /// Samples that counted, the last time.
    pub n: u64,
}

impl Comparison<'_> {
    /// Shares of 1 are shown as per cent; a loss is not one even when it is small.
    pub fn is_share(&self) -> bool {
        is_share(self.metric, self.values.iter().flatten().copied())
    }

    /// A value as text, with its unit.
    pub fn format(&self, value: f64) -> String {
        match self.is_share() {
            _ if !value.is_finite() => "not finite".into(),
            true => format!("{:.2} %", 100.0 * value),
            false if is_count(self.metric) && value.fract() == 0.0 => format!("{value:.0}"),
            false => format!("{value:.4}"),
        }
    }

    /// The last value less the first, in points or units, where there are two.
    pub fn change(&self) -> Option<String> {
        let mut there = self.values.iter().flatten();
        let (first, last) = (there.next()?, there.next_back()?);
        match self.is_share() {
            _ if !(last - first).is_finite() || is_setting(self.metric) => None,
            true => Some(format!("{:+.2}", 100.0 * (last - first))),
            false => Some(format!("{:+.4}", last - first)),
        }
    }
}

/// The rows of a table: of what was measured in the course of training only what no stage of evaluations
/// measured, the last time.
pub fn tabled(rows: &[EvaluationRow]) -> impl Iterator<Item = &EvaluationRow> {
    let proper = |row: &EvaluationRow| {
        rows.iter().any(|other| other.step == 0 && Subject::of(other) == Subject::of(row))
    };
    rows.iter().filter(move |row| row.step == 0 || !proper(row))
}

/// The stages that evaluated, in sequence.
pub fn stages(rows: &[EvaluationRow]) -> Vec<usize> {
    tabled(rows).map(|row| row.stage).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The main metric of a subject as it changes in the course of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory<'a> {
    pub subject: Subject<'a>,
    pub metric: &'a str,
    /// In the order of the run.
    pub points: Vec<(&'a EvaluationRow, f64)>,
}

impl Trajectory<'_> {
    /// Short enough for a chart; what was asked is in the tables.
    pub fn name(&self) -> String {
        let Subject { kind, dataset, .. } = self.subject;
        format!("{dataset}, {}: {}", kind.replace('_', " "), self.metric.replace('_', " "))
    }

    /// As [`Comparison::is_share`].
    pub fn is_share(&self) -> bool {
        is_share(self.metric, self.points.iter().map(|(_, value)| *value))
    }
}

/// The main metric of every subject, over all rows.
pub fn trajectories(rows: &[EvaluationRow]) -> Vec<Trajectory<'_>> {
    let mut trajectories: Vec<Trajectory<'_>> = Vec::new();
    for row in rows {
        let Some((metric, value)) = row.metrics.first() else { continue };
        match trajectories
            .iter_mut()
            .find(|known| known.subject == Subject::of(row) && known.metric == metric)
        {
            Some(known) => known.points.push((row, *value)),
            None => trajectories.push(Trajectory {
                subject: Subject::of(row),
                metric,
                points: vec![(row, *value)],
            }),
        }
    }
    for trajectory in &mut trajectories {
        trajectory.points.sort_by_key(|(row, _)| (row.stage, row.step));
    }
    trajectories
}

/// A loss is not a share even when it is small, and a strength of a penalty neither.
pub(super) fn is_share(metric: &str, mut values: impl Iterator<Item = f64>) -> bool {
    let other = metric.contains("loss") || is_count(metric);
    !other && values.all(|value| (0.0..=1.0).contains(&value))
}

/// True of a metric that does not change in the course of a run, such as chance.
pub(super) fn is_setting(metric: &str) -> bool {
    SETTINGS.contains(&metric)
}

/// True of a metric that is a number of something, or a setting.
pub(super) fn is_count(metric: &str) -> bool {
    COUNTS.contains(&metric)
}

/// Metrics that are numbers of something, or settings: 0 or 1 of them is no share.
const COUNTS: [&str; 9] =
    ["classes", "unlabelled", "captions", "batches", "k", "train_n", "draws", "iterations", "c"];

/// Metrics that do not change in the course of a run.
const SETTINGS: [&str; 7] = ["classes", "unlabelled", "captions", "k", "train_n", "draws", "chance"];

/// Every metric of every subject, in the order in which they first appear. Where a stage measured the same
/// twice, the later row counts.
pub fn comparisons(rows: &[EvaluationRow]) -> Vec<Comparison<'_>> {
    let stages = stages(rows);
    let mut comparisons: Vec<Comparison<'_>> = Vec::new();
    for row in tabled(rows) {
        for (metric, value) in &row.metrics {
            let column = stages.iter().position(|stage| *stage == row.stage);
            let same =
                |known: &&mut Comparison<'_>| known.subject == Subject::of(row) && known.metric == metric;
            let comparison = match comparisons.iter_mut().find(same) {
                Some(known) => known,
                None => {
                    // Beside the other metrics of its subject, also if an earlier stage did not have it.
                    let last = comparisons.iter().rposition(|known| known.subject == Subject::of(row));
                    let at = last.map_or(comparisons.len(), |last| last + 1);
                    let values = vec![None; stages.len()];
                    comparisons.insert(at, Comparison { subject: Subject::of(row), metric, values, n: 0 });
                    &mut comparisons[at]
                }
            };
            comparison.n = row.n;
            if let Some(column) = column {
                comparison.values[column] = Some(*value);
            }
        }
    }
    comparisons
}
