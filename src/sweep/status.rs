//! Status of the cells of a sweep before it goes on.

use super::error::SweepError;
use super::plan::{flops_per_step, Cell, SweepPlan};
use crate::recipe;
use crate::record::RunPaths;
use crate::report::sweep::{Cell as Stored, Outcome};

/// Status of a cell before a sweep goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellStatus {
    /// Its folder holds no run.
    New,
    /// Begun; it will be resumed.
    Begun,
    /// Run to its end.
    Finished,
    /// Its folder holds a run with another recipe: a line there, and the line now.
    Changed {
        /// A line of the recipe in the folder.
        before: String,
        /// The same line of the recipe now.
        now: String,
    },
}

/// Status of every cell of the plan.
///
/// # Errors
/// A cell's recipe cannot be read.
pub fn statuses(plan: &SweepPlan) -> Result<Vec<CellStatus>, SweepError> {
    plan.cells.iter().map(status).collect()
}

fn status(cell: &Cell) -> Result<CellStatus, SweepError> {
    let path = RunPaths::new(&cell.folder).recipe();
    if !path.exists() {
        return Ok(CellStatus::New);
    }
    let stored = recipe::read(&path, &[])
        .map_err(|errors| SweepError::Recipe { path: path.clone(), errors: Box::new(errors) })?;
    Ok(match recipe::difference(&stored, &cell.recipe) {
        Some((before, now)) => CellStatus::Changed { before, now },
        None if RunPaths::new(&cell.folder).is_complete() => CellStatus::Finished,
        None => CellStatus::Begun,
    })
}

/// Operations a second of training in the finished cells; none where there are none.
pub fn flops_per_s(plan: &SweepPlan, statuses: &[CellStatus]) -> Option<f64> {
    let (mut flops, mut seconds) = (0.0, 0.0);
    for (cell, _) in plan.cells.iter().zip(statuses).filter(|(_, status)| **status == CellStatus::Finished) {
        let per_step = flops_per_step(&cell.recipe);
        let read = Stored::read(cell.seed, &cell.folder, String::new(), Outcome::Finished, &per_step).ok()?;
        flops += read.spent.flops;
        seconds += read.spent.train_s;
    }
    (seconds > 0.0).then(|| flops / seconds)
}
