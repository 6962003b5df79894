//! `report.html`: a run folder as one page that can be sent on its own.

use std::fs;
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use super::curves::{self, Curve};
use super::evaluation::{comparisons, stages, Subject};
use super::gallery;
use super::history::{Axis, History};
use super::outline::{stage_titles, title};
use super::page::{begin_table, escape, facts, finish, grouped, head, push, section, table_row};
use super::{amendments, text_if_there, ReportError};
use crate::record::{read_if_there, Amendment, EvaluationRow, Examples, RunPaths};
use crate::whole_file;

/// Classes that were taken for others, of each evaluation.
const CONFUSIONS: usize = 15;

/// Writes `report.html` into the run folder and each curve into its `curves/` as SVG, from what there is:
/// `recipe.ron`, `metrics.jsonl`, `timing.jsonl`, `eval.json`, `masks.png`, `amendments.json`. Returns the page's path. What is
/// absent is left out, so a report can be made of a run that has just begun.
pub fn write(run_dir: &Path) -> Result<PathBuf, ReportError> {
    let paths = RunPaths::new(run_dir);
    let recipe = text_if_there(&paths.recipe())?;
    let rows = EvaluationRow::read_all(&paths.evaluations())?;
    let titles = stage_titles(recipe.as_deref().unwrap_or_default());
    let curves = curves::of_run(run_dir, &rows, &titles)?;
    let masks = read_if_there(&paths.masks())?;

    let folder = paths.curves();
    if !curves.is_empty() {
        fs::create_dir_all(&folder).map_err(ReportError::io("create", &folder))?;
    }
    for curve in &curves {
        let path = folder.join(curve.name).with_extension("svg");
        whole_file::replace(&path, curve.svg.as_bytes()).map_err(ReportError::io("write", &path))?;
    }

    let mut page = String::new();
    begin(&mut page, &run_name(run_dir), &History::read(run_dir)?, &rows);
    results(&mut page, &rows, &titles);
    figures(&mut page, &curves);
    gallery::show(&mut page, &Examples::read_all(&paths.examples())?, &titles);
    confusions(&mut page, &rows, &titles);
    if let Some(masks) = masks {
        section(&mut page, "What the image encoder sees");
        page.push_str(
            "<p>Beside every image the same one as training sees it: grey patches are dropped.</p>\n",
        );
        let data = STANDARD.encode(masks);
        push(
            &mut page,
            format_args!(
                "<img class=\"masks\" alt=\"Images beside their masked twins\" src=\"data:image/png;base64,{data}\">\n"
            ),
        );
    }
    amendments::show(&mut page, &Amendment::read_all(&paths.amendments())?);
    if let Some(recipe) = recipe {
        section(&mut page, "Recipe");
        push(&mut page, format_args!("<pre>{}</pre>\n", escape(&recipe)));
    }
    let path = paths.report();
    finish(page, &path)?;
    Ok(path)
}

/// What a run is called: its folder.
pub(super) fn run_name(run_dir: &Path) -> String {
    // The path may be `.`; its name is then that of the folder it stands for.
    let absolute = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_path_buf());
    absolute.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

/// Head, name, and the numbers that matter first.
fn begin(page: &mut String, name: &str, history: &History, rows: &[EvaluationRow]) {
    head(page, name);
    page.push_str("<p>A run of flip.</p>\n");
    let speeds = history.timing(|row| row.images_per_s, Axis::Steps);
    let speed = speeds.iter().map(|point| point.1).sum::<f64>() / speeds.len() as f64;
    let headline = comparisons(rows).into_iter().find_map(|first| {
        let last = *first.values.iter().flatten().next_back()?;
        Some((format!("{} {}", first.subject, first.metric.replace('_', " ")), first.format(last)))
    });
    let mut all = vec![
        ("pairs seen", (history.samples() > 0).then(|| grouped(history.samples()))),
        ("last loss", history.last_loss().map(|loss| format!("{loss:.4}"))),
        ("mean images/s", speed.is_finite().then(|| rate(speed))),
        ("training", (history.minutes() > 0.0).then(|| duration(history.minutes()))),
    ];
    if let Some((what, value)) = &headline {
        all.insert(0, (what, Some(value.clone())));
    }
    facts(page, &all);
}

/// Minutes as a person says them.
pub fn duration(minutes: f64) -> String {
    match minutes {
        minutes if minutes < 2.0 => format!("{:.0} s", minutes * 60.0),
        minutes if minutes < 120.0 => format!("{minutes:.1} min"),
        minutes => format!("{:.1} h", minutes / 60.0),
    }
}

/// How many a second, with two digits at least: never 0 of something that goes on.
pub fn rate(per_s: f64) -> String {
    match per_s {
        per_s if per_s >= 9.95 => grouped(per_s.round() as u64),
        per_s if per_s >= 0.095 => format!("{per_s:.1}"),
        per_s => format!("{per_s:.2}"),
    }
}

/// Which classes were taken for which, of the last evaluation of each subject.
fn confusions(page: &mut String, rows: &[EvaluationRow], titles: &[String]) {
    let last = |row: &&EvaluationRow| {
        let later = rows
            .iter()
            .rev()
            .find(|other| Subject::of(other) == Subject::of(row) && !other.confusions.is_empty());
        later.is_some_and(|later| std::ptr::eq(later, *row))
    };
    let shown: Vec<&EvaluationRow> =
        rows.iter().filter(|row| !row.confusions.is_empty()).filter(last).collect();
    if shown.is_empty() {
        return;
    }
    section(page, "Confusions");
    page.push_str("<div class=\"columns\">\n");
    for row in shown {
        let caption = format!("{}, {}", Subject::of(row), title(titles, row.stage));
        push(page, format_args!("<div><h3>{}</h3>\n", escape(&caption)));
        let header = ["class", "taken for"].map(|text| (text.to_owned(), false));
        begin_table(
            page,
            &[header.as_slice(), &[("n".into(), true), ("of the class".into(), true)]].concat(),
        );
        for confusion in row.confusions.iter().take(CONFUSIONS) {
            let of_class = row.per_class.iter().find(|class| class.name == confusion.class);
            let share = of_class.map_or("-".into(), |class| {
                format!("{:.0} %", 100.0 * confusion.n as f64 / class.n.max(1) as f64)
            });
            let names = [&confusion.class, &confusion.taken_for].map(|text| (text.clone(), false));
            table_row(
                page,
                "td",
                &[names.as_slice(), &[(grouped(confusion.n), true), (share, true)]].concat(),
            );
        }
        page.push_str("</table></div></div>\n");
    }
    page.push_str("</div>\n");
}

/// The evaluations, stages side by side, and the classes behind a fold.
fn results(page: &mut String, rows: &[EvaluationRow], titles: &[String]) {
    if rows.is_empty() {
        return;
    }
    section(page, "Results");
    let stages = stages(rows);
    let mut header = vec![(String::new(), false)];
    header.extend(stages.iter().map(|stage| (title(titles, *stage), true)));
    if stages.len() > 1 {
        header.push(("change".into(), true));
    }
    begin_table(page, &header);
    let columns = header.len();
    let mut former = None;
    for comparison in comparisons(rows) {
        // A row of its own keeps the columns narrow enough for a phone.
        if former != Some(comparison.subject) {
            former = Some(comparison.subject);
            let subject = escape(&comparison.subject.to_string());
            let n = grouped(comparison.n);
            push(
                page,
                format_args!(
                    "<tr><th class=\"subject\" colspan=\"{columns}\">{subject} <span>n = {n}</span></th></tr>\n"
                ),
            );
        }
        let mut cells = vec![(comparison.metric.replace('_', " "), false)];
        cells.extend(comparison.values.iter().map(|value| match value {
            Some(value) => (comparison.format(*value), true),
            None => ("-".into(), true),
        }));
        if stages.len() > 1 {
            cells.push((comparison.change().unwrap_or_default(), true));
        }
        table_row(page, "td", &cells);
    }
    page.push_str("</table></div>\n");
    for row in rows.iter().filter(|row| row.step == 0 && !row.per_class.is_empty()) {
        classes(page, row, titles);
    }
}

fn classes(page: &mut String, row: &EvaluationRow, titles: &[String]) {
    let summary = format!("{}, {}: by class", Subject::of(row), title(titles, row.stage));
    push(page, format_args!("<details><summary>{}</summary>\n", escape(&summary)));
    begin_table(page, &[("class".into(), false), ("top-1".into(), true), ("n".into(), true)]);
    for class in &row.per_class {
        let share = match class.top1.is_finite() {
            true => format!("{:.1} %", 100.0 * class.top1),
            false => "-".into(),
        };
        table_row(page, "td", &[(class.name.clone(), false), (share, true), (grouped(class.n), true)]);
    }
    page.push_str("</table></div></details>\n");
}

fn figures(page: &mut String, curves: &[Curve]) {
    if curves.is_empty() {
        return;
    }
    section(page, "Curves");
    page.push_str("<div class=\"curves\">\n");
    for curve in curves {
        // Made here, of numbers and escaped text.
        push(page, format_args!("<figure>{}</figure>\n", curve.svg));
    }
    page.push_str("</div>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_rate_is_not_zero() {
        let expected = [(5120.4, "5,120"), (9.96, "10"), (0.44, "0.4"), (0.06, "0.06"), (0.0, "0.00")];
        for (per_s, text) in expected {
            assert_eq!(rate(per_s), text);
        }
    }
}
