//! From a batch of pictures and captions to what the encoders see: the masks are drawn, the kept
//! patches and tokens gathered, and the rows split into micro-batches.

use crate::data::Batch;
use crate::mask::{Captions, Kept, TokenFrequencies};
use crate::model::{gather_patches, ImageInput, ModelConfig, PatchValues, TextInput, TextPool};

use super::plan::TrainingPlan;

/// Inputs of one update, a pair of entries a micro-batch.
#[derive(Debug, Clone)]
pub struct StepInputs {
    pub images: Vec<ImageInput>,
    pub texts: Vec<TextInput>,
}

/// Draws the masks of update `step` (counted over the whole run) and gathers what they keep. A row's
/// mask depends on (seed, step, row in the batch), not on the micro-batch it falls into.
pub fn masked(
    batch: &Batch,
    plan: &TrainingPlan,
    model: &ModelConfig,
    frequencies: Option<&TokenFrequencies>,
    seed: u64,
    step: u64,
) -> StepInputs {
    let rows = batch.lengths.len();
    let context = model.text.context;
    let grid = batch.size / model.image.patch;
    let picture = batch.size * batch.size * 3;
    let keep_end = model.text.pool == TextPool::EndOfText;
    let mut inputs = StepInputs { images: Vec::new(), texts: Vec::new() };
    for first in (0..rows).step_by(plan.micro_batch) {
        let last = (first + plan.micro_batch).min(rows);
        let kept = plan.image_mask.draw(grid, last - first, seed, step, first as u64);
        let pixels = &batch.pixels[first * picture..last * picture];
        inputs.images.push(image_input(pixels, batch.size, model.image.patch, kept));

        let tokens = &batch.tokens[first * context..last * context];
        let captions = Captions { tokens, lengths: &batch.lengths[first..last], context, keep_end };
        let kept = plan.text_mask.draw(&captions, frequencies, seed, step, first as u64);
        inputs.texts.push(text_input(tokens, context, kept));
    }
    inputs
}

/// Every patch of [rows, size, size, 3] pictures.
pub fn whole_pictures(pixels: &[u8], size: usize, patch: usize) -> ImageInput {
    let grid = size / patch;
    let rows = pixels.len() / (size * size * 3);
    image_input(pixels, size, patch, Kept::all(rows, grid * grid))
}

/// Every token of [rows, context] ids.
pub fn whole_texts(tokens: &[u32], context: usize) -> TextInput {
    text_input(tokens, context, Kept::all(tokens.len() / context, context))
}

fn image_input(pixels: &[u8], size: usize, patch: usize, kept: Kept) -> ImageInput {
    let patches = PatchValues::Bytes(gather_patches(pixels, size, patch, &kept));
    ImageInput { patches, kept, grid: size / patch }
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
