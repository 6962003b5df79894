//! Results of `flip evaluate`: a table on the terminal, and a page.

use std::path::Path;

use maud::{html, Markup};

use super::evaluation::is_share;
use super::page::{self, row, table, tiles, Cell, Text, Tile};
use super::table::align;
use super::words::{self, grouped, percent};
use super::ReportError;
use crate::record::{Failed, Measured, MissingSet, ModelEvaluation};
use crate::terminal;

/// Confusions that are shown of each data set.
const CONFUSIONS: usize = 10;

/// The table, as wide as `columns` where they are known; then what failed, and what is missing.
pub fn text(of: &ModelEvaluation, columns: Option<usize>) -> String {
    let mut text = String::new();
    if !of.results.is_empty() {
        let header =
            ["data set", "evaluator", "metric", "value", "chance", "top-1", "mean/class", "n", "time"];
        let mut lines = vec![header.map(str::to_owned).to_vec()];
        lines.extend(of.results.iter().map(|measured| cells(measured).to_vec()));
        text.push_str(&align(&lines, columns));
    }
    for Failed { kind, dataset, reason } in &of.failed {
        text.push_str(&format!("failed: {} {dataset}: {reason}\n", words::kind(kind)));
    }
    if !of.missing.is_empty() {
        text.push_str(&format!("not there, of those that papers report ({}):\n", of.missing.len()));
        for MissingSet { title, how_to_get, .. } in &of.missing {
            text.push_str(&format!("  {title}: {how_to_get}\n"));
        }
    }
    text
}

/// A line of the table.
fn cells(of: &Measured) -> [String; 9] {
    let Measured { evaluation, .. } = of;
    let named = |name: &str| {
        let found = evaluation.metrics.iter().find(|(metric, _)| metric == name);
        found.map_or_else(String::new, |(_, value)| shown(name, *value))
    };
    let seconds = terminal::duration(of.seconds);
    let time = if of.cached { format!("{seconds}, cached") } else { seconds };
    [
        evaluation.dataset.clone(),
        evaluator(of),
        words::metric(&of.metric),
        shown(&of.metric, of.value),
        of.chance.map_or_else(String::new, percent),
        named("top1"),
        named("mean_per_class"),
        grouped(evaluation.n),
        time,
    ]
}

fn evaluator(of: &Measured) -> String {
    let kind = words::kind(&of.evaluation.kind);
    match of.evaluation.task.as_str() {
        task if task.starts_with("before the projection") => format!("{kind}, {task}"),
        _ => kind,
    }
}

fn shown(metric: &str, value: f64) -> String {
    match is_share(metric, [value].into_iter()) {
        _ if !value.is_finite() => "not finite".into(),
        true => format!("{:.2} %", 100.0 * value),
        false => format!("{value:.4}"),
    }
}

/// Writes the page.
///
/// # Errors
/// It cannot be written.
pub fn write_page(of: &ModelEvaluation, path: &Path) -> Result<(), ReportError> {
    let body = html! {
        dl.about {
            dt { "model" } dd { (Text(&of.model)) }
            dt { "checkpoint" } dd { (Text(&of.checkpoint)) }
            dt { "its hash" } dd { code { (Text(&of.model_hash)) } }
            dt { "version" } dd { (Text(&of.version)) }
        }
        (tiles(&means(of)))
        @if !of.results.is_empty() {
            h2 { "Results" }
            div.results { (results(of)) }
        }
        @if !of.failed.is_empty() {
            h2 { "Failed" }
            (table(&[Cell::words("data set"), Cell::words("evaluator"), Cell::words("reason")], &html! {
                @for Failed { kind, dataset, reason } in &of.failed {
                    (row(&[Cell::words(dataset), Cell::words(words::kind(kind)), Cell::words(reason)]))
                }
            }))
        }
        @for measured in of.results.iter().filter(|measured| !measured.evaluation.per_class.is_empty()) {
            (classes(measured))
        }
        @if !of.missing.is_empty() {
            h2 { "Not there" }
            p { "Data sets that papers report and that were not found." }
            (table(&[Cell::words("data set"), Cell::words("how to get it")], &html! {
                @for MissingSet { title, how_to_get, .. } in &of.missing {
                    (row(&[Cell::words(title), Cell::words(how_to_get)]))
                }
            }))
        }
    };
    page::write(&format!("Evaluation of {}", of.model), &body, path)
}

fn results(of: &ModelEvaluation) -> Markup {
    let words = ["data set", "evaluator", "metric"].map(Cell::words);
    let numbers = ["value", "chance", "top-1", "mean/class", "n", "time"].map(Cell::number);
    let header: Vec<Cell> = words.into_iter().chain(numbers).collect();
    table(
        &header,
        &html! {
            @for measured in &of.results {
                @let cells: Vec<Cell> = cells(measured).into_iter().enumerate().map(|(at, cell)| match at {
                    0..3 => Cell::words(cell),
                    _ => Cell::number(cell),
                }).collect();
                (row(&cells))
            }
        },
    )
}

/// The mean over data sets of each evaluator, where there are several.
fn means(of: &ModelEvaluation) -> Vec<Tile> {
    let mut names: Vec<String> = Vec::new();
    for measured in &of.results {
        if !names.contains(&evaluator(measured)) {
            names.push(evaluator(measured));
        }
    }
    let tile = |name: String| {
        let all: Vec<&Measured> = of.results.iter().filter(|measured| evaluator(measured) == name).collect();
        let mean = all.iter().map(|measured| measured.value).sum::<f64>() / all.len() as f64;
        let value =
            if is_share("", [mean].into_iter()) { format!("{:.1} %", 100.0 * mean) } else { return None };
        let note = match all.len() {
            1 => all[0].evaluation.dataset.clone(),
            n => format!("mean of {n} results"),
        };
        Some(Tile { name, value, note: Some(note) })
    };
    names.into_iter().filter_map(tile).collect()
}

/// Classes of a data set and what they were taken for, behind a fold.
fn classes(of: &Measured) -> Markup {
    let what = match of.evaluation.metrics.first() {
        Some((name, _)) if name == "map" => "average precision",
        _ => "accuracy",
    };
    html! {
        details {
            summary { (Text(format!("{}, {}: by class", of.evaluation.dataset, evaluator(of)))) }
            (table(&[Cell::words("class"), Cell::number(what), Cell::number("n")], &html! {
                @for class in &of.evaluation.per_class {
                    (row(&[Cell::words(&*class.name), Cell::number(shown("top1", class.top1)), Cell::number(grouped(class.n))]))
                }
            }))
            @if !of.evaluation.confusions.is_empty() {
                (table(&[Cell::words("class"), Cell::words("taken for"), Cell::number("n")], &html! {
                    @for confusion in of.evaluation.confusions.iter().take(CONFUSIONS) {
                        (row(&[
                            Cell::words(&*confusion.class), Cell::words(&*confusion.taken_for),
                            Cell::number(grouped(confusion.n)),
                        ]))
                    }
                }))
            }
        }
    }
}
