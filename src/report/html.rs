//! `report.html`: a run folder as one page that can be sent on its own. No scripts, nothing to download.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;

use super::curves::{self, Curve};
use super::evaluation::{comparisons, stages, EvalRow};
use super::history::History;
use super::outline::{stage_titles, title};
use super::{read_if_there, ReportError};

const STYLE: &str = include_str!("report.css");

/// Writes `report.html` into the run folder and each curve into its `curves/` as SVG, from what there is:
/// `recipe.ron`, `metrics.jsonl`, `timing.jsonl`, `eval.json`, `masks.png`. Returns the page's path. What is
/// absent is left out, so a report can be made of a run that has just begun.
pub fn write(run_dir: &Path) -> Result<PathBuf, ReportError> {
    let recipe = read_if_there(&run_dir.join("recipe.ron"))?;
    let rows = EvalRow::read(&run_dir.join("eval.json"))?;
    let titles = stage_titles(recipe.as_deref().unwrap_or_default());
    let curves = curves::of_run(run_dir, &rows, &titles)?;
    let masks = read_picture(&run_dir.join("masks.png"))?;

    let folder = run_dir.join("curves");
    if !curves.is_empty() {
        fs::create_dir_all(&folder).map_err(ReportError::io("create", &folder))?;
    }
    for curve in &curves {
        let path = folder.join(curve.name).with_extension("svg");
        fs::write(&path, &curve.svg).map_err(ReportError::io("write", &path))?;
    }

    let name = run_name(run_dir);
    let mut page = String::new();
    begin(&mut page, &name, &History::read(run_dir)?);
    results(&mut page, &rows, &titles);
    figures(&mut page, &curves);
    if let Some(masks) = masks {
        section(&mut page, "What the image encoder sees");
        page.push_str(
            "<p>Beside every picture the same one as training sees it: grey patches are dropped.</p>\n",
        );
        let data = STANDARD.encode(masks);
        push(
            &mut page,
            format_args!(
                "<img alt=\"Pictures beside their masked twins\" src=\"data:image/png;base64,{data}\">\n"
            ),
        );
    }
    if let Some(recipe) = recipe {
        section(&mut page, "Recipe");
        push(&mut page, format_args!("<pre>{}</pre>\n", escape(&recipe)));
    }
    page.push_str("</body>\n</html>\n");

    let path = run_dir.join("report.html");
    // Renamed into place: a browser that reloads during the write sees the former page.
    let partial = run_dir.join(".report.html.partial");
    fs::write(&partial, page).map_err(ReportError::io("write", &partial))?;
    fs::rename(&partial, &path).map_err(ReportError::io("write", &path))?;
    Ok(path)
}

fn run_name(run_dir: &Path) -> String {
    // The path may be `.`; its name is then that of the folder it stands for.
    let absolute = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_path_buf());
    absolute.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

fn read_picture(path: &Path) -> Result<Option<Vec<u8>>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReportError::io("read", path)(error)),
    }
}

/// Head, name, and the numbers that matter first.
fn begin(page: &mut String, name: &str, history: &History) {
    let name = escape(name);
    push(
        page,
        format_args!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{name} - flip</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <h1>{name}</h1>\n<p>A run of flip.</p>\n"
        ),
    );
    let speeds = history.timing("images_per_s");
    let speed = speeds.iter().map(|point| point.1).sum::<f64>() / speeds.len() as f64;
    let facts = [
        ("pairs seen", (history.samples() > 0).then(|| grouped(history.samples()))),
        ("last loss", history.last("loss").map(|loss| format!("{loss:.4}"))),
        ("mean images/s", speed.is_finite().then(|| grouped(speed as u64))),
    ];
    if facts.iter().any(|(_, value)| value.is_some()) {
        page.push_str("<dl>\n");
        for (what, value) in facts {
            if let Some(value) = value {
                push(page, format_args!("<div><dt>{what}</dt><dd>{value}</dd></div>\n"));
            }
        }
        page.push_str("</dl>\n");
    }
}

/// The evaluations, stages side by side, and the classes behind a fold.
fn results(page: &mut String, rows: &[EvalRow], titles: &[String]) {
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
    for row in rows.iter().filter(|row| !row.per_class.is_empty()) {
        classes(page, row, titles);
    }
}

fn classes(page: &mut String, row: &EvalRow, titles: &[String]) {
    let summary = format!("{}, {}: by class", row.subject(), title(titles, row.stage));
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

fn section(page: &mut String, heading: &str) {
    push(page, format_args!("<h2>{heading}</h2>\n"));
}

fn begin_table(page: &mut String, header: &[(String, bool)]) {
    page.push_str("<div class=\"scroll\"><table>\n");
    table_row(page, "th", header);
}

/// Cells of text, and whether they are numbers.
fn table_row(page: &mut String, tag: &str, cells: &[(String, bool)]) {
    page.push_str("<tr>");
    for (text, number) in cells {
        let class = if *number { " class=\"number\"" } else { "" };
        push(page, format_args!("<{tag}{class}>{}</{tag}>", escape(text)));
    }
    page.push_str("</tr>\n");
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("writing into a String cannot fail");
}

/// Text as HTML text or as the value of an attribute in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Digits in groups of three.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
