//! Several runs side by side: as a table for the terminal, and as one page with their curves overlaid.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use maud::{html, Markup};

use super::bar_chart::{self, BarChart, Bars};
use super::chart::{draw, Chart};
use super::evaluation::{comparisons, trajectories, Subject, Trajectory};
use super::history::{Axis, History, Points};
use super::page::{self, figure, heading_row, row, table, Cell, Text};
use super::results::{capital, subject_words};
use super::run_page::run_name;
use super::table::align;
use super::words::{self, duration, grouped, rate};
use super::{text_if_there, ReportError};
use crate::record::{EvaluationRow, RunPaths};

/// Subjects whose accuracy is drawn.
const SUBJECTS: usize = 6;
/// Points of a curve up to which bars show it better.
const FEW_POINTS: usize = 2;
/// Differences of recipes up to which they are shown without a fold.
const FEW_DIFFERENCES: usize = 16;

/// A run to be compared.
#[derive(Debug)]
pub struct Run {
    /// The name of its folder; with the folder before it where another run has the same.
    pub name: String,
    rows: Vec<EvaluationRow>,
    history: History,
    recipe: Option<String>,
    /// Fields of the recipe and their values, in order.
    fields: Vec<(String, String)>,
}

impl Run {
    /// Reads a run folder. `fields` are those of its recipe, which is above this module.
    ///
    /// # Errors
    /// A file of the run cannot be read.
    pub fn read(folder: &Path, fields: Vec<(String, String)>) -> Result<Self, ReportError> {
        let paths = RunPaths::new(folder);
        Ok(Run {
            name: run_name(folder),
            rows: EvaluationRow::read_all(&paths.evaluations())?,
            history: History::read(folder)?,
            recipe: text_if_there(&paths.recipe())?,
            fields,
        })
    }
}

/// Gives runs of the same name longer ones, and at last numbers.
pub fn tell_apart(runs: &mut [Run], folders: &[PathBuf]) {
    let same = |runs: &[Run], name: &str| runs.iter().filter(|run| run.name == name).count() > 1;
    for at in 0..runs.len() {
        if same(runs, &runs[at].name.clone()) {
            runs[at].name = folders[at].display().to_string();
        }
    }
    for at in 0..runs.len() {
        if same(runs, &runs[at].name.clone()) {
            runs[at].name = format!("{} ({})", runs[at].name, at + 1);
        }
    }
}

/// A line of the summary: a value of each run.
struct Line {
    subject: String,
    what: String,
    values: Vec<String>,
    /// The runs with the best value, where there is a better and a worse.
    best: Vec<usize>,
}

/// Losses, speeds, times, and every last measurement.
fn summary(runs: &[Run]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |what: &str, value: &dyn Fn(&Run) -> Option<String>| {
        let values: Vec<Option<String>> = runs.iter().map(value).collect();
        if values.iter().any(Option::is_some) {
            let values = values.into_iter().map(|value| value.unwrap_or_else(|| "-".into())).collect();
            lines.push(Line { subject: "training".into(), what: what.into(), values, best: Vec::new() });
        }
    };
    line("pairs seen", &|run| (run.history.samples() > 0).then(|| grouped(run.history.samples())));
    line("time", &|run| (run.history.minutes() > 0.0).then(|| duration(run.history.minutes())));
    line("images/s, mean", &|run| {
        let speed = run.history.samples() as f64 / (60.0 * run.history.minutes());
        (speed.is_finite() && speed > 0.0).then(|| rate(speed))
    });
    line("last loss", &|run| run.history.last_loss().map(|loss| format!("{loss:.4}")));

    let compared: Vec<_> = runs.iter().map(|run| comparisons(&run.rows)).collect();
    let mut seen = Vec::new();
    for comparison in compared.iter().flatten() {
        let key = (comparison.subject, comparison.metric);
        if seen.contains(&key) {
            continue;
        }
        seen.push(key);
        let of_run = |run: &Vec<super::evaluation::Comparison<'_>>| {
            let found = run.iter().find(|other| (other.subject, other.metric) == key)?;
            found.values.iter().flatten().next_back().copied()
        };
        let values: Vec<Option<f64>> = compared.iter().map(of_run).collect();
        let text = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| comparison.format(value));
        lines.push(Line {
            subject: subject_words(&comparison.subject),
            what: comparison.metric.to_string(),
            best: best(&values, comparison.metric, comparison.is_share(), comparison.n),
            values: values.into_iter().map(text).collect(),
        });
    }
    lines
}

/// The runs with the best of several values. Of shares of `n` samples, only those that lead by more than chance explains:
/// by twice the standard error of a difference.
fn best(values: &[Option<f64>], metric: &str, is_share: bool, n: u64) -> Vec<usize> {
    let better = match (metric.contains("loss"), is_share) {
        (true, _) => f64::min,
        (false, true) if metric != "chance" && !metric.starts_with("deviation") => f64::max,
        (false, _) => return Vec::new(),
    };
    let there: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    let Some(most) = there.iter().copied().reduce(better) else { return Vec::new() };
    // A share of all or none of the samples has an error as well: one more of each kind is counted.
    let (n, share) = (n as f64 + 2.0, (most * n as f64 + 1.0) / (n as f64 + 2.0));
    let error = if is_share { 2.0 * (2.0 * share * (1.0 - share) / n).sqrt() } else { 0.0 };
    let near = |value: &f64| (most - value).abs() <= error;
    if there.iter().all(near) {
        return Vec::new();
    }
    (0..values.len()).filter(|run| values[*run].as_ref().is_some_and(near)).collect()
}

/// A row a metric, a column a run; the best is marked with a star. Below, the fields in which the recipes
/// differ.
pub fn text(runs: &[Run], columns: Option<usize>) -> String {
    let mut header = vec![String::new(), "metric".into()];
    header.extend(runs.iter().map(|run| run.name.clone()));
    let mut lines = vec![header.clone()];
    let mut former = String::new();
    for Line { subject, what, values, best } in summary(runs) {
        let shown = if subject == former { String::new() } else { subject.clone() };
        former = subject;
        let mut line = vec![shown, what];
        line.extend(values.into_iter().enumerate().map(|(run, value)| {
            let star = if best.contains(&run) { "*" } else { " " };
            format!("{value}{star}")
        }));
        lines.push(line);
    }
    let mut text = align(&lines, columns);
    let differences = differences(runs);
    if !differences.is_empty() {
        header[0] = "recipe".into();
        header[1] = "field".into();
        let mut lines = vec![header];
        for (field, values) in differences {
            lines.push([vec![String::new(), field], values].concat());
        }
        text.push('\n');
        text += &align(&lines, columns);
    }
    text
}

/// Fields that are not the same in all recipes, with their values; `-` where a recipe lacks one.
fn differences(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let mut fields: Vec<&String> = Vec::new();
    let mut known = BTreeSet::new();
    for (field, _) in runs.iter().flat_map(|run| &run.fields) {
        if known.insert(field) {
            fields.push(field);
        }
    }
    let value = |run: &Run, field: &String| {
        let found = run.fields.iter().find(|(other, _)| other == field);
        found.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
    };
    fields
        .into_iter()
        .map(|field| (field.clone(), runs.iter().map(|run| value(run, field)).collect::<Vec<_>>()))
        .filter(|(_, values)| values.iter().any(|value| *value != values[0]))
        .collect()
}

/// Writes the page.
///
/// # Errors
/// The page cannot be drawn or written.
pub fn write(runs: &[Run], path: &Path) -> Result<(), ReportError> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let curves = curves(runs)?;
    let body = html! {
        p { (runs.len()) " runs side by side." }
        h2 { "Results" }
        div.results { (results(runs)) }
        p { "Marked: the best of its row, and what lies so near to it that the samples of the evaluation cannot tell them apart." }
        @if !curves.is_empty() {
            h2 { "Curves" }
            div.curves { @for svg in &curves { (figure(svg)) } }
        }
        h2 { "Recipes" }
        (recipes(runs))
    };
    page::write(&names.join(" / "), &body, path)
}

fn header(first: &str, runs: &[Run]) -> Vec<Cell> {
    let names = runs.iter().map(|run| Cell::number(&*run.name));
    std::iter::once(Cell::words(first)).chain(names).collect()
}

fn results(runs: &[Run]) -> Markup {
    let lines = summary(runs);
    let begins = |index: usize| index == 0 || lines[index - 1].subject != lines[index].subject;
    table(
        &header("", runs),
        &html! {
            @for (index, line) in lines.iter().enumerate() {
                @if begins(index) { (heading_row(runs.len() + 1, &capital(&line.subject), "")) }
                (row(&cells(line)))
            }
        },
    )
}

fn cells(line: &Line) -> Vec<Cell> {
    let values = line.values.iter().enumerate().map(|(run, value)| match line.best.contains(&run) {
        true => Cell::Best(value.clone()),
        false => Cell::number(&**value),
    });
    std::iter::once(Cell::words(words::metric(&line.what))).chain(values).collect()
}

fn recipes(runs: &[Run]) -> Markup {
    let differences = differences(runs);
    let rows = html! {
        @for (field, values) in &differences {
            @let values = values.iter().map(|value| Cell::number(&**value));
            (row(&std::iter::once(Cell::words(&**field)).chain(values).collect::<Vec<_>>()))
        }
    };
    let table = table(&header("field", runs), &rows);
    html! {
        @match differences.len() {
            0 => p { "No field differs." },
            n if n <= FEW_DIFFERENCES => { p { "The fields that differ." } (table) },
            n => details { summary { (n) " fields differ" } (table) },
        }
        @for run in runs {
            @if let Some(recipe) = &run.recipe {
                details {
                    summary { (Text(&run.name)) }
                    pre { (Text(recipe)) }
                }
            }
        }
    }
}

/// Loss and accuracies over pairs seen and over time; bars where there is no curve to draw.
fn curves(runs: &[Run]) -> Result<Vec<String>, ReportError> {
    let mut curves = Vec::new();
    for axis in [Axis::Samples, Axis::Minutes] {
        curves.extend(curve(runs, "Contrastive loss", "nats", axis, &|run| {
            run.history.metric(|row| row.loss.into(), axis)
        })?);
    }
    let measured: Vec<_> = runs.iter().map(|run| trajectories(&run.rows)).collect();
    let mut subjects: Vec<(Subject<'_>, &str)> = Vec::new();
    for trajectory in measured.iter().flatten().filter(|trajectory| trajectory.is_share()) {
        let key = (trajectory.subject, trajectory.metric);
        if subjects.contains(&key) || subjects.len() == SUBJECTS {
            continue;
        }
        subjects.push(key);
        let title = trajectory.name();
        let of_run = |of: &[Trajectory<'_>]| {
            let found = of.iter().find(|other| (other.subject, other.metric) == key);
            found.map_or(0, |found| found.points.len())
        };
        if measured.iter().all(|of| of_run(of) <= FEW_POINTS) {
            curves.push(bars(runs, &title, key)?);
            continue;
        }
        for axis in [Axis::Samples, Axis::Minutes] {
            curves.extend(curve(runs, &title, "%", axis, &|run| {
                let finite = finite(run, key).into_iter();
                finite.map(|(row, value)| (run.history.place(row, axis), value)).collect()
            })?);
        }
    }
    Ok(curves)
}

/// The finite values of a share in a run, in per cent, with their rows.
fn finite<'a>(run: &'a Run, key: (Subject<'_>, &str)) -> Vec<(&'a EvaluationRow, f64)> {
    let all = trajectories(&run.rows).into_iter();
    let points = all.filter(|other| (other.subject, other.metric) == key).flat_map(|found| found.points);
    points.filter(|(_, value)| value.is_finite()).map(|(row, value)| (row, 100.0 * value)).collect()
}

/// A line a run; none where no run has a line.
fn curve(
    runs: &[Run],
    title: &str,
    unit: &str,
    axis: Axis,
    points: &dyn Fn(&Run) -> Points,
) -> Result<Option<String>, ReportError> {
    // A colour a run: one that has no points keeps its colour for the other charts.
    let lines: Vec<(String, Points)> = runs.iter().map(|run| (run.name.clone(), points(run))).collect();
    if lines.iter().all(|(_, points)| points.len() < 2) {
        return Ok(None);
    }
    let loss = unit == "nats";
    let across = if axis == Axis::Samples { "pairs seen" } else { "minutes of training" };
    let stages = Vec::new();
    let chart = Chart { title, unit, across, lines, dots: !loss, smooth: loss, from_zero: !loss, stages };
    let what = format!("the curve {title}");
    draw(&chart).map(Some).map_err(|reason| ReportError::Drawing { what, reason })
}

/// Bars a run: its last values, at most [`FEW_POINTS`] of them.
fn bars(runs: &[Run], title: &str, key: (Subject<'_>, &str)) -> Result<String, ReportError> {
    let of_run = |run: &Run| Bars {
        name: run.name.clone(),
        values: finite(run, key).into_iter().map(|(_, value)| (value, format!("{value:.1} %"))).collect(),
    };
    let chart = BarChart { title, unit: "%", runs: runs.iter().map(of_run).collect() };
    let what = format!("the bars {title}");
    bar_chart::draw(&chart).map_err(|reason| ReportError::Drawing { what, reason })
}
