//! `report.html` of a sweep.

use std::path::{Path, PathBuf};

use super::charts::{sooner, Drawn};
use super::summary::Summary;
use super::table::{meaning, rows};
use super::{Along, Metric, Outcome, Sweep};
use crate::report::evaluation::Subject;
use crate::report::html::duration;
use crate::report::page::{begin_table, escape, facts, finish, grouped, head, push, section, table_row};
use crate::report::ReportError;

pub(super) fn write(
    sweep: &Sweep,
    metric: Option<&Metric>,
    summaries: Option<&[Summary]>,
    charts: &[Drawn],
    out: &Path,
) -> Result<PathBuf, ReportError> {
    let mut page = String::new();
    head(&mut page, &sweep.name);
    match &sweep.claim {
        Some(claim) => push(&mut page, format_args!("<p class=\"claim\">{}</p>\n", escape(claim))),
        None => page.push_str("<p>A sweep of flip.</p>\n"),
    }
    numbers(&mut page, sweep);
    if let (Some(metric), Some(summaries)) = (metric, summaries) {
        section(&mut page, &metric.title());
        outcome(&mut page, sweep, metric, summaries);
        if !charts.is_empty() {
            page.push_str("<div class=\"charts\">\n");
            for chart in charts {
                // Made here, of numbers and escaped text.
                push(&mut page, format_args!("<figure>{}</figure>\n", chart.svg));
            }
            page.push_str("</div>\n");
            reading(&mut page, sweep, metric, summaries);
        }
        others(&mut page, sweep);
    }
    runs(&mut page, sweep, metric);
    section(&mut page, "Study");
    push(&mut page, format_args!("<pre>{}</pre>\n", escape(&sweep.study)));
    let path = out.join("report.html");
    finish(page, &path)?;
    Ok(path)
}

fn numbers(page: &mut String, sweep: &Sweep) {
    let cells = || sweep.settings.iter().flat_map(|setting| &setting.cells);
    let finished = cells().filter(|cell| cell.finished()).count();
    let planned: usize = sweep.settings.iter().map(|setting| setting.planned.max(setting.cells.len())).sum();
    let failed = cells().filter(|cell| matches!(cell.outcome, Outcome::Failed(_))).count();
    let seconds: f64 = cells().map(|cell| cell.spent.train_s).sum();
    facts(
        page,
        &[
            ("settings", Some(sweep.settings.len().to_string())),
            ("finished runs", Some(format!("{finished} of {planned}"))),
            ("failed runs", (failed > 0).then(|| failed.to_string())),
            ("training in all", (seconds > 0.0).then(|| duration(seconds / 60.0))),
        ],
    );
}

/// The table, and in words who was sooner.
fn outcome(page: &mut String, sweep: &Sweep, metric: &Metric, summaries: &[Summary]) {
    let baseline = sweep.settings.get(sweep.baseline).zip(summaries.get(sweep.baseline));
    if let Some((baseline, last)) = baseline.and_then(|(setting, summary)| Some((setting, summary.last?))) {
        for (index, (setting, summary)) in sweep.settings.iter().zip(summaries).enumerate() {
            let [time, flops, samples] = &summary.reached;
            let (Some(ratio), true) = (time.ratio, index != sweep.baseline) else { continue };
            let mut parts = vec![sooner(ratio, Along::Time)];
            parts.extend(flops.ratio.map(|ratio| sooner(ratio, Along::Flops)));
            parts.extend(samples.ratio.map(|ratio| sooner(ratio, Along::Samples)));
            push(
                page,
                format_args!(
                    "<p>{} is as good as {} at its end ({}): {}.</p>\n",
                    escape(&setting.name),
                    escape(&baseline.name),
                    escape(&metric.format(last.mean)),
                    parts.join(", "),
                ),
            );
        }
    }
    let rows = rows(sweep, metric, summaries);
    let numeric = |row: &Vec<String>| -> Vec<(String, bool)> {
        row.iter().enumerate().map(|(column, text)| (text.clone(), column > 0)).collect()
    };
    begin_table(page, &numeric(&rows[0]));
    for row in &rows[1..] {
        table_row(page, "td", &numeric(row));
    }
    page.push_str("</table></div>\n");
}

/// What the reader of a chart has to know.
fn reading(page: &mut String, sweep: &Sweep, metric: &Metric, summaries: &[Summary]) {
    page.push_str(
        "<p>Lines are means over seeds, bands reach from the smallest to the largest value. Training time is that of \
         the steps with the wait for their data, on this machine: without evaluations, checkpoints, the start of the \
         process, and pauses: between a kill and its resumption, or while it was stopped. Training compute counts the matrix products of forward \
         and backward pass over the patches and tokens that are kept; it does not depend on the machine. Only finished \
         runs are drawn.</p>\n",
    );
    if let Some(meaning) = meaning(sweep, metric, summaries) {
        push(page, format_args!("<p>{}.</p>\n", escape(&meaning.replacen("sooner", "Sooner", 1))));
    }
}

/// What every run ended with, all metrics.
fn others(page: &mut String, sweep: &Sweep) {
    let mut subjects: Vec<(String, String, super::Metric)> = Vec::new();
    for setting in &sweep.settings {
        for cell in setting.finished() {
            for measured in &cell.measured {
                for (name, _) in &measured.row.metrics {
                    let row = &measured.row;
                    let known = subjects.iter().any(|(subject, metric, _)| {
                        *subject == Subject::of(row).to_string() && metric == name
                    });
                    if !known {
                        let found = sweep.metric_of(row, name);
                        subjects.push((Subject::of(row).to_string(), name.clone(), found));
                    }
                }
            }
        }
    }
    if subjects.len() < 2 {
        return;
    }
    section(page, "All measurements at the end");
    let mut header = vec![(String::new(), false)];
    header.extend(sweep.settings.iter().map(|setting| (setting.name.clone(), true)));
    begin_table(page, &header);
    let mut former = String::new();
    for (subject, name, metric) in subjects {
        if former != subject {
            push(
                page,
                format_args!(
                    "<tr><th class=\"subject\" colspan=\"{}\">{}</th></tr>\n",
                    sweep.settings.len() + 1,
                    escape(&subject)
                ),
            );
            former = subject;
        }
        let mut row = vec![(name.replace('_', " "), false)];
        for setting in &sweep.settings {
            let text = match super::summary::last(setting, &metric) {
                Some(last) if last.least == last.most => metric.format(last.mean),
                Some(last) => format!(
                    "{} ({} to {})",
                    metric.format(last.mean),
                    super::table::plain(&metric, last.least),
                    super::table::plain(&metric, last.most)
                ),
                None => "-".into(),
            };
            row.push((text, true));
        }
        table_row(page, "td", &row);
    }
    page.push_str("</table></div>\n");
}

/// Every run, with a link to its own page.
fn runs(page: &mut String, sweep: &Sweep, metric: Option<&Metric>) {
    section(page, "Runs");
    let header = [
        ("setting", false),
        ("seed", true),
        ("", false),
        ("result", true),
        ("pairs", true),
        ("training", true),
    ];
    begin_table(page, &header.map(|(text, number)| (text.to_owned(), number)));
    for setting in &sweep.settings {
        for cell in &setting.cells {
            let last = metric.and_then(|metric| {
                let values = cell.measured.iter().filter_map(|measured| metric.of(&measured.row));
                Some(metric.format(values.last()?))
            });
            let state = match &cell.outcome {
                Outcome::Finished => format!("<a href=\"{}/report.html\">report</a>", escape(&cell.folder)),
                Outcome::Unfinished => "not finished".into(),
                Outcome::Failed(reason) => format!("failed: {}", escape(reason)),
            };
            push(
                page,
                format_args!(
                    "<tr><td>{}</td><td class=\"number\">{}</td><td>{state}</td><td class=\"number\">{}</td><td \
                     class=\"number\">{}</td><td class=\"number\">{}</td></tr>\n",
                    escape(&setting.name),
                    cell.seed,
                    last.unwrap_or("-".into()),
                    grouped(cell.spent.samples as u64),
                    duration(cell.spent.train_s / 60.0),
                ),
            );
        }
    }
    page.push_str("</table></div>\n");
}
