//! An image of what the encoder gets to see: the first training images beside what their masks leave.

use crate::data::load::{Loader, LoaderOptions};
use crate::data::Batch;
use crate::model::GraphDevice;
use crate::report::{contact_sheet, Masked};

use super::training::Run;
use super::StageError;

/// Images shown.
const SHOWN: usize = 8;

/// Writes `masks.png` into the run folder: the first samples of a batch, which `plan` loaded. Their images are
/// loaded once more, whole. Ranks other than 0 write none.
pub fn write<D: GraphDevice>(run: &Run<'_, D>, plan: LoaderOptions, batch: &Batch) -> Result<(), StageError> {
    let Some(records) = &run.records else { return Ok(()) };
    let kept = plan.patches.as_ref().map_or(1, |patches| patches.kept);
    let mut loader = Loader::start(LoaderOptions { batch: plan.batch.min(SHOWN), patches: None, ..plan })?;
    let whole = loader.next()?.ok_or(StageError::NoMoreData)?;
    let images = whole.pixels.chunks_exact(whole.size * whole.size * 3);
    let shown: Vec<Masked<'_>> = images
        .zip(batch.patches.chunks_exact(kept))
        .map(|(pixels, kept)| Masked { pixels, size: whole.size, kept })
        .collect();
    let png = contact_sheet(&shown, run.model_config.image.patch)?;
    records.folder.replace(&records.folder.masks(), &png)?;
    Ok(())
}
