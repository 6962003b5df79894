//! Runs the cells of a sweep one after the other, and goes on where an earlier attempt stopped.

use std::fs;
use std::io::{Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::grid::Setting;
use super::plan::{baseline, cell_folder, flops_per_step, Cell, Plan};
use super::study::{self, Study};
use crate::interpreter::{self, InterpreterError};
use crate::log::{Bar, Progress};
use crate::recipe::forecast::{forecast, StageForecast};
use crate::recipe::{self, Recipe, RecipeErrors};
use crate::report::sweep::{Cell as ReportedCell, Outcome, Sweep, Wanted};
use crate::report::{self, ReportError};
use crate::run_folder::{Entry, RunFolder, RunFolderError};
use crate::stage::Ended;

/// Between two looks at how far the running cell is.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two reports of an unfinished sweep; making one takes a second.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// More than the longest line of `metrics.jsonl`.
const LINE: u64 = 4096;
/// Why a cell failed, in its folder.
const FAILURE: &str = "failure.txt";

/// How a cell stands before a sweep goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Begun; it will be resumed.
    Begun,
    Finished,
    /// Its folder holds a run with another recipe: a line there, and the line now.
    Changed {
        before: String,
        now: String,
    },
}

/// A sweep that could not go on, apart from cells that failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the recipe of {path} cannot be read: {errors}")]
    Recipe { path: PathBuf, errors: Box<RecipeErrors> },
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// A cell that failed; the others were run all the same.
#[derive(Debug)]
pub struct Failed {
    pub folder: PathBuf,
    pub message: String,
}

/// How a sweep ended.
#[derive(Debug)]
pub struct Run {
    pub ended: Ended,
    pub failed: Vec<Failed>,
}

/// How every cell of the plan stands.
///
/// # Errors
/// A cell's recipe cannot be read.
pub fn standings(plan: &Plan) -> Result<Vec<Standing>, SweepError> {
    plan.cells.iter().map(standing).collect()
}

fn standing(cell: &Cell) -> Result<Standing, SweepError> {
    let path = cell.folder.join("recipe.ron");
    if !path.exists() {
        return Ok(Standing::New);
    }
    let stored = recipe::read(&path, &[])
        .map_err(|errors| SweepError::Recipe { path: path.clone(), errors: Box::new(errors) })?;
    Ok(match recipe::difference(&stored, &cell.recipe) {
        Some((before, now)) => Standing::Changed { before, now },
        None if RunFolder::complete_of(&cell.folder).exists() => Standing::Finished,
        None => Standing::Begun,
    })
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

/// Operations a second of training in the finished cells; none where there are none.
pub fn flops_per_s(plan: &Plan, standings: &[Standing]) -> Option<f64> {
    let (mut flops, mut seconds) = (0.0, 0.0);
    for (cell, _) in plan.cells.iter().zip(standings).filter(|(_, standing)| **standing == Standing::Finished)
    {
        let per_step = flops_per_step(&cell.recipe);
        let read =
            ReportedCell::read(cell.seed, &cell.folder, String::new(), Outcome::Finished, &per_step).ok()?;
        flops += read.spent.flops;
        seconds += read.spent.train_s;
    }
    (seconds > 0.0).then(|| flops / seconds)
}

/// Runs every cell that is not finished, in order. A cell whose standing is `Changed` is started again: ask first.
/// Now and then the report of the sweep is written anew.
///
/// # Errors
/// The folder of the sweep cannot be written. Cells that fail are in the result.
pub fn run(
    plan: &Plan,
    standings: &[Standing],
    out: &Path,
    progress: &Progress,
    interrupt: &AtomicBool,
) -> Result<Run, SweepError> {
    keep_study(&plan.study, out)?;
    let finished = |index: usize| standings[index] == Standing::Finished;
    let weights = Weights::of(plan);
    let before: f64 =
        (0..plan.cells.len()).filter(|index| finished(*index)).map(|index| weights.of[index]).sum();
    let bar = progress.bar("sweep", weights.whole(weights.of.iter().sum()), weights.unit);
    bar.start_at(weights.whole(before));

    let mut run = Run { ended: Ended::Complete, failed: Vec::new() };
    let mut done = before;
    let mut reported = Instant::now();
    for (index, cell) in plan.cells.iter().enumerate() {
        if finished(index) {
            continue;
        }
        if interrupt.load(Ordering::Relaxed) {
            run.ended = Ended::Interrupted;
            return Ok(run);
        }
        let name = &plan.settings[cell.setting].name;
        let place = format!("run {} of {}", index + 1, plan.cells.len());
        tracing::info!(target: "flip::sweep", "{place}: {name}, seed {}", cell.seed);
        let followed =
            Followed { cell, before: done, weight: weights.of[index], weights: &weights, place: &place };
        match followed.by(&bar, || run_cell(cell, &standings[index], progress, interrupt)) {
            Ok(Ended::Complete) => {}
            Ok(Ended::Interrupted) => {
                run.ended = Ended::Interrupted;
                return Ok(run);
            }
            Err(error) => {
                let message = error.to_string();
                tracing::error!(target: "flip::sweep", "{name}, seed {}: {message}", cell.seed);
                let path = cell.folder.join(FAILURE);
                // The cell's folder may be what is broken.
                let _ = fs::write(&path, format!("{message}\n"));
                run.failed.push(Failed { folder: cell.folder.clone(), message });
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
    Ok(run)
}

/// Why a cell failed.
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
    standing: &Standing,
    progress: &Progress,
    interrupt: &AtomicBool,
) -> Result<Ended, CellError> {
    let entry = match standing {
        Standing::New => Entry::Start,
        Standing::Changed { .. } => Entry::Restart,
        Standing::Begun | Standing::Finished => Entry::Resume,
    };
    let folder = RunFolder::enter(&cell.folder, entry)?;
    // Of an attempt before.
    let _ = fs::remove_file(cell.folder.join(FAILURE));
    let resume = entry == Entry::Resume;
    if !resume {
        folder.replace(&folder.recipe(), recipe::write(&cell.recipe).as_bytes())?;
    }
    let ended = interpreter::run(&cell.recipe, &folder, resume, progress, interrupt)?;
    report::write(folder.root())?;
    Ok(ended)
}

/// Writes down what is swept.
fn keep_study(study: &Study, out: &Path) -> Result<(), SweepError> {
    let path = out.join(study::STUDY);
    let io = |source| SweepError::Io { path: path.clone(), source };
    fs::create_dir_all(out).map_err(io)?;
    fs::write(&path, study::write(study)).map_err(io)
}

/// The sweep as its run folders tell it: nothing is run, and of the recipe only what the runs keep is read.
///
/// # Errors
/// A file of a run cannot be read.
pub fn report(study: &Study, settings: &[Setting], out: &Path) -> Result<Sweep, SweepError> {
    let mut sweep = Sweep {
        name: study.name.clone(),
        claim: study.claim.clone(),
        settings: Vec::new(),
        baseline: baseline(study, settings),
        wanted: study.metric.clone().map(|metric| Wanted {
            evaluation: metric.evaluation,
            kind: metric.kind,
            metric: metric.metric,
        }),
        study: study::write(study),
    };
    for setting in settings {
        let mut cells = Vec::new();
        let mut first: Option<Recipe> = None;
        for seed in seeds(out, setting)? {
            let folder = cell_folder(out, setting, seed);
            let path = folder.join("recipe.ron");
            let recipe = recipe::read_text(&path.display().to_string(), &text(&path)?, &[])
                .map_err(|errors| SweepError::Recipe { path: path.clone(), errors: Box::new(errors) })?;
            let outcome =
                match (RunFolder::complete_of(&folder).exists(), fs::read_to_string(folder.join(FAILURE))) {
                    (true, _) => Outcome::Finished,
                    (false, Ok(message)) => Outcome::Failed(message.trim().to_owned()),
                    (false, Err(_)) => Outcome::Unfinished,
                };
            // Runs of an earlier recipe, with seeds that the later one was not run with.
            let like_first = Recipe { seed, ..first.get_or_insert_with(|| recipe.clone()).clone() };
            let outcome = match recipe::difference(&like_first, &recipe) {
                Some((first, this)) => {
                    Outcome::Failed(format!("left out: its recipe has {this}, the first seed's {first}"))
                }
                None => outcome,
            };
            let link = folder.strip_prefix(out).unwrap_or(&folder).to_string_lossy().into_owned();
            cells.push(ReportedCell::read(seed, &folder, link, outcome, &flops_per_step(&recipe))?);
        }
        sweep.settings.push(report::sweep::Setting { name: setting.name.clone(), cells });
    }
    Ok(sweep)
}

/// The seeds that a setting has run folders of, in order.
fn seeds(out: &Path, setting: &Setting) -> Result<Vec<u64>, SweepError> {
    let folder = out.join("cells").join(&setting.folder);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(SweepError::Io { path: folder, source }),
    };
    let mut seeds = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| SweepError::Io { path: folder.clone(), source })?;
        let name = entry.file_name();
        let seed: Option<u64> = name.to_str().and_then(|name| name.strip_prefix("seed-")?.parse().ok());
        seeds.extend(seed.filter(|_| entry.path().join("recipe.ron").exists()));
    }
    seeds.sort_unstable();
    Ok(seeds)
}

fn text(path: &Path) -> Result<String, SweepError> {
    fs::read_to_string(path).map_err(|source| SweepError::Io { path: path.into(), source })
}

/// What the cells weigh in the progress of the whole: operations, or one each where a source must be counted first.
struct Weights {
    of: Vec<f64>,
    unit: &'static str,
    scale: f64,
}

impl Weights {
    fn of(plan: &Plan) -> Self {
        let flops: Option<Vec<f64>> = plan.cells.iter().map(|cell| cell.flops).collect();
        match flops {
            Some(of) if of.iter().sum::<f64>() > 1e9 => Weights { of, unit: "GFLOP", scale: 1e-9 },
            _ => Weights { of: vec![1.0; plan.cells.len()], unit: "runs", scale: 1.0 },
        }
    }

    fn whole(&self, weight: f64) -> u64 {
        (weight * self.scale) as u64
    }
}

/// A cell while it runs, as the bar of the whole sees it.
struct Followed<'a> {
    cell: &'a Cell,
    /// Weight of what was done before it.
    before: f64,
    weight: f64,
    weights: &'a Weights,
    place: &'a str,
}

impl Followed<'_> {
    /// Runs `work` while another thread moves the bar by what the cell logs: the stages themselves know
    /// nothing of a sweep.
    fn by<T>(&self, bar: &Bar, work: impl FnOnce() -> T) -> T {
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
        let line = last_line(&self.cell.folder.join("metrics.jsonl"));
        let (Some(all), Some(line)) = (self.cell.flops.filter(|all| *all > 0.0), line) else { return 0.0 };
        let stages = forecast(&self.cell.recipe);
        let before: f64 = stages.iter().take(line.stage).filter_map(StageForecast::flops).sum();
        let in_stage = stages.get(line.stage).map_or(0.0, StageForecast::flops_per_step);
        ((before + line.step as f64 * in_stage) / all).min(1.0)
    }
}

#[derive(Deserialize)]
struct Line {
    stage: usize,
    step: u64,
}

/// The last whole line of `metrics.jsonl`.
fn last_line(path: &Path) -> Option<Line> {
    let mut file = fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LINE))).ok()?;
    let mut end = String::new();
    file.read_to_string(&mut end).ok()?;
    end.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}
