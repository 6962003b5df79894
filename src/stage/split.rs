//! Embedding for evaluations, split over ranks. Rank 0 evaluates; what is to be embedded it hands out in equal runs of rows,
//! and gets embeddings back. A row's embedding does not depend on the rows beside it, so the results are those of one rank.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::mask::ImageMask;
use crate::model::GraphDevice;
use crate::ranks::tree::slice;
use crate::ranks::{cut, cut_mut, from_first};

use super::inputs::{self, whole_texts};
use super::training::Run;
use super::{Ended, StageError};

/// Images or texts embedded at a time.
pub const EMBED_BATCH: usize = 128;

/// What is embedded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum What {
    /// Under a mask; the first row is image `first` of its data.
    Images {
        mask: ImageMask,
        first: u64,
    },
    Texts,
}

/// What rank 0 tells the others, as JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Embed { what: What, rows: usize },
    Over { interrupted: bool },
    Failed { reason: String },
}

/// Unit embeddings of what `mask` leaves of [rows, size, size, 3] images, which are those from `first` on of their
/// data; called by rank 0 while the others [`serve`].
///
/// # Errors
/// The model or an exchange fails.
pub fn images<D: GraphDevice>(
    run: &Run<'_, D>,
    pixels: &[u8],
    mask: &ImageMask,
    first: u64,
) -> Result<Vec<f32>, StageError> {
    let image = run.model_config.image.size.pow(2) * 3;
    if alone(run) {
        return embed_images(run, pixels, mask, first);
    }
    let mut words = Vec::new();
    for pixels in pixels.chunks_exact(image) {
        words.extend(pixels.chunks(4).map(|four| {
            let mut bytes = [0; 4];
            bytes[..four.len()].copy_from_slice(four);
            f32::from_bits(u32::from_le_bytes(bytes))
        }));
    }
    split(run, What::Images { mask: mask.clone(), first }, &words)
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
        match serde_json::from_slice(&told).expect("every rank is of the same build, which is checked") {
            Told::Embed { what, rows } => share(run, &what, rows, &[])?,
            Told::Over { interrupted: true } => return Ok(Ended::Interrupted),
            Told::Over { interrupted: false } => return Ok(Ended::Complete),
            Told::Failed { reason } => return Err(StageError::OtherRank { rank: 0, reason }),
        };
    }
}

/// Tells the others.
fn tell<D: GraphDevice>(run: &Run<'_, D>, told: &Told) -> Result<(), StageError> {
    let told = serde_json::to_vec(told).expect("numbers and names always become JSON");
    from_first(run.ranks, &told)?;
    Ok(())
}

/// Tells those that [`serve`] that the evaluations are over.
///
/// # Errors
/// The exchange fails.
pub fn over<D: GraphDevice>(run: &Run<'_, D>, ended: Ended) -> Result<(), StageError> {
    tell(run, &Told::Over { interrupted: ended == Ended::Interrupted })
}

/// Tells those that [`serve`] that the data of an evaluation cannot be had.
///
/// # Errors
/// The exchange fails.
pub fn failed<D: GraphDevice>(run: &Run<'_, D>, error: &StageError) -> Result<(), StageError> {
    tell(run, &Told::Failed { reason: error.to_string() })
}

/// Rows of the composed graph may depend on those beside them, so it embeds them as one rank would.
fn alone<D: GraphDevice>(run: &Run<'_, D>) -> bool {
    run.ranks.count() == 1 || !run.model.is_fused()
}

fn split<D: GraphDevice>(run: &Run<'_, D>, what: What, words: &[f32]) -> Result<Vec<f32>, StageError> {
    let rows = words.len() / row(run, &what);
    tell(run, &Told::Embed { what: what.clone(), rows })?;
    share(run, &what, rows, words)
}

/// Words of a row on its way.
fn row<D: GraphDevice>(run: &Run<'_, D>, what: &What) -> usize {
    match what {
        What::Images { .. } => (run.model_config.image.size.pow(2) * 3).div_ceil(4),
        What::Texts => run.model_config.text.context,
    }
}

/// Takes this rank's rows of those that rank 0 has, embeds them, and gives them to rank 0: all embeddings there, none
/// elsewhere.
fn share<D: GraphDevice>(
    run: &Run<'_, D>,
    what: &What,
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
    ranks.exchange(&cut(words, &from_first(width)), &mut cut_mut(&mut mine, &to_first))?;
    let mine = mine.into_iter().map(f32::to_bits);
    let embedded = match what {
        What::Images { mask, first } => {
            let image = run.model_config.image.size.pow(2) * 3;
            let bytes: Vec<u8> = mine.flat_map(u32::to_le_bytes).collect();
            let pixels: Vec<u8> =
                bytes.chunks_exact(4 * width).flat_map(|row| &row[..image]).copied().collect();
            embed_images(run, &pixels, mask, first + slices[ranks.rank()].start as u64)?
        }
        What::Texts => embed_texts(run, &mine.collect::<Vec<u32>>())?,
    };
    to_first[0] = own * dim;
    let back = from_first(dim);
    let mut all = vec![0.0; back.iter().sum()];
    ranks.exchange(&cut(&embedded, &to_first), &mut cut_mut(&mut all, &back))?;
    Ok(all)
}

fn embed_images<D: GraphDevice>(
    run: &Run<'_, D>,
    pixels: &[u8],
    mask: &ImageMask,
    mut first: u64,
) -> Result<Vec<f32>, StageError> {
    let (size, patch) = (run.model_config.image.size, run.model_config.image.patch);
    let mut embeddings = Vec::new();
    for pixels in pixels.chunks(EMBED_BATCH * size * size * 3) {
        let input = inputs::images(pixels, (size, patch), mask, (run.seed, first));
        first += input.kept.batch as u64;
        embeddings.extend(run.model.embed_images(&input)?);
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
