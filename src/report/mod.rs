//! Curves, masks and tables that a person looks at.
//!
//! Everything here reads the files of a run folder, never the run itself, so a report can be made during a
//! run, after it, or on another machine.

pub mod amendments;
mod band_chart;
mod chart;
pub mod compare;
pub mod curves;
pub mod evaluation;
pub mod examples;
mod gallery;
mod history;
pub mod html;
pub mod mask_image;
mod outline;
mod page;
mod range_chart;
mod raster;
mod sheet;
pub mod sweep;
pub mod table;
pub mod tensorboard;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use amendments::Amendment;
pub use evaluation::{ClassRow, ConfusionRow, EvalRow};
pub use examples::{thumbnail, Answer, Example, Examples};
pub use html::{duration, rate, write};
pub use mask_image::{contact_sheet, Masked};
pub use outline::stage_titles;
pub use sheet::sheet;
pub use tensorboard::EventWriter;

/// Why something could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not a list of evaluations: {source}")]
    Evaluations { path: PathBuf, source: serde_json::Error },
    #[error("{path} holds no examples of an evaluation: {source}")]
    Examples { path: PathBuf, source: serde_json::Error },
    #[error("{path} is no list of amendments: {source}")]
    Amendments { path: PathBuf, source: serde_json::Error },
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

/// The file as text, or nothing where it is absent: a run that is young has not written everything yet.
fn read_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ReportError::io("read", path)(error)),
    }
}
