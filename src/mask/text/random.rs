use rand::{Rng, RngCore};

use super::TextStrategy;
use crate::mask::Ratio;

/// Uniformly random positions, padding included.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// Fraction of positions dropped.
    pub ratio: Ratio,
}

impl TextStrategy for Random {
    fn kept(&self, context: usize) -> usize {
        self.ratio.kept(context)
    }

    fn score(&self, scores: &mut [f32], _caption: &[u32], rng: &mut dyn RngCore) {
        scores.fill_with(|| rng.gen());
    }
}
