//! Image masking: the patches of an image that are encoded.

mod block;
mod centred;
mod grid;
mod random;

pub use block::Block;
pub use centred::Centred;
pub use grid::Grid;
pub use random::Random;

use rand::RngCore;

use super::random_mask::Ascending;
use super::Kept;
use crate::seed::{rng, Purpose};

/// A way to choose patches: scores those of one image; the lowest scores are kept.
pub trait ImageStrategy {
    /// Number of patches kept, at most `patches`; the same for every image.
    fn kept(&self, patches: usize) -> usize;

    /// Scores the patches of one image. `scores` is [grid * grid], row-major, all 0 at first; among
    /// equal scores the earlier patch is kept first. `rng` is this image's own.
    fn score(&self, scores: &mut [f32], grid: usize, rng: &mut dyn RngCore);
}

/// Draws the mask of `batch` images of `grid` x `grid` patches, which are those from `first` on of an epoch. The ids of a row come by increasing score, as in the official code.
pub fn draw_images(
    strategy: &dyn ImageStrategy,
    grid: usize,
    batch: usize,
    seed: u64,
    epoch: u64,
    first: u64,
) -> Kept {
    let of = grid * grid;
    let kept = strategy.kept(of).min(of);
    let mut ids = Vec::with_capacity(batch * kept);
    let mut scores = vec![0.0; of];
    let mut order = Ascending::default();
    for index in first..first + batch as u64 {
        scores.fill(0.0);
        strategy.score(&mut scores, grid, &mut rng(seed, Purpose::ImageMask, epoch, index));
        ids.extend(order.positions(&scores).take(kept));
    }
    Kept { ids, batch, kept, of }
}
