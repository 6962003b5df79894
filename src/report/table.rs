//! Final results as plain text for the terminal.

use super::evaluation::{comparisons, stages};
use super::outline::title;
use crate::outside;
use crate::record::EvaluationRow;

/// A row a metric, in the order of the evaluations; a column a stage that evaluated, so that before and
/// after unmasking stand side by side. `titles` are those of [`super::stage_titles`]; a stage without one is
/// called by its index. Empty where there are no rows.
pub fn text(rows: &[EvaluationRow], titles: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let stages = stages(rows);
    let mut header = vec!["evaluation".to_string(), "metric".into()];
    header.extend(stages.iter().map(|stage| title(titles, *stage)));
    if stages.len() > 1 {
        header.push("change".into());
    }
    header.push("n".into());

    let mut lines = vec![header];
    let mut former = None;
    for comparison in comparisons(rows) {
        let subject = match former == Some(comparison.subject) {
            true => String::new(),
            false => comparison.subject.to_string(),
        };
        former = Some(comparison.subject);
        let mut line = vec![subject, comparison.metric.to_string()];
        line.extend(
            comparison
                .values
                .iter()
                .map(|value| value.map_or_else(|| "-".to_string(), |value| comparison.format(value))),
        );
        if stages.len() > 1 {
            line.push(comparison.change().unwrap_or_default());
        }
        line.push(comparison.n.to_string());
        lines.push(line);
    }
    align(&lines)
}

/// Words to the left, numbers to the right, a rule below the header. A cell stays on its line, whatever it holds.
pub(super) fn align(lines: &[Vec<String>]) -> String {
    let shown = |line: &Vec<String>| line.iter().map(|cell| outside::shown(cell).into_owned()).collect();
    let lines: Vec<Vec<String>> = lines.iter().map(shown).collect();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| match column {
                0 | 1 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
        if index == 0 {
            text.push_str(&"-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
            text.push('\n');
        }
    }
    text
}
