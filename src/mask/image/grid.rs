use rand::seq::index;
use rand::{Rng, RngCore};

use super::ImageStrategy;
use crate::mask::Ratio;

/// Random patches, spread evenly: the image is cut into square cells, each of which keeps its share.
///
/// A cell of a patches is due a K / n of the K kept ones, rarely a whole number. The dues are laid end to
/// end on a line that begins at a random offset in [0, 1), and a cell keeps one patch for every integer
/// in its piece (systematic sampling). So K are kept in all, a cell's share is rounded up or down and
/// never more, and every patch is kept with probability K / n exactly.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Fraction of patches dropped.
    pub ratio: Ratio,
}

impl ImageStrategy for Grid {
    fn kept(&self, patches: usize) -> usize {
        self.ratio.kept(patches)
    }

    fn score(&self, scores: &mut [f32], grid: usize, rng: &mut dyn RngCore) {
        let patches = grid * grid;
        if patches == 0 {
            return;
        }
        scores.fill(1.0);
        let (kept, side) = (self.kept(patches), cell_side(self.ratio));
        // In units of 1 / n: dues are then whole numbers, and the rounding is exact.
        let mut line = rng.gen_range(0..patches);
        for top in (0..grid).step_by(side) {
            for left in (0..grid).step_by(side) {
                let (height, width) = (side.min(grid - top), side.min(grid - left));
                let before = line / patches;
                line += height * width * kept;
                for chosen in index::sample(rng, height * width, line / patches - before) {
                    scores[(top + chosen / width) * grid + left + chosen % width] = 0.0;
                }
            }
        }
    }
}

/// Side of the smallest square cell that keeps at least one of its patches on average.
fn cell_side(ratio: Ratio) -> usize {
    // Lenient by rounding error, so that 0.75 means cells of 2 x 2.
    (1.0 / (1.0 - f64::from(ratio)) - 1e-9).sqrt().ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_at_least_one_kept_patch() {
        for (ratio, side) in [(0.0, 1), (0.5, 2), (0.75, 2), (8.0 / 9.0, 3), (0.9, 4), (0.9375, 4)] {
            let ratio = Ratio::try_from(ratio).expect("a ratio");
            assert_eq!(cell_side(ratio), side, "{ratio:?}");
        }
    }
}
