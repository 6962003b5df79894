use rand::{Rng, RngCore};

use super::{TextStrategy, DROPPED_FIRST};
use crate::mask::Ratio;

/// One run of neighbouring tokens at a place drawn uniformly (CLIPA, arXiv 2305.07017, "block"). A caption
/// that is shorter than the run is kept whole, with the padding that follows it.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// Fraction of positions dropped.
    pub ratio: Ratio,
}

impl TextStrategy for Block {
    fn kept(&self, context: usize) -> usize {
        self.ratio.kept(context)
    }

    fn score(&self, scores: &mut [f32], caption: &[u32], rng: &mut dyn RngCore) {
        let run = self.kept(scores.len());
        let start = rng.gen_range(0..=caption.len().saturating_sub(run));
        scores.fill(DROPPED_FIRST);
        scores[start..start + run].fill(0.0);
    }
}
