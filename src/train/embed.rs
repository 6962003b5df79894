//! Embedding for evaluations, divided among ranks. Rank 0 evaluates; it hands out what is to be embedded in equal slices of
//! rows, and gets embeddings back. A row's embedding does not depend on the rows beside it, so the results are those of one
//! rank.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::mask::ImageMask;
use crate::model::GraphDevice;
use crate::ranks::reduce::slice;
use crate::ranks::{broadcast_bytes, cut, cut_mut};

use super::error::{ExchangeError, TrainError};
use super::inputs::{masked_images, whole_texts};
use super::run::Run;
use super::state::Ended;

/// Images or texts embedded at a time.
pub const EMBED_BATCH: usize = 128;

/// Rows to embed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Rows {
    /// Images under a mask; the first row is image `first` of its data.
    Images { mask: ImageMask, first: u64 },
    /// Tokens of texts.
    Texts,
}

/// Message of rank 0 to the others, as JSON.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// So many rows come.
    Embed { rows: Rows, count: usize },
    /// The evaluations are over.
    End { interrupted: bool },
    /// The data of an evaluation cannot be had.
    Fail { reason: String },
}

/// Unit embeddings of the patches that `mask` leaves of [rows, size, size, 3] images, which are those from `first` on of their
/// data; called by rank 0 while the others [`serve`].
///
/// # Errors
/// The model or an exchange fails.
pub fn images<D: GraphDevice>(
    run: &Run<'_, D>,
    pixels: &[u8],
    mask: &ImageMask,
    first: u64,
) -> Result<Vec<f32>, TrainError> {
    let image = run.config.model.image.size.pow(2) * 3;
    if embeds_alone(run) {
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
    divide(run, Rows::Images { mask: mask.clone(), first }, &words)
}

/// Unit embeddings of [rows, context] ids; called by rank 0 while the others [`serve`].
///
/// # Errors
/// The model or an exchange fails.
pub fn texts<D: GraphDevice>(run: &Run<'_, D>, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
    if embeds_alone(run) {
        return embed_texts(run, tokens);
    }
    let words: Vec<f32> = tokens.iter().map(|&token| f32::from_bits(token)).collect();
    divide(run, Rows::Texts, &words)
}

/// Embeds the rows that rank 0 hands out, until it says that the evaluations are over.
///
/// # Errors
/// The model or an exchange fails, or an evaluation on rank 0.
pub fn serve<D: GraphDevice>(run: &Run<'_, D>) -> Result<Ended, TrainError> {
    loop {
        let message = broadcast_bytes(run.processes.ranks, &[])?;
        match serde_json::from_slice(&message).map_err(TrainError::message)? {
            Message::Embed { rows, count } => embed_slice(run, &rows, count, &[])?,
            Message::End { interrupted: true } => return Ok(Ended::Interrupted),
            Message::End { interrupted: false } => return Ok(Ended::Complete),
            Message::Fail { reason } => return Err(ExchangeError::OtherRank { rank: 0, reason }.into()),
        };
    }
}

/// Tells those that [`serve`] that the evaluations are over.
///
/// # Errors
/// The exchange fails.
pub fn end<D: GraphDevice>(run: &Run<'_, D>, ended: Ended) -> Result<(), TrainError> {
    tell(run, &Message::End { interrupted: ended == Ended::Interrupted })
}

/// Tells those that [`serve`] that the data of an evaluation cannot be had.
///
/// # Errors
/// The exchange fails.
pub fn fail<D: GraphDevice>(run: &Run<'_, D>, error: &TrainError) -> Result<(), TrainError> {
    tell(run, &Message::Fail { reason: error.to_string() })
}

fn tell<D: GraphDevice>(run: &Run<'_, D>, message: &Message) -> Result<(), TrainError> {
    let message = serde_json::to_vec(message).map_err(TrainError::message)?;
    broadcast_bytes(run.processes.ranks, &message)?;
    Ok(())
}

/// True if this rank embeds without the others. Rows of the composed graph may depend on those beside them, so it embeds them
/// as one rank would.
fn embeds_alone<D: GraphDevice>(run: &Run<'_, D>) -> bool {
    run.processes.alone() || !run.model.is_fused()
}

fn divide<D: GraphDevice>(run: &Run<'_, D>, rows: Rows, words: &[f32]) -> Result<Vec<f32>, TrainError> {
    let count = words.len() / row_words(run, &rows);
    tell(run, &Message::Embed { rows: rows.clone(), count })?;
    embed_slice(run, &rows, count, words)
}

/// Words of 4 bytes in which a row is sent.
fn row_words<D: GraphDevice>(run: &Run<'_, D>, rows: &Rows) -> usize {
    match rows {
        Rows::Images { .. } => (run.config.model.image.size.pow(2) * 3).div_ceil(4),
        Rows::Texts => run.config.model.text.context,
    }
}

/// Takes this rank's slice of the rows that rank 0 has in `words`, embeds it, and gives it to rank 0: all embeddings there,
/// none elsewhere.
fn embed_slice<D: GraphDevice>(
    run: &Run<'_, D>,
    rows: &Rows,
    count: usize,
    words: &[f32],
) -> Result<Vec<f32>, TrainError> {
    let (ranks, width, dim) = (run.processes.ranks, row_words(run, rows), run.config.model.embed_dim);
    let (first, all_ranks) = (ranks.rank() == 0, ranks.count());
    let slices: Vec<Range<usize>> = (0..all_ranks).map(|rank| slice(count, rank, all_ranks)).collect();
    let own = &slices[ranks.rank()];
    // Values that this rank sends to each rank, or receives from each, where only rank 0 has any.
    let on_first = |width: usize| -> Vec<usize> {
        slices.iter().map(|rows| if first { rows.len() * width } else { 0 }).collect()
    };
    // Values of its own slice, which are for rank 0 or come from there.
    let with_first = |width: usize| -> Vec<usize> {
        (0..all_ranks).map(|rank| if rank == 0 { own.len() * width } else { 0 }).collect()
    };
    let mut mine = vec![0.0; own.len() * width];
    ranks.exchange(&cut(words, &on_first(width)), &mut cut_mut(&mut mine, &with_first(width)))?;
    let mine = mine.into_iter().map(f32::to_bits);
    let embedded = match rows {
        Rows::Images { mask, first } => {
            let image = run.config.model.image.size.pow(2) * 3;
            let bytes: Vec<u8> = mine.flat_map(u32::to_le_bytes).collect();
            let pixels: Vec<u8> =
                bytes.chunks_exact(4 * width).flat_map(|row| &row[..image]).copied().collect();
            embed_images(run, &pixels, mask, first + own.start as u64)?
        }
        Rows::Texts => embed_texts(run, &mine.collect::<Vec<u32>>())?,
    };
    let back = on_first(dim);
    let mut all = vec![0.0; back.iter().sum()];
    ranks.exchange(&cut(&embedded, &with_first(dim)), &mut cut_mut(&mut all, &back))?;
    Ok(all)
}

fn embed_images<D: GraphDevice>(
    run: &Run<'_, D>,
    pixels: &[u8],
    mask: &ImageMask,
    mut first: u64,
) -> Result<Vec<f32>, TrainError> {
    let (size, patch) = (run.config.model.image.size, run.config.model.image.patch);
    let mut embeddings = Vec::new();
    for pixels in pixels.chunks(EMBED_BATCH * size * size * 3) {
        let input = masked_images(pixels, (size, patch), mask, (run.config.seed, first));
        first += input.kept.batch as u64;
        embeddings.extend(run.model.embed_images(&input)?);
    }
    Ok(embeddings)
}

fn embed_texts<D: GraphDevice>(run: &Run<'_, D>, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
    let context = run.config.model.text.context;
    let mut embeddings = Vec::new();
    for tokens in tokens.chunks(EMBED_BATCH * context) {
        embeddings.extend(run.model.embed_texts(&whole_texts(tokens, context))?);
    }
    Ok(embeddings)
}
