//! `masks.png`: the first training images beside what their masks leave.

use crate::data::load::{Loader, LoaderOptions};
use crate::data::Batch;
use crate::model::GraphDevice;
use crate::report::{contact_sheet, Masked};

use super::error::TrainError;
use super::run::Run;

/// Images shown.
pub const SHOWN: usize = 8;

/// Writes `masks.png` into the run folder: the first samples of a batch, which `loading` loaded. Their images are
/// loaded once more, whole. Ranks other than 0 write none.
///
/// # Errors
/// Data cannot be had, or the folder cannot be written.
pub fn write<D: GraphDevice>(
    run: &Run<'_, D>,
    loading: LoaderOptions,
    batch: &Batch,
) -> Result<(), TrainError> {
    let Some(recorder) = &run.recorder else { return Ok(()) };
    let kept = loading.patches.as_ref().map_or(1, |patches| patches.kept);
    let few = LoaderOptions { patches: None, ..loading };
    let whole = Loader::start(few)?.next()?.ok_or(TrainError::NoMoreData)?;
    let images = whole.pixels.chunks_exact(whole.size * whole.size * 3);
    let shown: Vec<Masked<'_>> = images
        .zip(batch.patches.chunks_exact(kept))
        .map(|(pixels, kept)| Masked { pixels, size: whole.size, kept })
        .collect();
    let png = contact_sheet(&shown, run.config.model.image.patch)?;
    recorder.folder.replace(&recorder.folder.masks(), &png)?;
    Ok(())
}
