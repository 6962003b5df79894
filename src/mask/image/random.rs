use rand::{Rng, RngCore};

use super::ImageStrategy;
use crate::mask::Ratio;

/// Uniformly random patches (FLIP section 3): a score is uniform noise in [0, 1).
#[derive(Debug, Clone, Copy)]
pub struct Random {
    /// Fraction of patches dropped.
    pub ratio: Ratio,
}

impl ImageStrategy for Random {
    fn kept(&self, patches: usize) -> usize {
        self.ratio.kept(patches)
    }

    fn score(&self, scores: &mut [f32], _grid: usize, rng: &mut dyn RngCore) {
        scores.fill_with(|| rng.gen());
    }
}
