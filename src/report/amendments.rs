//! A table of the fields that were changed while a run went on.

use super::page::{begin_table, push, section, table_row};
use crate::record::Amendment;

/// A table of them.
pub(super) fn show(page: &mut String, amendments: &[Amendment]) {
    if amendments.is_empty() {
        return;
    }
    section(page, "Changed after the run had begun");
    push(page, format_args!("<p>Up to the step that is named the former value held.</p>\n"));
    let header = ["field", "before", "after", "from", "when"].map(|text| (text.to_owned(), false));
    begin_table(page, &header);
    for Amendment { field, old, new, when, stage, step, .. } in amendments {
        let from = format!("stage {stage}, step {step}");
        let cells = [field, old, new, &from, when].map(|text| (text.clone(), false));
        table_row(page, "td", &cells);
    }
    page.push_str("</table></div>\n");
}
