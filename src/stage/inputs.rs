//! From a batch of patches and captions to what the encoders see: the text masks are drawn, the kept tokens
//! gathered, and the rows split into micro-batches.

use std::sync::Arc;

use crate::data::load::Patches;
use crate::data::Batch;
use crate::mask::{Captions, ImageMask, Kept, TokenFrequencies};
use crate::model::{gather_patches, ImageInput, ModelConfig, PatchValues, TextInput, TextPool};

use super::plan::TrainingPlan;

/// Inputs of one update, a pair of entries a micro-batch.
#[derive(Debug, Clone)]
pub struct StepInputs {
    pub images: Vec<ImageInput>,
    pub texts: Vec<TextInput>,
}

/// The image mask of a stage as the loader wants it: drawn for each sample from (seed, epoch, index), so that
/// only what it keeps is ever resized, and so that neither the batch nor the rank that a sample falls into
/// changes it.
pub fn patches(plan: &TrainingPlan, model: &ModelConfig, seed: u64) -> Patches {
    let side = model.image.patch;
    let grid = plan.image_size / side;
    let mask = plan.image_mask.clone();
    let keep = move |epoch, index| mask.draw(grid, 1, seed, epoch, index).ids;
    Patches { side, kept: plan.image_mask.kept(grid), keep: Arc::new(keep) }
}

/// A part of a batch that is divided into several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub index: usize,
    /// Parts in all.
    pub of: usize,
}

impl Part {
    /// The only one.
    pub const WHOLE: Part = Part { index: 0, of: 1 };
}

/// Splits a part of a batch of [`patches`], and draws the text masks of update `step` (counted over the whole run). A
/// row's text mask depends on (seed, step, row in the batch), not on the micro-batch it falls into; parts take turns at
/// rows.
pub fn masked(
    batch: &Batch,
    part: Part,
    plan: &TrainingPlan,
    model: &ModelConfig,
    frequencies: Option<&TokenFrequencies>,
    seed: u64,
    step: u64,
) -> StepInputs {
    let rows = batch.lengths.len();
    let context = model.text.context;
    let grid = batch.size / model.image.patch;
    let kept_patches = plan.image_mask.kept(grid);
    let image = kept_patches * model.image.patch_values();
    let keep_end = model.text.pool == TextPool::EndOfText;
    let mut inputs = StepInputs { images: Vec::new(), texts: Vec::new() };
    for first in (0..rows).step_by(plan.micro_batch) {
        let last = (first + plan.micro_batch).min(rows);
        let ids = batch.patches[first * kept_patches..last * kept_patches].to_vec();
        let kept = Kept { ids, batch: last - first, kept: kept_patches, of: grid * grid };
        let patches = PatchValues::Bytes(batch.pixels[first * image..last * image].to_vec());
        inputs.images.push(ImageInput { patches, kept, grid });

        let tokens = &batch.tokens[first * context..last * context];
        let captions = Captions { tokens, lengths: &batch.lengths[first..last], context, keep_end };
        let place = ((first * part.of + part.index) as u64, part.of as u64);
        let kept = plan.text_mask.draw_rows(&captions, frequencies, seed, step, place);
        inputs.texts.push(text_input(tokens, context, kept));
    }
    inputs
}

/// Every patch of [rows, size, size, 3] images.
pub fn whole_images(pixels: &[u8], size: usize, patch: usize) -> ImageInput {
    images(pixels, (size, patch), &ImageMask::Keep, (0, 0))
}

/// Patches of [rows, size, size, 3] images, which are those from `first` on of their data.
pub fn images(
    pixels: &[u8],
    (size, patch): (usize, usize),
    mask: &ImageMask,
    (seed, first): (u64, u64),
) -> ImageInput {
    let grid = size / patch;
    let rows = pixels.len() / (size * size * 3);
    let kept = mask.draw(grid, rows, seed, 0, first);
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
