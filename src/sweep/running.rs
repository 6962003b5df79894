//! Runs the cells of a sweep one after the other, and goes on where an earlier attempt stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::error::SweepError;
use super::follow::{CellWeights, Followed};
use super::plan::{Cell, SweepPlan};
use super::status::CellStatus;
use super::stored::{report, FAILURE};
use super::study::{self, Study};
use crate::interpreter::{self, InterpreterError};
use crate::log::Progress;
use crate::outside;
use crate::recipe;
use crate::record::{Entry, RunFolder, RunFolderError};
use crate::report::{self, ReportError};
use crate::train::Ended;
use crate::whole_file;

/// Between two reports of an unfinished sweep; making one takes a second.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// A cell that failed; the others were run all the same.
#[derive(Debug)]
pub struct Failed {
    /// Its run folder.
    pub folder: PathBuf,
    /// The error as text.
    pub message: String,
}

/// End of a sweep.
#[derive(Debug)]
pub struct SweepOutcome {
    /// Complete, even where cells failed, or interrupted.
    pub ended: Ended,
    /// Cells that failed.
    pub failed: Vec<Failed>,
}

/// Keeps two processes out of the folder of a sweep, until it is dropped.
///
/// # Errors
/// Another process is in it.
pub fn lock(out: &Path) -> Result<fs::File, SweepError> {
    let path = out.join(".lock");
    let io = |source| SweepError::Io { path: path.clone(), source };
    fs::create_dir_all(out).map_err(io)?;
    let lock = fs::File::create(&path).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(RunFolderError::Locked { path: out.into() }.into()),
        Err(fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Runs every cell that is not finished, in order. A cell whose status is `Changed` is started again: ask first.
/// Now and then the report of the sweep is written anew.
///
/// # Errors
/// The folder of the sweep cannot be written. Cells that fail are in the result.
pub fn run(
    plan: &SweepPlan,
    statuses: &[CellStatus],
    out: &Path,
    progress: &Progress,
    interrupt: &AtomicBool,
) -> Result<SweepOutcome, SweepError> {
    keep_study(&plan.study, out)?;
    let finished = |index: usize| statuses[index] == CellStatus::Finished;
    let weights = CellWeights::of(plan);
    let before: f64 =
        (0..plan.cells.len()).filter(|index| finished(*index)).map(|index| weights.of[index]).sum();
    let bar = progress.bar("sweep", weights.whole(weights.of.iter().sum()), weights.unit);
    bar.start_at(weights.whole(before));

    let mut outcome = SweepOutcome { ended: Ended::Complete, failed: Vec::new() };
    let mut done = before;
    let mut reported = Instant::now();
    for (index, cell) in plan.cells.iter().enumerate() {
        if finished(index) {
            continue;
        }
        if interrupt.load(Ordering::Relaxed) {
            outcome.ended = Ended::Interrupted;
            return Ok(outcome);
        }
        let name = &plan.settings[cell.setting].name;
        let place = format!("run {} of {}", index + 1, plan.cells.len());
        tracing::info!(target: "flip::sweep", "{place}: {name}, seed {}", cell.seed);
        let followed =
            Followed { cell, before: done, weight: weights.of[index], weights: &weights, place: &place };
        match followed.by(&bar, || run_cell(cell, &statuses[index], progress, interrupt)) {
            Ok(Ended::Complete) => {}
            Ok(Ended::Interrupted) => {
                outcome.ended = Ended::Interrupted;
                return Ok(outcome);
            }
            Err(error) => {
                let message = outside::without_secrets(&error.to_string()).into_owned();
                tracing::error!(target: "flip::sweep", "{name}, seed {}: {message}", cell.seed);
                let path = cell.folder.join(FAILURE);
                // The cell's folder may be what is broken.
                let _ = whole_file::replace(&path, format!("{message}\n").as_bytes());
                outcome.failed.push(Failed { folder: cell.folder.clone(), message });
            }
        }
        done += weights.of[index];
        if reported.elapsed() < REPORT_EVERY {
            continue;
        }
        // What has been trained stands, whatever the page says; at the end its errors are told.
        if let Err(error) = report(&plan.study, &plan.settings, out).and_then(|sweep| Ok(sweep.write(out)?)) {
            tracing::warn!(target: "flip::sweep", "no report yet: {error}");
        }
        reported = Instant::now();
    }
    bar.update(weights.whole(weights.of.iter().sum()), format_args!("{} runs", plan.cells.len()));
    bar.finish();
    Ok(outcome)
}

/// A cell that failed.
#[derive(Debug, thiserror::Error)]
enum CellError {
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error(transparent)]
    Run(#[from] InterpreterError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

fn run_cell(
    cell: &Cell,
    status: &CellStatus,
    progress: &Progress,
    interrupt: &AtomicBool,
) -> Result<Ended, CellError> {
    let entry = match status {
        CellStatus::New => Entry::Start,
        CellStatus::Changed { .. } => Entry::Restart,
        CellStatus::Begun | CellStatus::Finished => Entry::Resume,
    };
    let folder = RunFolder::enter(&cell.folder, entry)?;
    // Of an attempt before.
    let _ = fs::remove_file(cell.folder.join(FAILURE));
    let resume = entry == Entry::Resume;
    if !resume {
        folder.replace(&folder.recipe(), recipe::write(&cell.recipe).as_bytes())?;
    }
    let ended = interpreter::run_alone(&cell.recipe, resume, &folder, progress, interrupt)?;
    report::write(folder.root())?;
    Ok(ended)
}

/// Writes down what is swept.
fn keep_study(study: &Study, out: &Path) -> Result<(), SweepError> {
    let path = out.join(study::STUDY);
    let io = |source| SweepError::Io { path: path.clone(), source };
    fs::create_dir_all(out).map_err(io)?;
    whole_file::replace(&path, study::write(study).as_bytes()).map_err(io)
}
