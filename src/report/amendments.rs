//! What was changed in a recipe after its run had begun: `amendments.json` of a run folder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::page::{begin_table, push, section, table_row};
use super::{read_if_there, ReportError};

/// A field that was given another value, and where the run stood then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Amendment {
    /// As it was asked for, `PATH=VALUE`.
    pub set: String,
    pub field: String,
    pub old: String,
    pub new: String,
    /// UTC, RFC 3339.
    pub when: String,
    /// Of the checkpoint that the run went on from: from there on the new value holds.
    pub stage: usize,
    pub step: u64,
    /// Pairs seen up to there.
    pub samples: u64,
}

impl Amendment {
    /// Those of a run, in order; none where there is no file.
    ///
    /// # Errors
    /// The file is there and is something else.
    pub fn read_all(path: &Path) -> Result<Vec<Amendment>, ReportError> {
        let Some(text) = read_if_there(path)? else { return Ok(Vec::new()) };
        serde_json::from_str(&text)
            .map_err(|source| ReportError::Amendments { path: path.to_path_buf(), source })
    }
}

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
