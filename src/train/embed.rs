//! Embedding for evaluations, which rank 0 leads. Images are read and embedded by all ranks, each its own rows of the data
//! (see [`reader`](super::reader)); texts are handed out in equal slices of rows. A row's embedding does not depend on the
//! rows beside it, so the results are those of one rank.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::mask::ImageMask;
use crate::model::GraphDevice;
use crate::ranks::reduce::slice;
use crate::ranks::{broadcast_bytes, cut, cut_mut};

use super::error::TrainError;
use super::inputs::{masked_images, whole_texts};
use super::run::Run;
use super::state::Ended;

/// Images or texts embedded at a time.
pub const EMBED_BATCH: usize = 128;

/// The two sets of samples that an evaluator may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// Those that it is about.
    Test = 0,
    /// Those that it learns from.
    Train = 1,
}

/// Message of rank 0 to the others, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// An evaluator of the stage is about to read data: open it.
    Open { evaluator: usize, part: Part },
    /// The next rows of the data that was opened.
    Read { part: Part },
    /// So many texts come, to be embedded.
    Texts { count: usize },
    /// The evaluations are over.
    End { interrupted: bool },
    /// The data of an evaluation cannot be had.
    Fail { reason: String },
}

/// Unit embeddings of [rows, context] ids; called by rank 0 while the others [serve](super::serve::serve).
///
/// # Errors
/// The model or an exchange fails.
pub fn texts<D: GraphDevice>(run: &Run<'_, D>, tokens: &[u32]) -> Result<Vec<f32>, TrainError> {
    if leads_alone(run) {
        return embed_texts(run, tokens);
    }
    let count = tokens.len() / run.config.model.text.context;
    tell(run, &Message::Texts { count })?;
    let words: Vec<f32> = tokens.iter().map(|&token| f32::from_bits(token)).collect();
    embed_slice(run, count, &words)
}

/// Tells those that [serve](super::serve::serve) that the evaluations are over.
///
/// # Errors
/// The exchange fails.
pub fn end<D: GraphDevice>(run: &Run<'_, D>, ended: Ended) -> Result<(), TrainError> {
    tell(run, &Message::End { interrupted: ended == Ended::Interrupted })
}

/// Tells those that [serve](super::serve::serve) that the data of an evaluation cannot be had.
///
/// # Errors
/// The exchange fails.
pub fn fail<D: GraphDevice>(run: &Run<'_, D>, error: &TrainError) -> Result<(), TrainError> {
    tell(run, &Message::Fail { reason: error.to_string() })
}

/// Tells those that [serve](super::serve::serve) what is next.
pub(super) fn tell<D: GraphDevice>(run: &Run<'_, D>, message: &Message) -> Result<(), TrainError> {
    let message = serde_json::to_vec(message).map_err(TrainError::message)?;
    broadcast_bytes(run.processes.ranks, &message)?;
    Ok(())
}

/// True if rank 0 evaluates without the others. Rows of the composed graph may depend on those beside them, so it embeds them
/// as one rank would.
pub(super) fn leads_alone<D: GraphDevice>(run: &Run<'_, D>) -> bool {
    run.processes.alone() || !run.model.is_fused()
}

/// Takes this rank's slice of the texts whose ids rank 0 has in `words`, embeds it, and gives it to rank 0: all embeddings
/// there, none elsewhere.
pub(super) fn embed_slice<D: GraphDevice>(
    run: &Run<'_, D>,
    count: usize,
    words: &[f32],
) -> Result<Vec<f32>, TrainError> {
    let (ranks, width, dim) =
        (run.processes.ranks, run.config.model.text.context, run.config.model.embed_dim);
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
    let tokens: Vec<u32> = mine.into_iter().map(f32::to_bits).collect();
    let embedded = embed_texts(run, &tokens)?;
    let back = on_first(dim);
    let mut all = vec![0.0; back.iter().sum()];
    ranks.exchange(&cut(&embedded, &with_first(dim)), &mut cut_mut(&mut all, &back))?;
    Ok(all)
}

/// Unit embeddings, by this rank, of the patches that `mask` leaves of [rows, size, size, 3] images at these places of their
/// data.
///
/// # Errors
/// The model fails.
pub fn embed_images<D: GraphDevice>(
    run: &Run<'_, D>,
    pixels: &[u8],
    mask: &ImageMask,
    places: &[u64],
) -> Result<Vec<f32>, TrainError> {
    let (size, patch) = (run.config.model.image.size, run.config.model.image.patch);
    let mut embeddings = Vec::new();
    for (pixels, places) in pixels.chunks(EMBED_BATCH * size * size * 3).zip(places.chunks(EMBED_BATCH)) {
        let input = masked_images(pixels, (size, patch), mask, (run.config.seed, places));
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
