use rand::{Rng, RngCore};

use super::{TextStrategy, DROPPED_FIRST};
use crate::mask::Ratio;

/// Padding goes first, then uniformly random tokens (FLIP table 1c, "prioritized").
#[derive(Debug, Clone, Copy)]
pub struct Prioritised {
    /// Fraction of positions dropped.
    pub ratio: Ratio,
}

impl TextStrategy for Prioritised {
    fn kept(&self, context: usize) -> usize {
        self.ratio.kept(context)
    }

    fn score(&self, scores: &mut [f32], caption: &[u32], rng: &mut dyn RngCore) {
        let (real, padding) = scores.split_at_mut(caption.len());
        real.fill_with(|| rng.gen());
        padding.fill(DROPPED_FIRST);
    }
}
