//! From a batch of patches and captions to the inputs of the encoders: text masks are drawn, kept tokens gathered, and rows
//! split into micro-batches.

use std::sync::Arc;

use crate::data::load::Patches;
use crate::data::Batch;
use crate::mask::{Captions, ImageMask, Kept, TokenFrequencies};
use crate::model::{gather_patches, ImageInput, ModelConfig, PatchValues, TextInput};

use super::plan::TrainingPlan;

/// Inputs of one update, a pair of entries a micro-batch.
#[derive(Debug, Clone)]
pub struct StepInputs {
    /// Patches of each micro-batch.
    pub images: Vec<ImageInput>,
    /// Tokens of each micro-batch.
    pub texts: Vec<TextInput>,
}

/// A part of a batch that is divided into several. It has rows of some lanes, one lane after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// Its number, from 0.
    pub index: usize,
    /// Parts in all.
    pub of: usize,
    /// Lanes of each part; one where parts take turns at the rows of one order.
    pub lanes: usize,
}

impl BatchPart {
    /// The only one.
    pub const WHOLE: BatchPart = BatchPart { index: 0, of: 1, lanes: 1 };

    /// The number in the batch, lanes taking turns, of a row of this part, which has so many in all.
    fn row_of(self, row: usize, rows: usize) -> u64 {
        let of_lane = (rows / self.lanes).max(1);
        let (lane, turn) = (self.index * self.lanes + row / of_lane, row % of_lane);
        (turn * self.of * self.lanes + lane) as u64
    }
}

/// Draws the masks of a stage.
#[derive(Debug, Clone, Copy)]
pub struct Masking<'a> {
    /// The stage.
    pub plan: &'a TrainingPlan,
    /// The model.
    pub model: &'a ModelConfig,
    /// Frequencies of tokens, for text masks that ask for them.
    pub frequencies: Option<&'a TokenFrequencies>,
    /// Seed of the run.
    pub seed: u64,
}

impl Masking<'_> {
    /// The image mask as the loader wants it: drawn for each sample from (seed, epoch, index), so that only patches that it
    /// keeps are ever resized, and so that neither the batch nor the rank that a sample falls into changes it.
    pub fn patches(&self) -> Patches {
        let side = self.model.image.patch;
        let (grid, seed) = (self.plan.image_size / side, self.seed);
        let mask = self.plan.config.image_mask.clone();
        let kept = mask.kept(grid);
        let keep = move |epoch, index| mask.draw(grid, 1, seed, epoch, index).ids;
        Patches { side, kept, keep: Arc::new(keep) }
    }

    /// Splits a part of a batch that was loaded with [`patches`](Self::patches) into micro-batches, and draws the text masks
    /// of update `step`, counted over the whole run. The text mask of a row depends on (seed, step, row in the batch), not on
    /// the micro-batch that it falls into.
    pub fn inputs(&self, batch: &Batch, part: BatchPart, step: u64) -> StepInputs {
        let Masking { plan, model, frequencies, seed } = *self;
        let rows = batch.lengths.len();
        let context = model.text.context;
        let grid = batch.size / model.image.patch;
        let kept_patches = plan.config.image_mask.kept(grid);
        let image = kept_patches * model.image.patch_values();
        let keep_end = model.text.pool.reads_end();
        let mut inputs = StepInputs { images: Vec::new(), texts: Vec::new() };
        for first in (0..rows).step_by(plan.micro_batch) {
            let last = (first + plan.micro_batch).min(rows);
            let ids = batch.patches[first * kept_patches..last * kept_patches].to_vec();
            let kept = Kept { ids, batch: last - first, kept: kept_patches, of: grid * grid };
            let patches = PatchValues::Bytes(batch.pixels[first * image..last * image].to_vec());
            inputs.images.push(ImageInput { patches, kept, grid });

            let tokens = &batch.tokens[first * context..last * context];
            let captions = Captions { tokens, lengths: &batch.lengths[first..last], context, keep_end };
            let row_of = |row| part.row_of(first + row, rows);
            let kept = plan.config.text_mask.draw_rows(&captions, frequencies, seed, step, row_of);
            inputs.texts.push(text_input(tokens, context, kept));
        }
        inputs
    }
}

/// Every patch of [rows, size, size, 3] images.
pub fn whole_images(pixels: &[u8], size: usize, patch: usize) -> ImageInput {
    let places = vec![0; pixels.len() / (size * size * 3)];
    masked_images(pixels, (size, patch), &ImageMask::Keep, (0, &places))
}

/// Patches that a mask keeps of [rows, size, size, 3] images, each drawn from (seed, place of the image in its data).
pub fn masked_images(
    pixels: &[u8],
    (size, patch): (usize, usize),
    mask: &ImageMask,
    (seed, places): (u64, &[u64]),
) -> ImageInput {
    let grid = size / patch;
    let ids = places.iter().flat_map(|&place| mask.draw(grid, 1, seed, 0, place).ids).collect();
    let kept = Kept { ids, batch: places.len(), kept: mask.kept(grid), of: grid * grid };
    let patches = PatchValues::Bytes(gather_patches(pixels, size, patch, &kept));
    ImageInput { patches, kept, grid }
}

/// Every token of [rows, context] ids.
pub fn whole_texts(tokens: &[u32], context: usize) -> TextInput {
    text_input(tokens, context, Kept::all(tokens.len() / context, context))
}

fn text_input(tokens: &[u32], context: usize, kept: Kept) -> TextInput {
    let tokens = kept
        .ids
        .chunks_exact(kept.kept)
        .zip(tokens.chunks_exact(context))
        .flat_map(|(ids, row)| ids.iter().map(|&id| row[id as usize]))
        .collect();
    TextInput { tokens, kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_one_number_however_lanes_are_dealt_to_parts() {
        // 24 rows of 4 lanes, part after part.
        let numbers = |parts: usize| -> Vec<u64> {
            let of = |index| BatchPart { index, of: parts, lanes: 4 / parts };
            (0..24).map(|row| of(row / (24 / parts)).row_of(row % (24 / parts), 24 / parts)).collect()
        };
        assert_eq!(numbers(1), numbers(2));
        assert_eq!(numbers(1), numbers(4));
        let mut sorted = numbers(4);
        sorted.sort();
        assert_eq!(sorted, (0..24).collect::<Vec<_>>());
        assert_eq!(BatchPart::WHOLE.row_of(5, 24), 5);
        assert_eq!(BatchPart { index: 1, of: 3, lanes: 1 }.row_of(2, 8), 7);
    }
}
