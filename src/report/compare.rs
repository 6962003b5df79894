//! Several runs side by side: as a table for the terminal, and as one page with their curves overlaid.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::chart::{draw, Chart};
use super::evaluation::{comparisons, trajectories};
use super::history::{Axis, History, Points};
use super::html::{duration, run_name};
use super::page::{begin_table, escape, finish, grouped, head, push, section, table_row};
use super::table::align;
use super::{text_if_there, ReportError};
use crate::record::{EvaluationRow, RunPaths};

/// Subjects whose accuracy is drawn.
const SUBJECTS: usize = 6;

/// A run as a comparison sees it.
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
    /// Reads a run folder. `fields` are those of its recipe, which is above this room.
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

/// A line of the summary: what, and a value of each run.
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
    line("images/s", &|run| {
        let speeds = run.history.timing(|row| row.images_per_s, Axis::Steps);
        let mean = speeds.iter().map(|point| point.1).sum::<f64>() / speeds.len() as f64;
        mean.is_finite().then(|| grouped(mean as u64))
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
            subject: comparison.subject.to_string(),
            what: comparison.metric.to_string(),
            best: best(&values, comparison.metric, comparison.is_share()),
            values: values.into_iter().map(text).collect(),
        });
    }
    lines
}

/// The runs with the best of several values that differ.
fn best(values: &[Option<f64>], metric: &str, is_share: bool) -> Vec<usize> {
    let better = match (metric.contains("loss"), is_share) {
        (true, _) => f64::min,
        (false, true) if metric != "chance" && !metric.starts_with("deviation") => f64::max,
        (false, _) => return Vec::new(),
    };
    let there: Vec<f64> = values.iter().flatten().copied().filter(|value| value.is_finite()).collect();
    let Some(most) = there.iter().copied().reduce(better) else { return Vec::new() };
    if there.iter().all(|value| *value == most) {
        return Vec::new();
    }
    (0..values.len()).filter(|run| values[*run] == Some(most)).collect()
}

/// A row a metric, a column a run; the best is marked with a star. Below, the fields in which the recipes
/// differ.
pub fn text(runs: &[Run]) -> String {
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
    let mut text = align(&lines);
    let differences = differences(runs);
    if !differences.is_empty() {
        header[0] = "recipe".into();
        header[1] = "field".into();
        let mut lines = vec![header];
        for (field, values) in differences {
            lines.push([vec![String::new(), field], values].concat());
        }
        text.push('\n');
        text += &align(&lines);
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
pub fn write(runs: &[Run], path: &Path) -> Result<(), ReportError> {
    let mut page = String::new();
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    head(&mut page, &names.join(" / "));
    push(&mut page, format_args!("<p>{} runs of flip side by side.</p>\n", runs.len()));
    section(&mut page, "Results");
    results(&mut page, runs);
    let curves = curves(runs)?;
    if !curves.is_empty() {
        section(&mut page, "Curves");
        page.push_str("<div class=\"curves\">\n");
        for svg in curves {
            push(&mut page, format_args!("<figure>{svg}</figure>\n"));
        }
        page.push_str("</div>\n");
    }
    section(&mut page, "Recipes");
    recipes(&mut page, runs);
    finish(page, path)
}

fn header(first: &str, runs: &[Run]) -> Vec<(String, bool)> {
    let names = runs.iter().map(|run| (run.name.clone(), true));
    std::iter::once((first.to_owned(), false)).chain(names).collect()
}

fn results(page: &mut String, runs: &[Run]) {
    begin_table(page, &header("", runs));
    let mut former = None;
    for Line { subject, what, values, best } in summary(runs) {
        if former.as_ref() != Some(&subject) {
            push(
                page,
                format_args!(
                    "<tr><th class=\"subject\" colspan=\"{}\">{}</th></tr>\n",
                    runs.len() + 1,
                    escape(&subject)
                ),
            );
            former = Some(subject);
        }
        push(page, format_args!("<tr><td>{}</td>", escape(&what.replace('_', " "))));
        for (run, value) in values.iter().enumerate() {
            let best = if best.contains(&run) { " best" } else { "" };
            push(page, format_args!("<td class=\"number{best}\">{}</td>", escape(value)));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn recipes(page: &mut String, runs: &[Run]) {
    let differences = differences(runs);
    if differences.is_empty() {
        page.push_str("<p>No field differs.</p>\n");
    } else {
        page.push_str("<p>The fields that differ.</p>\n");
        begin_table(page, &header("field", runs));
        for (field, values) in differences {
            let values = values.into_iter().map(|value| (value, true));
            table_row(page, "td", &std::iter::once((field, false)).chain(values).collect::<Vec<_>>());
        }
        page.push_str("</table></div>\n");
    }
    for run in runs {
        if let Some(recipe) = &run.recipe {
            let (name, recipe) = (escape(&run.name), escape(recipe));
            push(page, format_args!("<details><summary>{name}</summary>\n<pre>{recipe}</pre></details>\n"));
        }
    }
}

/// Loss and accuracies over pairs seen and over time.
fn curves(runs: &[Run]) -> Result<Vec<String>, ReportError> {
    let mut curves = Vec::new();
    let mut add = |title: &str, unit: &str, axis: Axis, points: &dyn Fn(&Run) -> Points| {
        let lines: Vec<(String, Points)> = runs.iter().map(|run| (run.name.clone(), points(run))).collect();
        // A colour a run: one that has no points keeps its colour for the other charts.
        let loss = unit == "nats";
        if lines.iter().any(|(_, points)| points.len() > 1)
            || !loss && lines.iter().any(|(_, points)| !points.is_empty())
        {
            let chart = Chart {
                title,
                unit,
                across: if axis == Axis::Samples { "pairs seen" } else { "minutes of training" },
                lines,
                dots: !loss,
                smooth: loss,
                from_zero: !loss,
                stages: Vec::new(),
            };
            let what = format!("the curve {title}");
            curves.push(draw(&chart).map_err(|reason| ReportError::Drawing { what, reason })?);
        }
        Ok::<(), ReportError>(())
    };
    let axes = [Axis::Samples, Axis::Minutes];
    for axis in axes {
        add("Contrastive loss", "nats", axis, &|run| run.history.metric(|row| row.loss.into(), axis))?;
    }
    let measured: Vec<_> = runs.iter().map(|run| trajectories(&run.rows)).collect();
    let mut subjects = Vec::new();
    for trajectory in measured.iter().flatten().filter(|trajectory| trajectory.is_share()) {
        let key = (trajectory.subject, trajectory.metric);
        if subjects.contains(&key) || subjects.len() == SUBJECTS {
            continue;
        }
        subjects.push(key);
        let title = trajectory.name();
        for axis in axes {
            add(&title, "%", axis, &|run| {
                let all = trajectories(&run.rows);
                let found = all.iter().find(|other| (other.subject, other.metric) == key);
                let points = found.map(|found| found.points.as_slice()).unwrap_or_default();
                let finite = points.iter().filter(|(_, value)| value.is_finite());
                finite.map(|(row, value)| (run.history.place(row, axis), 100.0 * value)).collect()
            })?;
        }
    }
    Ok(curves)
}
