//! `report.html`: a run folder as one page that can be sent on its own.

use std::fs;
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use maud::{html, Markup};

use super::curves::{self, Curve};
use super::evaluation::{comparisons, Comparison};
use super::gallery;
use super::history::History;
use super::outline::stage_titles;
use super::page::{self, figure, tiles, Text, Tile};
use super::results::{confusions, results};
use super::words::{duration, grouped, headline, minute, percent, rate};
use super::{amendments, text_if_there, ReportError};
use crate::record::{read_if_there, Amendment, EvaluationRow, Examples, Process, ResolvedLength, RunPaths};
use crate::whole_file;

/// Writes `report.html` into the run folder and each curve into its `curves/` as SVG, from what there is:
/// `recipe.ron`, `processes.json`, `metrics.jsonl`, `timing.jsonl`, `eval.json`, `masks.png`, `amendments.json`.
/// Returns the page's path. What is absent is left out, so a report can be made of a run that has just begun.
///
/// # Errors
/// A file cannot be read or written, or is not what its name says.
pub fn write(run_dir: &Path) -> Result<PathBuf, ReportError> {
    let paths = RunPaths::new(run_dir);
    let recipe = text_if_there(&paths.recipe())?;
    let rows = EvaluationRow::read_all(&paths.evaluations())?;
    let titles = stage_titles(recipe.as_deref().unwrap_or_default());
    let curves = curves::of_run(run_dir, &rows, &titles)?;
    write_curves(&curves, &paths.curves())?;
    let history = History::read(run_dir)?;

    let body = html! {
        (about(&paths, &history, &Process::read_all(run_dir)?, &ResolvedLength::read_all(&paths.lengths())?))
        (tiles(&numbers(&history, &rows)))
        @if let Some(swing) = history.swing() { p.warning { (swing.told()) } }
        (results(&rows, &titles))
        @if !curves.is_empty() {
            h2 { "Curves" }
            div.curves { @for curve in &curves { (figure(&curve.svg)) } }
        }
        (gallery::show(&Examples::read_all(&paths.examples())?, &titles))
        (confusions(&rows, &titles))
        (masks(&paths)?)
        (amendments::show(&Amendment::read_all(&paths.amendments())?))
        @if let Some(recipe) = &recipe {
            h2 { "Recipe" }
            pre { (Text(recipe)) }
        }
    };
    let path = paths.report();
    page::write(&run_name(run_dir), &body, &path)?;
    Ok(path)
}

fn write_curves(curves: &[Curve], folder: &Path) -> Result<(), ReportError> {
    if !curves.is_empty() {
        fs::create_dir_all(folder).map_err(ReportError::io("create", folder))?;
    }
    for curve in curves {
        let path = folder.join(curve.name).with_extension("svg");
        whole_file::replace(&path, curve.svg.as_bytes()).map_err(ReportError::io("write", &path))?;
    }
    Ok(())
}

/// Name of a run: that of its folder.
pub(super) fn run_name(run_dir: &Path) -> String {
    // The path may be `.`; its name is then that of the folder it stands for.
    let absolute = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_path_buf());
    absolute.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

/// Length, beginning, machine, version, command, duration and data of the run.
fn about(paths: &RunPaths, history: &History, processes: &[Process], lengths: &[ResolvedLength]) -> Markup {
    let complete = text_if_there(&paths.complete()).ok().flatten();
    let first = processes.first();
    let last = processes.last();
    let began = first.map(|first| match processes.len() {
        1 => minute(&first.began),
        2 => format!("{}; resumed {}", minute(&first.began), minute(&processes[1].began)),
        n => format!(
            "{}; resumed {} times, last {}",
            minute(&first.began),
            n - 1,
            minute(&processes[n - 1].began)
        ),
    });
    let version = last.map(|last| last.version.clone()).or(complete.clone());
    let machine = last.map(|last| match last.ranks {
        0 | 1 => last.machine.clone(),
        ranks => format!("{ranks} processes, the first on {}", last.machine),
    });
    let data = first.map(|first| match history.samples() {
        0 => first.data.clone(),
        samples => format!("{} pairs of {}", grouped(samples), first.data),
    });
    let training = (history.minutes() > 0.0).then(|| {
        let state = if complete.is_some() { "the run is finished" } else { "the run is not finished" };
        format!("{}; {state}", duration(history.minutes()))
    });
    let lengths: Vec<String> = lengths.iter().map(resolved).collect();
    let lengths = (!lengths.is_empty()).then(|| lengths.join("; "));
    let facts = [
        ("length", lengths),
        ("began", began),
        ("version", version.map(|version| version.trim().to_owned())),
        ("machine", machine),
        ("training", training),
        ("data", data),
    ];
    html! {
        @if first.is_some() || facts.iter().any(|(_, value)| value.is_some()) {
            dl.about {
                @if let Some(first) = first { dt { "command" } dd { code { (Text(&first.command)) } } }
                @for (name, value) in &facts {
                    @if let Some(value) = value { dt { (name) } dd { (Text(value)) } }
                }
            }
        }
    }
}

/// `stage 1: Hours(2.0) is 5,321 steps, at 1.35 s a step`.
fn resolved(length: &ResolvedLength) -> String {
    let of_each = match (length.seconds_per_step, length.flop_per_step) {
        (Some(seconds), _) => format!(", at {seconds:.3} s a step when it began"),
        (None, Some(flop)) => format!(", of {:.3} GFLOP each", flop / 1e9),
        (None, None) => String::new(),
    };
    format!("stage {}: {} is {} steps{of_each}", length.stage + 1, length.length, grouped(length.steps))
}

/// The numbers that matter first.
fn numbers(history: &History, rows: &[EvaluationRow]) -> Vec<Tile> {
    let all = comparisons(rows);
    let seconds = 60.0 * history.minutes();
    let speed = history.samples() as f64 / seconds;
    let tiles = [
        all.iter().find_map(|first| main_result(first, &all)),
        Tile::of("last contrastive loss", history.last_loss().map(|loss| format!("{loss:.4}"))),
        Tile::of("pairs seen", (history.samples() > 0).then(|| grouped(history.samples()))),
        Tile::of("training time", (seconds > 0.0).then(|| duration(history.minutes()))),
        Tile::of("images a second, mean", (seconds > 0.0 && speed > 0.0).then(|| rate(speed))),
    ];
    tiles.into_iter().flatten().collect()
}

/// The first result at its last measurement, with chance and samples.
fn main_result(first: &Comparison<'_>, all: &[Comparison<'_>]) -> Option<Tile> {
    let last = *first.values.iter().flatten().next_back()?;
    let chance = all.iter().find(|other| other.subject == first.subject && other.metric == "chance");
    let chance = chance.and_then(|chance| chance.values.iter().flatten().next_back());
    let n = grouped(first.n);
    let note = match chance.filter(|_| first.metric == "top1") {
        Some(chance) => format!("chance {}, n = {n}", percent(*chance)),
        None => format!("n = {n}"),
    };
    Some(Tile { name: headline(&first.subject, first.metric), value: first.format(last), note: Some(note) })
}

/// Training images beside what their masks leave of them.
fn masks(paths: &RunPaths) -> Result<Markup, ReportError> {
    let Some(png) = read_if_there(&paths.masks())? else { return Ok(html! {}) };
    let png = STANDARD.encode(png);
    Ok(html! {
        h2 { "Patches that the image encoder sees" }
        p { "Each training image, and beside it the same image as the encoder gets it: grey patches are dropped." }
        img.masks alt="Images beside their masked twins" src=(format!("data:image/png;base64,{png}"));
    })
}
