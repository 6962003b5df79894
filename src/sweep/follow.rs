//! Progress of a sweep: its bar moves by what the running cell logs.

use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::Duration;

use super::plan::{Cell, SweepPlan};
use crate::log::Bar;
use crate::recipe::forecast::{forecast, StageForecast};
use crate::record::{last_line, RunPaths, StepMetrics};

/// Between two looks at how far the running cell is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Weights of the cells in the progress of the whole: operations, or one each where a source must be counted first.
pub(super) struct CellWeights {
    /// Weight of each cell.
    pub of: Vec<f64>,
    /// Unit in which the bar counts.
    pub unit: &'static str,
    scale: f64,
}

impl CellWeights {
    /// Weights of the cells of a plan.
    pub fn of(plan: &SweepPlan) -> Self {
        let flops: Option<Vec<f64>> = plan.cells.iter().map(|cell| cell.flops).collect();
        match flops {
            Some(of) if of.iter().sum::<f64>() > 1e9 => CellWeights { of, unit: "GFLOP", scale: 1e-9 },
            _ => CellWeights { of: vec![1.0; plan.cells.len()], unit: "runs", scale: 1.0 },
        }
    }

    /// A weight in whole units.
    pub fn whole(&self, weight: f64) -> u64 {
        (weight * self.scale) as u64
    }
}

/// A cell while it runs, as the bar of the whole sees it.
pub(super) struct Followed<'a> {
    /// The cell.
    pub cell: &'a Cell,
    /// Weight of what was done before it.
    pub before: f64,
    /// Weight of this one.
    pub weight: f64,
    /// Those of all.
    pub weights: &'a CellWeights,
    /// Place in the sweep, in words.
    pub place: &'a str,
}

impl Followed<'_> {
    /// Runs `work` while another thread moves the bar by what the cell logs: the stages themselves know
    /// nothing of a sweep.
    pub fn by<T>(&self, bar: &Bar, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            let (stop, stopped) = channel::<()>();
            scope.spawn(move || {
                let look =
                    || bar.update(self.weights.whole(self.before + self.weight * self.share()), self.place);
                look();
                while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    look();
                }
            });
            let done = work();
            drop(stop);
            done
        })
    }

    /// The share of the cell's work that is done, 0 to 1.
    fn share(&self) -> f64 {
        let line = last_line::<StepMetrics>(&RunPaths::new(&self.cell.folder).metrics());
        let (Some(all), Some(line)) = (self.cell.flops.filter(|all| *all > 0.0), line) else { return 0.0 };
        let stages = forecast(&self.cell.recipe);
        let before: f64 = stages.iter().take(line.stage).filter_map(StageForecast::flops).sum();
        let in_stage = stages.get(line.stage).map_or(0.0, StageForecast::flops_per_step);
        ((before + line.step as f64 * in_stage) / all).min(1.0)
    }
}
