//! Final results as plain text for the terminal.

use super::evaluation::{comparisons, stages};
use super::outline::title;
use crate::outside;
use crate::record::EvaluationRow;

/// A row a metric, in the order of the evaluations; a column a stage that evaluated, so that before and
/// after unmasking stand side by side. `titles` are those of [`super::stage_titles`]; a stage without one is
/// called by its index. Empty where there are no rows. Where the table is wider than `columns`, each row becomes a list.
pub fn text(rows: &[EvaluationRow], titles: &[String], columns: Option<usize>) -> String {
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
    align(&lines, columns)
}

/// Words to the left, numbers to the right, a rule below the header. A cell stays on its line, whatever it holds. A table
/// that is wider than `columns` becomes a list a row.
pub(super) fn align(lines: &[Vec<String>], columns: Option<usize>) -> String {
    let shown = |line: &Vec<String>| line.iter().map(|cell| outside::shown(cell).into_owned()).collect();
    let lines: Vec<Vec<String>> = lines.iter().map(shown).collect();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let wide = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    if columns.is_some_and(|columns| wide > columns) {
        return lists(&lines);
    }
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
            text.push_str(&"-".repeat(wide));
            text.push('\n');
        }
    }
    text
}

/// Each row as lines of a name and a value, below the words of its first cell.
fn lists(lines: &[Vec<String>]) -> String {
    let Some((header, rows)) = lines.split_first() else { return String::new() };
    let longest = header.iter().skip(1).map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        if !text.is_empty() {
            text.push('\n');
        }
        if !row[0].is_empty() {
            text.push_str(&row[0]);
            text.push('\n');
        }
        for (name, cell) in header.iter().zip(row).skip(1).filter(|(_, cell)| !cell.is_empty()) {
            text.push_str(&format!("  {name:<longest$}  {cell}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_wide_becomes_lists() {
        let lines =
            [["evaluation", "metric", "after pretrain"], ["birds", "top1", "50.00 %"], ["", "top5", ""]];
        let lines: Vec<Vec<String>> = lines.iter().map(|line| line.map(str::to_owned).to_vec()).collect();
        assert!(align(&lines, Some(36)).starts_with("evaluation  metric  after pretrain\n-----"));
        assert_eq!(
            align(&lines, Some(20)),
            "birds\n  metric          top1\n  after pretrain  50.00 %\n\n  metric          top5\n"
        );
    }
}
