//! A picture of what the encoder gets to see: the first training pictures beside what their masks leave.

use crate::data::Batch;
use crate::model::GraphDevice;
use crate::report::{contact_sheet, Masked};

use super::inputs::StepInputs;
use super::training::Run;
use super::StageError;

/// Pictures shown.
const SHOWN: usize = 8;

/// Writes `masks.png` into the run folder.
pub fn write<D: GraphDevice>(run: &Run<'_, D>, batch: &Batch, inputs: &StepInputs) -> Result<(), StageError> {
    let picture = batch.size * batch.size * 3;
    let kept = inputs.images.iter().flat_map(|input| input.kept.ids.chunks_exact(input.kept.kept));
    let shown: Vec<Masked<'_>> = batch
        .pixels
        .chunks_exact(picture)
        .zip(kept)
        .take(SHOWN)
        .map(|(pixels, kept)| Masked { pixels, size: batch.size, kept })
        .collect();
    let png = contact_sheet(&shown, run.model_config.image.patch)?;
    run.folder.replace(&run.folder.masks(), &png)?;
    Ok(())
}
