//! A table of the fields that were changed while a run went on.

use maud::{html, Markup};

use super::page::{row, table, Cell};
use crate::record::Amendment;

/// A table of them.
pub(super) fn show(amendments: &[Amendment]) -> Markup {
    let header = ["field", "before", "after", "from", "when"].map(Cell::words);
    html! {
        @if !amendments.is_empty() {
            h2 { "Changed after the run had begun" }
            p { "Up to the step that is named, the former value held." }
            (table(&header, &html! {
                @for Amendment { field, old, new, when, stage, step, .. } in amendments {
                    (row(&[field, old, new, &format!("stage {stage}, step {step}"), when].map(|text| Cell::words(&**text))))
                }
            }))
        }
    }
}
