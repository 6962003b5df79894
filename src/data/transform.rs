//! Which part of a picture of any size becomes the square that the encoder takes.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::AugmentConfig;
use crate::seed::{rng, Purpose};

/// Crops that are drawn before the largest centred one is taken.
const ATTEMPTS: usize = 10;

/// What is done to pictures.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// Random resized crop and mirroring.
    Train { size: usize, augment: AugmentConfig },
    /// The short side resized to `size`, then the centre.
    Evaluate { size: usize },
}

/// A rectangle of a picture, pixels; evaluation has fractions of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// Where the square comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    pub crop: Crop,
    /// Whether left and right are swapped.
    pub mirrored: bool,
    /// Whether nothing outside of the crop is looked at, as if it had been cut out before it was resized.
    pub inside: bool,
    /// Whether a crop that is much larger than the square may be decoded at reduced size.
    pub may_shrink: bool,
}

impl Transform {
    /// Side of the squares, pixels.
    pub fn size(&self) -> usize {
        match *self {
            Transform::Train { size, .. } | Transform::Evaluate { size } => size,
        }
    }

    /// The square of a picture of at least one pixel. What is random depends on the seed and on the `epoch` and
    /// `index` of its ticket.
    pub fn place(&self, width: u32, height: u32, seed: u64, (epoch, index): (u64, u64)) -> Placement {
        match self {
            Transform::Evaluate { size } => Placement {
                crop: centre(width, height, *size),
                mirrored: false,
                inside: false,
                // Results are compared with those of other tools.
                may_shrink: false,
            },
            Transform::Train { augment, .. } => {
                let mut rng = rng(seed, Purpose::Crop, epoch, index);
                // Drawn first, so that it does not depend on how many crops were tried.
                let mirrored = rng.gen::<bool>() && augment.flip;
                let crop = random(width, height, augment, &mut rng);
                Placement { crop, mirrored, inside: true, may_shrink: true }
            }
        }
    }
}

/// A random rectangle whose share of the area and whose logarithm of the aspect ratio are uniform; after ten
/// that do not fit, the largest centred one with an allowed aspect ratio. As torchvision's `RandomResizedCrop`.
pub fn random(width: u32, height: u32, augment: &AugmentConfig, rng: &mut ChaCha8Rng) -> Crop {
    let (smallest, largest) = augment.crop_area;
    let (narrowest, widest) = augment.crop_aspect;
    for _ in 0..ATTEMPTS {
        let area = f64::from(width) * f64::from(height) * between(rng, smallest, largest);
        let aspect = between(rng, narrowest.ln(), widest.ln()).exp();
        let w = (area * aspect).sqrt().round();
        let h = (area / aspect).sqrt().round();
        if (1.0..=f64::from(width)).contains(&w) && (1.0..=f64::from(height)).contains(&h) {
            let left = rng.gen_range(0..=width - w as u32);
            let top = rng.gen_range(0..=height - h as u32);
            return Crop { left: left.into(), top: top.into(), width: w, height: h };
        }
    }
    let (width, height) = (f64::from(width), f64::from(height));
    let aspect = (width / height).clamp(narrowest, widest);
    let w = (height * aspect).round().clamp(1.0, width);
    let h = (width / aspect).round().clamp(1.0, height);
    Crop { left: ((width - w) / 2.0).floor(), top: ((height - h) / 2.0).floor(), width: w, height: h }
}

fn between(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.gen::<f64>()
}

/// The part of a picture that stays when its short side is resized to `size` and the centre cut out. Taking it
/// before resizing gives the same square without the rest: a 1 x 2000 picture never becomes 224 x 448000.
pub fn centre(width: u32, height: u32, size: usize) -> Crop {
    let short = u64::from(width.min(height));
    let side = size as f64;
    // Lengths after resizing round down, offsets round half to even, as in torchvision.
    let along = |length: u32| {
        let resized = (u64::from(length) * size as u64 / short) as f64;
        let length = f64::from(length);
        let scale = length / resized;
        let offset = ((resized - side) / 2.0).round_ties_even() * scale;
        (offset, (side * scale).min(length - offset))
    };
    let ((left, width), (top, height)) = (along(width), along(height));
    Crop { left, top, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inside(crop: Crop, width: u32, height: u32) -> bool {
        crop.left >= 0.0
            && crop.top >= 0.0
            && crop.width > 0.0
            && crop.height > 0.0
            && crop.left + crop.width <= f64::from(width)
            && crop.top + crop.height <= f64::from(height)
    }

    proptest! {
        #[test]
        fn crops_lie_inside(
            width in 1u32..5000, height in 1u32..5000, size in 1usize..400, index in 0u64..1000,
            smallest in 0.01f64..1.0, widest in 1.0f64..4.0,
        ) {
            let augment =
                AugmentConfig { crop_area: (smallest, 1.0), crop_aspect: (1.0 / widest, widest), flip: true };
            let crop = random(width, height, &augment, &mut rng(1, Purpose::Crop, 0, index));
            prop_assert!(inside(crop, width, height), "{crop:?}");
            let crop = centre(width, height, size);
            prop_assert!(inside(crop, width, height), "{crop:?}");
        }

        #[test]
        fn drawn_crops_keep_their_bounds(width in 50u32..500, height in 50u32..500, index in 0u64..1000) {
            let augment = AugmentConfig::default();
            let crop = random(width, height, &augment, &mut rng(1, Purpose::Crop, 0, index));
            let aspect = crop.width / crop.height;
            prop_assert!((0.70..1.43).contains(&aspect), "{crop:?}");
        }
    }

    #[test]
    fn evaluation_cuts_the_centre() {
        assert_eq!(centre(300, 100, 100), Crop { left: 100.0, top: 0.0, width: 100.0, height: 100.0 });
        // 200 x 301 becomes 100 x 150, of which rows 25 to 124 stay.
        let crop = centre(200, 301, 100);
        assert_eq!((crop.left, crop.width), (0.0, 200.0));
        assert!((crop.top - 25.0 * 301.0 / 150.0).abs() < 1e-9);
    }

    #[test]
    fn half_of_the_training_pictures_are_mirrored() {
        let mirrored = |flip: bool| {
            let transform =
                Transform::Train { size: 3, augment: AugmentConfig { flip, ..AugmentConfig::default() } };
            (0..1000).filter(|&index| transform.place(3, 3, 5, (0, index)).mirrored).count()
        };
        assert!((430..570).contains(&mirrored(true)));
        assert_eq!(mirrored(false), 0);
    }
}
