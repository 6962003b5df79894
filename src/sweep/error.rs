//! Errors of sweeps, apart from cells that fail.

use std::path::PathBuf;

use crate::recipe::RecipeErrors;
use crate::record::RunFolderError;
use crate::report::ReportError;

/// A sweep that could not go on, apart from cells that failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The disk, or permissions.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The recipe of a cell.
    #[error("the recipe of {path} cannot be read: {errors}")]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// Its errors.
        errors: Box<RecipeErrors>,
    },
    /// The folder of a cell.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// The report of the sweep.
    #[error(transparent)]
    Report(#[from] ReportError),
}
