//! Many settings of one recipe, compared: the curves of each over training time, compute and pairs seen, seeds as
//! bands, and how much sooner each reaches what the baseline ends with.
//!
//! Everything is read from the folders of the runs, so charts and tables can be made again at any time, and of the
//! same folders they are the same bytes.

mod charts;
mod files;
mod page;
mod series;
mod summary;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use super::evaluation::{is_count, is_share, trajectories, Subject};
use super::history::{Axis, History, Swing};
use super::ReportError;
use crate::record::{EvaluationRow, RunPaths};
use crate::whole_file;

pub use summary::{Reached, Spread, Summary};

/// A sweep as its run folders tell it.
#[derive(Debug)]
pub struct Sweep {
    pub name: String,
    /// Claim that it is to show, in words.
    pub claim: Option<String>,
    /// In the order of the grid.
    pub settings: Vec<Setting>,
    /// Index of the setting that the others are compared with.
    pub baseline: usize,
    /// The measurement to draw; where none is asked for, the first that is a share.
    pub wanted: Option<Wanted>,
    /// The study, as text.
    pub study: String,
}

/// A metric of an evaluation, as `eval.json` spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub evaluation: String,
    pub kind: Option<String>,
    pub metric: Option<String>,
}

/// The runs of one setting.
#[derive(Debug)]
pub struct Setting {
    pub name: String,
    /// Runs that it is to have.
    pub planned: usize,
    /// Those that were begun, by seed.
    pub cells: Vec<Cell>,
}

/// State of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    Unfinished,
    /// Reason why it stopped.
    Failed(String),
}

/// One run, with its measurements.
#[derive(Debug)]
pub struct Cell {
    pub seed: u64,
    /// Its folder, relative to that of the sweep.
    pub folder: String,
    pub outcome: Outcome,
    /// Every evaluation, in the order of the run.
    pub measured: Vec<Measured>,
    /// Cost of its training in all.
    pub spent: Spent,
    /// Swing of its speed, where that is more than training explains.
    pub swing: Option<Swing>,
}

/// An evaluation and the cost of training until then.
#[derive(Debug, Clone)]
pub struct Measured {
    pub row: EvaluationRow,
    pub spent: Spent,
}

/// Cost of training from the beginning of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spent {
    /// Seconds of training: its steps with the wait for their data, without evaluations, checkpoints, the start of
    /// the process, and whatever lies between a kill and the resumption.
    pub train_s: f64,
    /// Floating-point operations of the matrix products of training.
    pub flops: f64,
    /// Pairs seen.
    pub samples: f64,
}

/// Horizontal axis of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    Time,
    Flops,
    Samples,
}

impl Along {
    /// All axes, in the order of tables.
    pub const ALL: [Along; 3] = [Along::Time, Along::Flops, Along::Samples];
}

impl Spent {
    /// The cost along an axis.
    pub fn along(&self, axis: Along) -> f64 {
        match axis {
            Along::Time => self.train_s,
            Along::Flops => self.flops,
            Along::Samples => self.samples,
        }
    }
}

impl Cell {
    /// Reads the run in `folder`, called `link` in pages. `flops_per_step` are the operations of a step of each stage,
    /// which the recipe tells, and that is above this room.
    ///
    /// # Errors
    /// A file of the run cannot be read.
    pub fn read(
        seed: u64,
        folder: &Path,
        link: String,
        outcome: Outcome,
        flops_per_step: &[f64],
    ) -> Result<Self, ReportError> {
        let history = History::read(folder)?;
        let rows = EvaluationRow::read_all(&RunPaths::new(folder).evaluations())?;
        let of_stage = |stage: usize| flops_per_step.get(stage).copied().unwrap_or(0.0);
        let flops = |stage: usize, step: u64| -> f64 {
            let before = |earlier: usize| history.steps_of(earlier) as f64 * of_stage(earlier);
            (0..stage).map(before).sum::<f64>() + step as f64 * of_stage(stage)
        };
        let mut measured: Vec<Measured> = rows
            .into_iter()
            .map(|row| {
                let spent = Spent {
                    train_s: 60.0 * history.place(&row, Axis::Minutes),
                    flops: flops(row.stage, row.step),
                    samples: history.place(&row, Axis::Samples),
                };
                Measured { row, spent }
            })
            .collect();
        measured.sort_by_key(|measured| (measured.row.stage, measured.row.step));
        let last = history.stages().last().unwrap_or(0);
        let spent = Spent {
            train_s: 60.0 * history.minutes(),
            flops: flops(last, history.steps_of(last)),
            samples: history.samples() as f64,
        };
        Ok(Cell { seed, folder: link, outcome, measured, spent, swing: history.swing() })
    }

    /// True of a run that came to its end.
    pub fn finished(&self) -> bool {
        self.outcome == Outcome::Finished
    }
}

impl Setting {
    /// The runs that came to their end.
    pub fn finished(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.finished())
    }
}

/// The measurement that is drawn, found.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    pub kind: String,
    pub dataset: String,
    /// Task, where one run measures several under the same name; else every task is this one.
    pub task: Option<String>,
    pub name: String,
    /// Shares of 1 are shown as per cent.
    pub is_share: bool,
    /// Of a loss, less is better.
    pub less_is_better: bool,
    /// Value of guesses, where it is known.
    pub chance: Option<f64>,
}

impl Metric {
    /// The value of a row that measures it.
    pub fn of(&self, row: &EvaluationRow) -> Option<f64> {
        let task = self.task.as_ref().is_none_or(|task| *task == row.task);
        let same = row.kind == self.kind && row.dataset == self.dataset && task;
        let (_, value) = row.metrics.iter().find(|(name, _)| same && *name == self.name)?;
        value.is_finite().then_some(*value)
    }

    /// True of a value that is at least twice that of guesses: below it, how soon another setting gets there says nothing.
    pub fn tells(&self, value: f64) -> bool {
        self.chance.is_none_or(|chance| value >= 2.0 * chance)
    }

    /// `held-out scenes, zero shot: top1`
    pub fn title(&self) -> String {
        format!("{}, {}: {}", self.dataset, self.kind.replace('_', " "), self.name.replace('_', " "))
    }

    /// A value as text, with its unit.
    pub fn format(&self, value: f64) -> String {
        match self.is_share {
            true => format!("{:.1} %", 100.0 * value),
            false if is_count(&self.name) && value.fract() == 0.0 => format!("{value:.0}"),
            false => format!("{value:.4}"),
        }
    }
}

/// Value of guesses for a metric of a row: of an accuracy as it was measured, of a recall among the first k the share of k.
fn chance(row: &EvaluationRow, name: &str) -> Option<f64> {
    if let Some((_, k)) = name.split_once("_recall_at_") {
        return Some(k.parse::<f64>().ok()? / row.n.max(1) as f64);
    }
    let accuracy = name.starts_with("top1") || ["mean_per_class", "held_out_top1"].contains(&name);
    let (_, chance) = row.metrics.iter().find(|(other, _)| accuracy && other == "chance")?;
    Some(*chance)
}

impl Sweep {
    fn rows(&self) -> impl Iterator<Item = &EvaluationRow> {
        let cells = self.settings.iter().flat_map(|setting| &setting.cells);
        cells.flat_map(|cell| cell.measured.iter().map(|measured| &measured.row))
    }

    /// A metric of the subject of a row.
    fn metric_of(&self, row: &EvaluationRow, name: &str) -> Metric {
        let named = |other: &EvaluationRow| other.kind == row.kind && other.dataset == row.dataset;
        let several = self.settings.iter().flat_map(|setting| &setting.cells).any(|cell| {
            let mut rows = cell.measured.iter().map(|measured| &measured.row).filter(|row| named(row));
            let first = rows.next();
            rows.any(|row| first.is_some_and(|first| row.task != first.task))
        });
        let values = self.rows().filter(|other| named(other) && (!several || other.task == row.task));
        let values = values.flat_map(|row| &row.metrics).filter(|(other, _)| other == name);
        Metric {
            kind: row.kind.clone(),
            dataset: row.dataset.clone(),
            task: several.then(|| row.task.clone()),
            name: name.to_owned(),
            is_share: is_share(name, values.map(|(_, value)| *value)),
            less_is_better: name.contains("loss"),
            chance: chance(row, name),
        }
    }

    /// The measurement to draw; none where nothing has been measured yet.
    ///
    /// # Errors
    /// The metric that is asked for was not measured.
    pub fn metric(&self) -> Result<Option<Metric>, ReportError> {
        let rows: Vec<EvaluationRow> = self.rows().cloned().collect();
        let fits = |row: &&EvaluationRow| match &self.wanted {
            Some(wanted) => {
                row.dataset == wanted.evaluation && wanted.kind.as_ref().is_none_or(|kind| *kind == row.kind)
            }
            None => true,
        };
        match &self.wanted {
            Some(wanted) => {
                let Some(row) = rows.iter().find(fits) else { return Ok(None) };
                let name = match &wanted.metric {
                    Some(name) => name.clone(),
                    None => row.metrics.first().map(|(name, _)| name.clone()).unwrap_or_default(),
                };
                if !row.metrics.iter().any(|(other, _)| *other == name) {
                    let there: Vec<&str> = row.metrics.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(ReportError::NoMetric {
                        name,
                        subject: Subject::of(row).to_string(),
                        there: there.join(", "),
                    });
                }
                Ok(Some(self.metric_of(row, &name)))
            }
            None => {
                let all = trajectories(&rows);
                let first = all.iter().find(|trajectory| trajectory.is_share()).or(all.first());
                Ok(first.and_then(|first| Some(self.metric_of(first.points.first()?.0, first.metric))))
            }
        }
    }

    /// Writes `sweep.json`, `points.csv`, `charts/` and `report.html` into the folder of the sweep, and returns the
    /// path of the page.
    ///
    /// # Errors
    /// A file cannot be written, or the metric that is asked for was not measured.
    pub fn write(&self, out: &Path) -> Result<PathBuf, ReportError> {
        let metric = self.metric()?;
        let summaries = metric.as_ref().map(|metric| summary::of(self, metric));
        let charts = match (&metric, &summaries) {
            (Some(metric), Some(summaries)) => charts::of(self, metric, summaries)?,
            _ => Vec::new(),
        };
        files::write(self, metric.as_ref(), summaries.as_deref(), out)?;
        let folder = out.join("charts");
        if !charts.is_empty() {
            fs::create_dir_all(&folder).map_err(ReportError::io("create", &folder))?;
        }
        for chart in &charts {
            let path = folder.join(chart.name).with_extension("svg");
            whole_file::replace(&path, chart.svg.as_bytes()).map_err(ReportError::io("write", &path))?;
        }
        page::write(self, metric.as_ref(), summaries.as_deref(), &charts, out)
    }

    /// A table for a terminal of so many columns; empty where nothing has been measured.
    ///
    /// # Errors
    /// The metric that is asked for was not measured.
    pub fn text(&self, columns: Option<usize>) -> Result<String, ReportError> {
        let Some(metric) = self.metric()? else { return Ok(String::new()) };
        Ok(table::text(self, &metric, &summary::of(self, &metric), columns))
    }
}
