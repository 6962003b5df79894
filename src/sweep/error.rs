//! Errors of sweeps, apart from cells that fail.

use std::path::PathBuf;

use crate::recipe::RecipeErrors;
use crate::record::RunFolderError;
use crate::report::ReportError;

/// A sweep that could not go on, apart from cells that failed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("the recipe of {path} cannot be read: {errors}")]
    Recipe { path: PathBuf, errors: Box<RecipeErrors> },
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    #[error(transparent)]
    Report(#[from] ReportError),
}
