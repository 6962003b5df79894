//! `report.html` of a sweep.

use std::path::{Path, PathBuf};

use maud::{html, Markup};

use super::charts::{sooner, Drawn};
use super::summary::Summary;
use super::table::{meaning, rows};
use super::{Along, Metric, Outcome, Sweep};
use crate::report::evaluation::Subject;
use crate::report::history::Swing;
use crate::report::page::{self, figure, heading_row, row, table, tiles, Cell, Text, Tile};
use crate::report::results::capital;
use crate::report::words::{self, duration, grouped};
use crate::report::ReportError;

pub(super) fn write(
    sweep: &Sweep,
    metric: Option<&Metric>,
    summaries: Option<&[Summary]>,
    charts: &[Drawn],
    out: &Path,
) -> Result<PathBuf, ReportError> {
    let body = html! {
        @match &sweep.claim {
            Some(claim) => p.claim { (Text(claim)) },
            None => p { (sweep.settings.len()) " settings of one recipe, compared." },
        }
        (tiles(&numbers(sweep)))
        (warnings(sweep))
        @if let (Some(metric), Some(summaries)) = (metric, summaries) {
            h2 { (Text(capital(&metric.title()))) }
            (outcome(sweep, metric, summaries))
            @if !charts.is_empty() {
                div.charts { @for chart in charts { (figure(&chart.svg)) } }
                (reading(sweep, metric, summaries))
            }
            (others(sweep))
        }
        (runs(sweep, metric))
        h2 { "Study" }
        pre { (Text(&sweep.study)) }
    };
    let path = out.join("report.html");
    page::write(&sweep.name, &body, &path)?;
    Ok(path)
}

fn numbers(sweep: &Sweep) -> Vec<Tile> {
    let cells = || sweep.settings.iter().flat_map(|setting| &setting.cells);
    let finished = cells().filter(|cell| cell.finished()).count();
    let planned: usize = sweep.settings.iter().map(|setting| setting.planned.max(setting.cells.len())).sum();
    let failed = cells().filter(|cell| matches!(cell.outcome, Outcome::Failed(_))).count();
    let seconds: f64 = cells().map(|cell| cell.spent.train_s).sum();
    let tiles = [
        Tile::of("settings", Some(sweep.settings.len().to_string())),
        Tile::of("finished runs", Some(format!("{finished} of {planned}"))),
        Tile::of("failed runs", (failed > 0).then(|| failed.to_string())),
        Tile::of("training time of all runs", (seconds > 0.0).then(|| duration(seconds / 60.0))),
    ];
    tiles.into_iter().flatten().collect()
}

/// Reasons to trust the comparison less: a single seed, and a machine that was busy.
fn warnings(sweep: &Sweep) -> Markup {
    let single =
        sweep.settings.len() > 1 && sweep.settings.iter().any(|setting| setting.finished().count() == 1);
    let swings: Vec<&Swing> = sweep
        .settings
        .iter()
        .flat_map(|setting| &setting.cells)
        .filter_map(|cell| cell.swing.as_ref())
        .collect();
    let runs: usize = sweep.settings.iter().map(|setting| setting.cells.len()).sum();
    let slow = swings.iter().map(|swing| swing.slow).fold(f64::INFINITY, f64::min);
    let fast = swings.iter().map(|swing| swing.fast).fold(0.0, f64::max);
    html! {
        @if single {
            p.warning {
                "A setting has one finished seed only: what it seems to gain or to lose may be chance. Three seeds or more "
                "(--seeds 3) tell how far seeds alone differ."
            }
        }
        @if !swings.is_empty() {
            p.warning {
                "In " (swings.len()) " of " (runs) " runs the speed swung, at most between "
                (words::rate(slow)) " and " (words::rate(fast))
                " images a second: the machine was busy with something else, or data came late. Compare by compute and pairs, "
                "not by time."
            }
        }
    }
}

/// In words which setting was sooner, and the table.
fn outcome(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Markup {
    let baseline = sweep.settings.get(sweep.baseline).zip(summaries.get(sweep.baseline));
    let baseline = baseline.and_then(|(setting, summary)| Some((setting, summary.last?)));
    let mut sentences = Vec::new();
    if let Some((baseline, last)) = baseline {
        for (index, (setting, summary)) in sweep.settings.iter().zip(summaries).enumerate() {
            let [time, flops, samples] = &summary.reached;
            let (Some(ratio), true) = (time.ratio, index != sweep.baseline) else { continue };
            let mut parts = vec![sooner(ratio, Along::Time)];
            parts.extend(flops.ratio.map(|ratio| sooner(ratio, Along::Flops)));
            parts.extend(samples.ratio.map(|ratio| sooner(ratio, Along::Samples)));
            sentences.push(format!(
                "{} is as good as {} at its end ({}): {}.",
                setting.name,
                baseline.name,
                metric.format(last.mean),
                parts.join(", ")
            ));
        }
    }
    let numeric = |row: &Vec<String>| -> Vec<Cell> {
        let cell = |(column, text): (usize, &String)| match column {
            0 => Cell::words(&**text),
            _ => Cell::number(&**text),
        };
        row.iter().enumerate().map(cell).collect()
    };
    let rows = rows(sweep, metric, summaries);
    html! {
        @for sentence in &sentences { p { (Text(sentence)) } }
        div.wide { (table(&numeric(&rows[0]), &html! { @for cells in &rows[1..] { (row(&numeric(cells))) } })) }
    }
}

/// Explanation of the charts.
fn reading(sweep: &Sweep, metric: &Metric, summaries: &[Summary]) -> Markup {
    html! {
        p {
            "Lines are means over seeds, bands reach from the smallest to the largest value. Training time is that of the \
             steps with the wait for their data, on this machine: without evaluations, checkpoints, the start of the \
             process, and pauses (between a kill and its resumption, or while it was stopped). Training compute counts the \
             matrix products of forward and backward over the patches and tokens that are kept; it does not depend on the \
             machine. Only finished runs are drawn."
        }
        @if let Some(meaning) = meaning(sweep, metric, summaries) { p { (Text(capital(&meaning))) "." } }
    }
}

/// All metrics that the runs ended with.
fn others(sweep: &Sweep) -> Markup {
    let mut metrics: Vec<(String, Metric)> = Vec::new();
    let finished = sweep.settings.iter().flat_map(|setting| setting.finished());
    for measured in finished.flat_map(|cell| &cell.measured) {
        let subject = Subject::of(&measured.row).to_string();
        for (name, _) in &measured.row.metrics {
            if !metrics.iter().any(|(other, metric)| *other == subject && metric.name == *name) {
                metrics.push((subject.clone(), sweep.metric_of(&measured.row, name)));
            }
        }
    }
    if metrics.len() < 2 {
        return html! {};
    }
    let names = sweep.settings.iter().map(|setting| Cell::number(&*setting.name));
    let header: Vec<Cell> = std::iter::once(Cell::words("")).chain(names).collect();
    let begins = |index: usize| index == 0 || metrics[index - 1].0 != metrics[index].0;
    html! {
        h2 { "All measurements at the end" }
        (table(&header, &html! {
            @for (index, (subject, metric)) in metrics.iter().enumerate() {
                @if begins(index) { (heading_row(header.len(), &capital(subject), "")) }
                (row(&at_the_end(sweep, metric)))
            }
        }))
    }
}

/// A row: a metric as each setting ends with it.
fn at_the_end(sweep: &Sweep, metric: &Metric) -> Vec<Cell> {
    let mut cells = vec![Cell::words(words::metric(&metric.name))];
    cells.extend(sweep.settings.iter().map(|setting| {
        Cell::number(match super::summary::last(setting, metric) {
            Some(last) if last.least == last.most => metric.format(last.mean),
            Some(last) => format!(
                "{} ({} to {})",
                metric.format(last.mean),
                super::table::plain(metric, last.least),
                super::table::plain(metric, last.most)
            ),
            None => "-".into(),
        })
    }));
    cells
}

/// Every run, with a link to its own page.
fn runs(sweep: &Sweep, metric: Option<&Metric>) -> Markup {
    let header = [
        Cell::words("setting"),
        Cell::number("seed"),
        Cell::words(""),
        Cell::number("result"),
        Cell::number("pairs"),
        Cell::number("training"),
    ];
    let result = |cell: &super::Cell| {
        let metric = metric?;
        let mut values = cell.measured.iter().filter_map(|measured| metric.of(&measured.row));
        Some(metric.format(values.next_back()?))
    };
    html! {
        h2 { "Runs" }
        (table(&header, &html! {
            @for setting in &sweep.settings {
                @for cell in &setting.cells {
                    tr {
                        td { (Text(&setting.name)) }
                        td.number { (cell.seed) }
                        td {
                            @match &cell.outcome {
                                Outcome::Finished => a href=(Text(format!("{}/report.html", cell.folder))) { "report" },
                                Outcome::Unfinished => "not finished",
                                Outcome::Failed(reason) => { "failed: " (Text(reason)) }
                            }
                        }
                        td.number { (result(cell).unwrap_or("-".into())) }
                        td.number { (grouped(cell.spent.samples as u64)) }
                        td.number { (duration(cell.spent.train_s / 60.0)) }
                    }
                }
            }
        }))
    }
}
