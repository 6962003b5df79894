//! Embedding for evaluations, split over ranks. Rank 0 evaluates; what is to be embedded it hands out in equal runs of rows,
//! and gets embeddings back. A row's embedding does not depend on the rows beside it, so the results are those of one rank.

use std::ops::Range;

use crate::model::GraphDevice;
use crate::ranks::from_first;
use crate::ranks::tree::slice;

use super::inputs::{whole_pictures, whole_texts};
use super::training::Run;
use super::{Ended, StageError};

/// Pictures or texts embedded at a time.
pub const EMBED_BATCH: usize = 128;

/// What is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Pictures,
    Texts,
}

/// What rank 0 asks of the others, in a byte and a number.
const PICTURES: u8 = 0;
const TEXTS: u8 = 1;
const COMPLETE: u8 = 2;
const INTERRUPTED: u8 = 3;

/// Unit embeddings of [rows, size, size, 3] pictures; called by rank 0 while the others [`serve`].
///
/// # Errors
/// The model or an exchange fails.
pub fn pictures<D: GraphDevice>(run: &Run<'_, D>, pixels: &[u8]) -> Result<Vec<f32>, StageError> {
    let picture = run.model_config.image.size.pow(2) * 3;
    if alone(run) {
        return embed_pictures(run, pixels);
    }
    let mut words = Vec::new();
    for pixels in pixels.chunks_exact(picture) {
        words.extend(pixels.chunks(4).map(|four| {
            let mut bytes = [0; 4];
            bytes[..four.len()].copy_from_slice(four);
            f32::from_bits(u32::from_le_bytes(bytes))
        }));
    }
    split(run, What::Pictures, &words)
}

/// Unit embeddings of [rows, context] ids; called by rank 0 while the others [`serve`].
///
/// # Errors
/// The model or an exchange fails.
pub fn texts<D: GraphDevice>(run: &Run<'_, D>, tokens: &[u32]) -> Result<Vec<f32>, StageError> {
    if alone(run) {
        return embed_texts(run, tokens);
    }
    let words: Vec<f32> = tokens.iter().map(|&token| f32::from_bits(token)).collect();
    split(run, What::Texts, &words)
}

/// Embeds what rank 0 hands out until it says that the evaluations are over, and how.
///
/// # Errors
/// The model or an exchange fails.
pub fn serve<D: GraphDevice>(run: &Run<'_, D>) -> Result<Ended, StageError> {
    loop {
        let told = from_first(run.ranks, &[])?;
        let rows = told.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        let what = match told.first() {
            Some(&PICTURES) => What::Pictures,
            Some(&TEXTS) => What::Texts,
            Some(&INTERRUPTED) => return Ok(Ended::Interrupted),
            _ => return Ok(Ended::Complete),
        };
        share(run, what, rows as usize, &[])?;
    }
}

/// Tells those that [`serve`] that the evaluations are over.
///
/// # Errors
/// The exchange fails.
pub fn over<D: GraphDevice>(run: &Run<'_, D>, ended: Ended) -> Result<(), StageError> {
    let said = if ended == Ended::Interrupted { INTERRUPTED } else { COMPLETE };
    from_first(run.ranks, &[said])?;
    Ok(())
}

/// Rows of the composed graph may depend on those beside them, so it embeds them as one rank would.
fn alone<D: GraphDevice>(run: &Run<'_, D>) -> bool {
    run.ranks.count() == 1 || !run.model.is_fused()
}

fn split<D: GraphDevice>(run: &Run<'_, D>, what: What, words: &[f32]) -> Result<Vec<f32>, StageError> {
    let rows = words.len() / row(run, what);
    let kind = if what == What::Pictures { PICTURES } else { TEXTS };
    from_first(run.ranks, &[&[kind][..], &(rows as u64).to_le_bytes()].concat())?;
    share(run, what, rows, words)
}

/// Words of a row on its way.
fn row<D: GraphDevice>(run: &Run<'_, D>, what: What) -> usize {
    match what {
        What::Pictures => (run.model_config.image.size.pow(2) * 3).div_ceil(4),
        What::Texts => run.model_config.text.context,
    }
}

/// Takes this rank's rows of those that rank 0 has, embeds them, and gives them to rank 0: all embeddings there, none
/// elsewhere.
fn share<D: GraphDevice>(
    run: &Run<'_, D>,
    what: What,
    rows: usize,
    words: &[f32],
) -> Result<Vec<f32>, StageError> {
    let (ranks, width, dim) = (run.ranks, row(run, what), run.model_config.embed_dim);
    let (first, count) = (ranks.rank() == 0, ranks.count());
    let slices: Vec<Range<usize>> = (0..count).map(|rank| slice(rows, rank, count)).collect();
    let own = slices[ranks.rank()].len();
    let from_first = |width: usize| -> Vec<usize> {
        slices.iter().map(|rows| if first { rows.len() * width } else { 0 }).collect()
    };
    let mut to_first = vec![0; count];
    to_first[0] = own * width;
    let mut mine = vec![0.0; own * width];
    ranks.exchange(words, &from_first(width), &mut mine, &to_first)?;
    let mine = mine.into_iter().map(f32::to_bits);
    let embedded = match what {
        What::Pictures => {
            let picture = run.model_config.image.size.pow(2) * 3;
            let bytes: Vec<u8> = mine.flat_map(u32::to_le_bytes).collect();
            let pixels: Vec<u8> =
                bytes.chunks_exact(4 * width).flat_map(|row| &row[..picture]).copied().collect();
            embed_pictures(run, &pixels)?
        }
        What::Texts => embed_texts(run, &mine.collect::<Vec<u32>>())?,
    };
    to_first[0] = own * dim;
    let back = from_first(dim);
    let mut all = vec![0.0; back.iter().sum()];
    ranks.exchange(&embedded, &to_first, &mut all, &back)?;
    Ok(all)
}

fn embed_pictures<D: GraphDevice>(run: &Run<'_, D>, pixels: &[u8]) -> Result<Vec<f32>, StageError> {
    let (size, patch) = (run.model_config.image.size, run.model_config.image.patch);
    let mut embeddings = Vec::new();
    for pixels in pixels.chunks(EMBED_BATCH * size * size * 3) {
        embeddings.extend(run.model.embed_images(&whole_pictures(pixels, size, patch))?);
    }
    Ok(embeddings)
}

fn embed_texts<D: GraphDevice>(run: &Run<'_, D>, tokens: &[u32]) -> Result<Vec<f32>, StageError> {
    let context = run.model_config.text.context;
    let mut embeddings = Vec::new();
    for tokens in tokens.chunks(EMBED_BATCH * context) {
        embeddings.extend(run.model.embed_texts(&whole_texts(tokens, context))?);
    }
    Ok(embeddings)
}
