use rand::{Rng, RngCore};

use super::ImageStrategy;
use crate::mask::{Ratio, Strength};

/// Random patches with a preference for the centre: noise plus a bias that grows with the distance from
/// the centre, the use that the official code's bias map is made for.
#[derive(Debug, Clone, Copy)]
pub struct Centred {
    /// Fraction of patches dropped.
    pub ratio: Ratio,
    /// Bias of a corner patch.
    pub strength: Strength,
}

impl ImageStrategy for Centred {
    fn kept(&self, patches: usize) -> usize {
        self.ratio.kept(patches)
    }

    fn score(&self, scores: &mut [f32], grid: usize, rng: &mut dyn RngCore) {
        let strength = f64::from(self.strength) as f32;
        for (patch, score) in scores.iter_mut().enumerate() {
            *score = rng.gen::<f32>() + strength * eccentricity(patch, grid);
        }
    }
}

/// Distance of a patch from the centre of the image, where the corner patches are at 1.
fn eccentricity(patch: usize, grid: usize) -> f32 {
    if grid < 2 {
        return 0.0;
    }
    let middle = (grid - 1) as f32 / 2.0;
    let (row, column) = (patch / grid, patch % grid);
    (row as f32 - middle).hypot(column as f32 - middle) / (middle * std::f32::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_at_0_and_every_corner_at_1() {
        assert_eq!(eccentricity(4, 3), 0.0);
        for corner in [0, 2, 6, 8] {
            assert!((eccentricity(corner, 3) - 1.0).abs() < 1e-6);
        }
        assert_eq!(eccentricity(0, 1), 0.0);
    }
}
