//! Text masking: the tokens of a caption that are encoded.

mod block;
mod frequency;
mod prioritised;
mod random;
mod truncate;

pub use block::Block;
pub use frequency::{Frequency, TokenFrequencies};
pub use prioritised::Prioritised;
pub use random::Random;
pub use truncate::Truncate;

use rand::RngCore;

use super::random_mask::Ascending;
use super::Kept;
use crate::seed::{rng, Purpose};

/// The score of a position that goes before any real token does.
pub const DROPPED_FIRST: f32 = f32::INFINITY;

/// A way to choose tokens: scores the positions of one caption; the lowest scores are kept.
pub trait TextStrategy {
    /// Number of positions kept, at most `context`; the same for every caption.
    fn kept(&self, context: usize) -> usize;

    /// Scores the positions of one caption. `scores` is `[context]`, all 0 at first; among equal scores the
    /// earlier position is kept first. `caption` holds the real tokens: what lies beyond is padding.
    /// `rng` is this caption's own.
    fn score(&self, scores: &mut [f32], caption: &[u32], rng: &mut dyn RngCore);
}

/// Captions to be masked.
#[derive(Debug, Clone, Copy)]
pub struct Captions<'a> {
    /// [batch, context] token ids, padded.
    pub tokens: &'a [u32],
    /// `[batch]` real tokens of each caption, at most `context`.
    pub lengths: &'a [u32],
    /// Tokens of a padded caption.
    pub context: usize,
    /// True if the last real token always stays: it is the end-of-text token that such a model pools at.
    pub keep_end: bool,
}

/// Draws the mask of captions; `row_of` gives the number of each in the batch of this step. The ids of a
/// row come in the order of the caption.
///
/// # Panics
/// If `captions.tokens` is not [batch, context].
pub fn draw_texts(
    strategy: &dyn TextStrategy,
    captions: &Captions<'_>,
    seed: u64,
    step: u64,
    row_of: impl Fn(usize) -> u64,
) -> Kept {
    let (batch, of) = (captions.lengths.len(), captions.context);
    assert_eq!(captions.tokens.len(), batch * of, "tokens must be [batch, context]");
    let kept = strategy.kept(of).min(of);
    let mut ids: Vec<u32> = Vec::with_capacity(batch * kept);
    let mut scores = vec![0.0; of];
    let mut order = Ascending::default();
    for (row, &length) in captions.lengths.iter().enumerate() {
        let real = (length as usize).min(of);
        let caption = &captions.tokens[row * of..][..real];
        scores.fill(0.0);
        strategy.score(&mut scores, caption, &mut rng(seed, Purpose::TextMask, step, row_of(row)));
        if captions.keep_end && real > 0 {
            scores[real - 1] = f32::NEG_INFINITY;
        }
        ids.extend(order.positions(&scores).take(kept));
        ids[row * kept..].sort_unstable();
    }
    Kept { ids, batch, kept, of }
}
