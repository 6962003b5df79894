//! Entry of this process in the run folder: command, machine and data, for the report.

use crate::data::source::Source;
use crate::data::SourceConfig;
use crate::device;
use crate::recipe::Recipe;
use crate::record::{Process, RecordError, RunFolder};

/// Adds this process to those that worked on the run in `folder`. `gpu` is the ordinal of the GPU that it computes on,
/// `ranks` is the number of processes that work together.
///
/// # Errors
/// The folder cannot be read or written, or was moved.
pub(super) fn record(
    folder: &RunFolder,
    recipe: &Recipe,
    train: &dyn Source,
    gpu: Option<usize>,
    ranks: usize,
) -> Result<(), RecordError> {
    folder.still_there()?;
    let data = match recipe.data.train {
        SourceConfig::Scenes(_) => "the built-in scenes".to_owned(),
        _ => train.name(),
    };
    let gpu = gpu.and_then(|ordinal| device::gpu(ordinal).ok()).map(|gpu| gpu.name);
    Process::here(gpu.as_deref(), ranks, &data).append_to(folder.root())
}
