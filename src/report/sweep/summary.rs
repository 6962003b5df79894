//! Result of each setting, its cost, and the ratio of costs at which it was as good as the baseline.

use serde::Serialize;

use super::series::{first_reaches, of_cell, of_setting};
use super::{Along, Metric, Setting, Sweep};

/// Mean, smallest and largest over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Spread> {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        Some(Spread { mean: values.iter().sum::<f64>() / values.len() as f64, least, most })
    }
}

/// Cost at which a setting is first as good as the baseline is at its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reached {
    /// Of the mean curve over seeds.
    pub at: Option<f64>,
    /// Of the curve of each seed, where it gets there.
    pub seeds: Vec<Option<f64>>,
    /// The baseline's own place divided by this one: above 1 is sooner.
    pub ratio: Option<f64>,
}

/// A setting in numbers, of its finished runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Runs that are finished.
    pub finished: usize,
    /// Value at the end of a run.
    pub last: Option<Spread>,
    /// Cost of training in all; see [`super::Spent`].
    pub train_s: Option<Spread>,
    /// Operations.
    pub flops: Option<Spread>,
    /// Pairs seen.
    pub samples: Option<Spread>,
    /// In the order of [`Along::ALL`]: time, operations, pairs.
    pub reached: [Reached; 3],
}

/// Every setting in numbers. The level to be reached is the mean of the baseline's results over seeds.
pub fn of(sweep: &Sweep, metric: &Metric) -> Vec<Summary> {
    let level =
        sweep.settings.get(sweep.baseline).and_then(|baseline| last(baseline, metric)).map(|last| last.mean);
    // Near chance, where a curve crosses the level is chance as well.
    let tells = level.is_none_or(|level| metric.tells(level));
    let own = Along::ALL.map(|along| {
        let baseline = sweep.settings.get(sweep.baseline)?;
        mean_reaches(baseline, metric, along, level?)
    });
    let one = |setting: &Setting| {
        let spent = |along: Along| {
            Spread::of(&setting.finished().map(|cell| cell.spent.along(along)).collect::<Vec<_>>())
        };
        let reached = [0, 1, 2].map(|index| {
            let along = Along::ALL[index];
            let at = level.and_then(|level| mean_reaches(setting, metric, along, level));
            let seeds = setting
                .finished()
                .map(|cell| first_reaches(&of_cell(cell, metric, along), level?, metric.less_is_better));
            let ratio = own[index].zip(at).filter(|(_, at)| tells && *at > 0.0).map(|(own, at)| own / at);
            Reached { at, seeds: seeds.collect(), ratio }
        });
        Summary {
            finished: setting.finished().count(),
            last: last(setting, metric),
            train_s: spent(Along::Time),
            flops: spent(Along::Flops),
            samples: spent(Along::Samples),
            reached,
        }
    };
    sweep.settings.iter().map(one).collect()
}

fn mean_reaches(setting: &Setting, metric: &Metric, along: Along, level: f64) -> Option<f64> {
    let curve: Vec<(f64, f64)> =
        of_setting(setting, metric, along).iter().map(|point| (point.at, point.mean)).collect();
    // The mean of the last values may lie a rounding beside the last value of the means.
    let level = if metric.less_is_better { level * (1.0 + 1e-12) } else { level * (1.0 - 1e-12) };
    first_reaches(&curve, level, metric.less_is_better)
}

/// Results of the finished runs of a setting.
pub(super) fn last(setting: &Setting, metric: &Metric) -> Option<Spread> {
    Spread::of(&lasts(setting, metric))
}

/// The same of each of them.
pub(super) fn lasts(setting: &Setting, metric: &Metric) -> Vec<f64> {
    let last = |cell| of_cell(cell, metric, Along::Samples).last().map(|(_, value)| *value);
    setting.finished().filter_map(last).collect()
}
