//! Results of a run as tables: every measurement with chance, classes and samples beside it, classes, confusions.

use maud::{html, Markup};

use super::evaluation::{comparisons, is_setting, stages, Comparison, Subject};
use super::outline::title;
use super::page::{heading_row, row, table, Cell, Text};
use super::words::{self, grouped};
use crate::record::EvaluationRow;

/// Classes that were taken for others, of each evaluation.
const CONFUSIONS: usize = 15;

/// The evaluations, stages side by side, and the classes behind a fold.
pub(super) fn results(rows: &[EvaluationRow], titles: &[String]) -> Markup {
    if rows.is_empty() {
        return html! {};
    }
    let stages = stages(rows);
    let all = comparisons(rows);
    // Columns of their own for the settings that most evaluations have.
    let columns: Vec<&str> = ["chance", "classes"]
        .into_iter()
        .filter(|name| all.iter().any(|comparison| comparison.metric == *name))
        .collect();
    let mut header = vec![Cell::words("")];
    header.extend(stages.iter().map(|stage| Cell::number(title(titles, *stage))));
    if stages.len() > 1 {
        header.push(Cell::number("change"));
    }
    header.extend(columns.iter().map(|name| Cell::number(*name)));
    header.push(Cell::number("n"));

    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for comparison in &all {
        if !subjects.contains(&comparison.subject) {
            subjects.push(comparison.subject);
        }
    }
    let body = html! {
        @for subject in subjects {
            @let of_subject: Vec<&Comparison<'_>> =
                all.iter().filter(|comparison| comparison.subject == subject).collect();
            // A row of its own keeps the columns narrow enough for a phone.
            (heading_row(header.len(), &capital(&subject_words(&subject)), &settings(&of_subject, &columns)))
            @for (index, comparison) in measured(&of_subject).enumerate() {
                (row(&cells(comparison, &of_subject, &columns, index == 0, stages.len() > 1)))
            }
        }
    };
    html! {
        h2 { "Results" }
        div.results { (table(&header, &body)) }
        @for row in rows.iter().filter(|row| row.step == 0 && !row.per_class.is_empty()) {
            (classes(row, titles))
        }
    }
}

/// The metrics of a subject without its settings, which are columns or stand beside its name.
fn measured<'a>(of_subject: &'a [&Comparison<'a>]) -> impl Iterator<Item = &'a Comparison<'a>> {
    of_subject.iter().copied().filter(|comparison| !is_setting(comparison.metric))
}

/// A row: value by stage, the change, and in the first row of a subject what it is to be judged by.
fn cells(
    comparison: &Comparison<'_>,
    of_subject: &[&Comparison<'_>],
    columns: &[&str],
    first: bool,
    change: bool,
) -> Vec<Cell> {
    let mut cells = vec![Cell::words(words::metric(comparison.metric))];
    cells.extend(
        comparison.values.iter().map(|value| {
            Cell::number(value.map_or_else(|| "-".to_owned(), |value| comparison.format(value)))
        }),
    );
    if change {
        cells.push(Cell::number(comparison.change().unwrap_or_default()));
    }
    for name in columns {
        let known = of_subject.iter().filter(|_| first).find(|other| other.metric == *name);
        let last = known.and_then(|known| Some(known.format(*known.values.iter().flatten().next_back()?)));
        cells.push(Cell::number(last.unwrap_or_default()));
    }
    cells.push(Cell::number(if first { grouped(comparison.n) } else { String::new() }));
    cells
}

/// The settings of a subject that have no column: `captions 2,000`.
fn settings(of_subject: &[&Comparison<'_>], columns: &[&str]) -> String {
    let others =
        of_subject.iter().filter(|other| is_setting(other.metric) && !columns.contains(&other.metric));
    let told = others.filter_map(|other| {
        let value = *other.values.iter().flatten().next_back()?;
        // None without a label is as it should be.
        (other.metric != "unlabelled" || value > 0.0)
            .then(|| format!("{} {}", other.metric.replace('_', " "), other.format(value)))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// `zero-shot classification: birds / source classes`.
pub(super) fn subject_words(subject: &Subject<'_>) -> String {
    let mut text = format!("{}: {}", words::kind(subject.kind), subject.dataset);
    if !subject.task.is_empty() && subject.task != subject.dataset {
        text.push_str(&format!(" / {}", subject.task));
    }
    text
}

/// With a capital.
pub(super) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn classes(of: &EvaluationRow, titles: &[String]) -> Markup {
    let summary = format!("{}, {}: by class", subject_words(&Subject::of(of)), title(titles, of.stage));
    let header = [Cell::words("class"), Cell::number("accuracy"), Cell::number("n")];
    let body = html! {
        @for class in &of.per_class {
            @let share = match class.top1.is_finite() {
                true => format!("{:.1} %", 100.0 * class.top1),
                false => "-".into(),
            };
            (row(&[Cell::words(&*class.name), Cell::number(share), Cell::number(grouped(class.n))]))
        }
    };
    html! {
        details {
            summary { (Text(summary)) }
            (table(&header, &body))
        }
    }
}

/// Classes that were taken for which other ones, of the last evaluation of each subject.
pub(super) fn confusions(rows: &[EvaluationRow], titles: &[String]) -> Markup {
    let last = |row: &&EvaluationRow| {
        let later = rows
            .iter()
            .rev()
            .find(|other| Subject::of(other) == Subject::of(row) && !other.confusions.is_empty());
        later.is_some_and(|later| std::ptr::eq(later, *row))
    };
    let shown: Vec<&EvaluationRow> =
        rows.iter().filter(|row| !row.confusions.is_empty()).filter(last).collect();
    let header =
        [Cell::words("class"), Cell::words("taken for"), Cell::number("n"), Cell::number("of the class")];
    html! {
        @if !shown.is_empty() {
            h2 { "Confusions" }
            div.columns {
                @for of in shown {
                    div {
                        h3 { (Text(format!("{}, {}", subject_words(&Subject::of(of)), title(titles, of.stage)))) }
                        (table(&header, &html! {
                            @for confusion in of.confusions.iter().take(CONFUSIONS) {
                                @let class = of.per_class.iter().find(|class| class.name == confusion.class);
                                @let share = class.map_or("-".into(), |class| {
                                    format!("{:.0} %", 100.0 * confusion.n as f64 / class.n.max(1) as f64)
                                });
                                (row(&[
                                    Cell::words(&*confusion.class), Cell::words(&*confusion.taken_for),
                                    Cell::number(grouped(confusion.n)), Cell::number(share),
                                ]))
                            }
                        }))
                    }
                }
            }
        }
    }
}
