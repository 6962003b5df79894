use rand::{Rng, RngCore};

use super::ImageStrategy;
use crate::mask::Ratio;

/// One block of neighbouring patches: K patches in rows of ceil(sqrt(K)), the last row being what is left
/// over, at a place drawn uniformly among those where the block fits.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// Fraction of patches dropped.
    pub ratio: Ratio,
}

impl ImageStrategy for Block {
    fn kept(&self, patches: usize) -> usize {
        self.ratio.kept(patches)
    }

    fn score(&self, scores: &mut [f32], grid: usize, rng: &mut dyn RngCore) {
        let kept = self.kept(grid * grid);
        if kept == 0 {
            return;
        }
        let width = (1..grid).find(|side| side * side >= kept).unwrap_or(grid);
        let height = kept.div_ceil(width);
        let top = rng.gen_range(0..=grid - height);
        let left = rng.gen_range(0..=grid - width);
        scores.fill(1.0);
        for patch in 0..kept {
            scores[(top + patch / width) * grid + left + patch % width] = 0.0;
        }
    }
}
