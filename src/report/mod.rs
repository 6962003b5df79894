//! Curves, masks and tables that a person looks at.
//!
//! Everything here reads the files of a run folder, never the run itself, so a report can be made during a
//! run, after it, or on another machine.

mod amendments;
mod band_chart;
mod bar_chart;
mod chart;
pub mod compare;
pub mod curves;
pub mod evaluation;
pub mod found;
mod gallery;
mod history;
pub mod mask_image;
pub mod model_evaluation;
mod outline;
mod page;
mod range_chart;
mod results;
mod run_page;
mod sheet;
pub mod sweep;
pub mod table;
pub mod tensorboard;
mod thumbnail;
mod words;

use std::io;
use std::path::{Path, PathBuf};

pub use mask_image::{contact_sheet, Masked};
pub use outline::stage_titles;
pub use run_page::write;
pub use sheet::sheet;
pub use tensorboard::EventWriter;
pub use thumbnail::{fitted, thumbnail};
pub use words::{duration, rate};

use crate::record::{read_if_there, RecordError};

/// A file of a run that cannot be read, or something that cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file of a run folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A mistake of the calling code.
    #[error("cannot draw the mask: {0}")]
    Mask(String),
    #[error("{subject} has no metric {name:?}; there are {there}")]
    NoMetric { name: String, subject: String, there: String },
    #[error("cannot draw {what}: {reason}")]
    Drawing { what: String, reason: String },
}

impl ReportError {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| ReportError::Io { action, path: path.to_path_buf(), source }
    }
}

/// A file as text; none where it is absent.
fn text_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    Ok(read_if_there(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
