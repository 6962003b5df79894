//! `flip sweep`: a recipe in many variants, run to the end and compared.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::run::logging_is_readable;
use super::signals::catch_signals;
use super::validate::Broken;
use super::{Failure, Outcome};
use crate::command::number::whole;
use crate::log::{Logging, Progress};
use crate::recipe::{self, RecipeErrors};
use crate::record::RunPaths;
use crate::sweep::plan::SweepPlanErrors;
use crate::sweep::{self, status, study, CellStatus, SweepPlan};
use crate::terminal::{self, flop};
use crate::train::Ended;

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// A recipe, a study, or the folder of a sweep.
    recipe: PathBuf,
    /// Vary a field: --set stages.0.batch=64,128. Several times: every combination. Fields that change together:
    /// --set 'stages.0.image_mask,stages.0.length=(Keep,Steps(100)),(Random(0.5),Steps(190))'. A single value is an
    /// override of every run.
    #[arg(long = "set", value_name = "PATH=V1,V2,...")]
    sets: Vec<String>,
    /// Runs of each setting, with the recipe's seed and those that follow it, 1 to 10,000 [default: 1, or what the
    /// study says]. A sweep has at most 10,000 runs: settings times seeds.
    #[arg(long, value_name = "N", value_parser = whole(1..=10_000))]
    seeds: Option<usize>,
    /// Folder of the sweep [default: runs/NAME-sweep, NAME being that of the recipe; runs/NAME of a study].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say what would be run, and run nothing.
    #[arg(long, conflicts_with_all = ["charts_only", "restart_changed"])]
    plan: bool,
    /// Make table, charts and report of what the runs have stored, and run nothing.
    #[arg(long, conflicts_with = "restart_changed")]
    charts_only: bool,
    /// Delete and begin again those runs in the folder whose recipe has changed since; without it they are an error.
    #[arg(long)]
    restart_changed: bool,
    /// Log levels, format and sinks, watched while the sweep goes on [default: logging.ron in its folder].
    #[arg(long, value_name = "FILE")]
    logging: Option<PathBuf>,
}

/// Some runs failed; the others are finished.
#[derive(Debug, thiserror::Error)]
#[error("{} of {cells} runs failed; the same command tries them again:{}", .failed.len(), listed(.failed))]
struct SomeFailed {
    cells: usize,
    failed: Vec<sweep::running::Failed>,
}

fn listed(failed: &[sweep::running::Failed]) -> String {
    failed.iter().map(|failed| format!("\n  {}: {}", failed.folder.display(), failed.message)).collect()
}

/// Runs what is not finished of a sweep, and prints and writes its outcome.
///
/// # Errors
/// A recipe of the grid is wrong: all that is wrong with any of them, before the first run. Or a run failed: after
/// the others.
pub fn sweep(args: &SweepArgs, out: &mut dyn Write) -> Result<Outcome, Failure> {
    let (mut read, root) = opened(args)?;
    if let Some(seeds) = args.seeds.and_then(|seeds| NonZeroU64::new(seeds as u64)) {
        read.study.seeds = seeds;
    }
    if args.charts_only {
        return conclude(&read.study, &read.settings, &root, out).map(|()| Outcome::Done);
    }
    let plan = SweepPlan::new(read, &root).map_err(|errors| Failure::Usage(shown(&errors)))?;
    if RunPaths::new(&root).holds_run() {
        let root = root.display();
        return Err(Failure::Usage(format!(
            "{root} holds a run, not a sweep; choose another folder with --out"
        )));
    }
    let statuses = sweep::statuses(&plan)?;
    print_plan(&plan, &statuses, &root, out)?;
    if args.plan {
        return Ok(Outcome::Done);
    }
    nothing_changed(&plan, &statuses, args.restart_changed)?;
    logging_is_readable(args.logging.as_deref(), &root)?;
    let _lock = sweep::running::lock(&root).map_err(|error| Failure::Usage(error.to_string()))?;

    let progress = Progress::new();
    let logging_file = args.logging.clone().unwrap_or_else(|| root.join("logging.ron"));
    let _logging = Logging::start(Some(&logging_file), &progress)?;
    let interrupt = catch_signals()?;
    let run = sweep::run(&plan, &statuses, &root, &progress, &interrupt)?;
    conclude(&plan.study, &plan.settings, &root, out)?;
    if run.ended == Ended::Interrupted {
        tracing::warn!(target: "flip::sweep", "interrupted; the same command goes on");
        return Ok(Outcome::Interrupted);
    }
    match run.failed.is_empty() {
        true => Ok(Outcome::Done),
        false => Err(SomeFailed { cells: plan.cells.len(), failed: run.failed }.into()),
    }
}

/// The answer of `flip validate` for a study: the plan of its sweep.
///
/// # Errors
/// The study or a recipe of the grid is wrong, or `out` cannot be written.
pub(super) fn validate(
    path: &Path,
    sets: &[String],
    json: bool,
    out: &mut dyn Write,
) -> Result<Outcome, Failure> {
    let read = match study::read(path, sets) {
        Ok(read) => read,
        Err(errors) => {
            if json {
                writeln!(
                    out,
                    "{}",
                    serde_json::to_string(&Broken { valid: false, errors: errors.errors() })?
                )?;
            }
            return Err(Failure::Usage(errors.render(terminal::colours())));
        }
    };
    let root = Path::new("runs").join(&read.study.name);
    let plan = match SweepPlan::new(read, &root) {
        Ok(plan) => plan,
        Err(errors) => {
            if json {
                writeln!(
                    out,
                    "{}",
                    serde_json::to_string(&Broken { valid: false, errors: errors.errors() })?
                )?;
            }
            return Err(Failure::Usage(shown(&errors)));
        }
    };
    if json {
        let settings = plan.settings.iter().enumerate().map(|(index, setting)| {
            let flops = plan.cells.iter().find(|cell| cell.setting == index).and_then(|cell| cell.flops);
            json!({"name": setting.name, "flops": flops})
        });
        let report = json!({
            "study": plan.study.name, "valid": true, "seeds": plan.study.seeds, "runs": plan.cells.len(),
            "flops": plan.flops(), "settings": settings.collect::<Vec<_>>(),
        });
        writeln!(out, "{report}")?;
    } else {
        writeln!(out, "{} is valid", plan.study.name)?;
        print_plan(&plan, &vec![CellStatus::New; plan.cells.len()], &root, out)?;
    }
    Ok(Outcome::Done)
}

/// The study that is asked for, and its folder.
fn opened(args: &SweepArgs) -> Result<(study::Read, PathBuf), Failure> {
    let styled = |errors: RecipeErrors| Failure::Usage(errors.render(terminal::colours()));
    let given = &args.recipe;
    if given.is_dir() {
        let path = given.join(study::STUDY);
        if !path.exists() {
            let message = format!("{} holds no sweep (there is no {} in it)", given.display(), study::STUDY);
            return Err(Failure::Usage(message));
        }
        let read = study::read(&path, &args.sets).map_err(styled)?;
        return Ok((read, args.out.clone().unwrap_or_else(|| given.clone())));
    }
    if study::is_study(given) {
        let read = study::read(given, &args.sets).map_err(styled)?;
        let root = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&read.study.name));
        return Ok((read, root));
    }
    let name = format!("{}-sweep", recipe::read(given, &[]).map_err(styled)?.name);
    let root = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&name));
    Ok((study::of_arguments(name, given, &args.sets).map_err(styled)?, root))
}

fn shown(errors: &SweepPlanErrors) -> String {
    errors.render(terminal::colours())
}

/// Prints what will be run.
fn print_plan(
    plan: &SweepPlan,
    statuses: &[CellStatus],
    root: &Path,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let count = |wanted: fn(&CellStatus) -> bool| statuses.iter().filter(|status| wanted(status)).count();
    let (settings, seeds) = (plan.settings.len(), plan.study.seeds);
    let runs = plan.cells.len();
    let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    writeln!(
        out,
        "{}: {} with {} each, {}",
        plan.study.name,
        plural(settings as u64, "setting"),
        plural(seeds.get(), "seed"),
        plural(runs as u64, "run")
    )?;
    for (index, setting) in plan.settings.iter().enumerate() {
        let cells = plan.cells.iter().zip(statuses).filter(|(cell, _)| cell.setting == index);
        let finished = cells.filter(|(_, status)| **status == CellStatus::Finished).count();
        let flops = plan.cells.iter().find(|cell| cell.setting == index).and_then(|cell| cell.flops);
        let compute = flops.map_or("compute known once the source is counted".to_owned(), |flops| {
            format!("{} a run", flop(flops))
        });
        let baseline = if index == plan.baseline() && settings > 1 { ", baseline" } else { "" };
        let done = if finished > 0 { format!(", {finished} finished") } else { String::new() };
        writeln!(out, "  {}: {compute}{baseline}{done}", setting.name)?;
    }
    let finished = count(|status| *status == CellStatus::Finished);
    let left = plan.cells.iter().zip(statuses).filter(|(_, status)| **status != CellStatus::Finished);
    let flops: Option<f64> = left.map(|(cell, _)| cell.flops).sum();
    if finished > 0 {
        let begun = count(|status| *status == CellStatus::Begun);
        writeln!(out, "  {finished} of {runs} runs are finished, {begun} begun")?;
    }
    let time = flops.zip(status::flops_per_s(plan, statuses)).filter(|(flops, _)| *flops > 0.0);
    let time = time.map_or(String::new(), |(flops, pace)| {
        format!(
            ", about {} of training at the pace of the finished runs",
            crate::report::duration(flops / pace / 60.0)
        )
    });
    if let Some(flops) = flops {
        writeln!(out, "  to do: {}{time}", flop(flops))?;
    }
    writeln!(out, "  folder: {}", root.display())
}

/// Refuses to mix runs of two recipes.
fn nothing_changed(plan: &SweepPlan, statuses: &[CellStatus], restart: bool) -> Result<(), Failure> {
    let mut changed = Vec::new();
    for (cell, status) in plan.cells.iter().zip(statuses) {
        if let CellStatus::Changed { before, now } = status {
            changed.push(format!("{}\n  there: {before}\n  now:   {now}", cell.folder.display()));
        }
    }
    if changed.is_empty() || restart {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{} of the runs in the folder were made with another recipe, so they are not of this sweep; give another \
         folder with --out, or --restart-changed to delete them and begin them again. Each with the first difference:\n{}",
        changed.len(),
        changed.join("\n")
    )))
}

/// Writes the report and prints the table.
fn conclude(
    study: &sweep::Study,
    settings: &[sweep::grid::Setting],
    root: &Path,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let report = sweep::report(study, settings, root)?;
    let page = report.write(root)?;
    let table = report.text(terminal::out_columns())?;
    if !table.is_empty() {
        writeln!(out, "\n{table}")?;
    }
    writeln!(out, "charts      {}", root.join("charts").display())?;
    writeln!(out, "report      {}", page.display())?;
    Ok(())
}
