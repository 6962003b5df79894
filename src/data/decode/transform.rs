//! Transforms of an image of any size to the square that the encoder takes.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::resizing::Resizing;
use crate::seed::{rng, Purpose};

/// Random resized crop and horizontal flip of training images, as the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentConfig {
    /// Smallest and largest area of the crop, as a share of the image.
    pub crop_area: (f64, f64),
    /// Smallest and largest ratio of width to height of the crop.
    pub crop_aspect: (f64, f64),
    /// Images are mirrored half of the time. Turn it off where captions say left and right.
    pub flip: bool,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig { crop_area: (0.5, 1.0), crop_aspect: (0.75, 4.0 / 3.0), flip: true }
    }
}

/// Crops that are drawn before the largest centred one is taken.
const ATTEMPTS: usize = 10;

/// A transform of images.
#[derive(Debug, Clone, PartialEq)]
pub enum Transform {
    /// Random resized crop and mirroring.
    Train {
        /// Side of the square, pixels.
        size: usize,
        /// Bounds of the crop.
        augment: AugmentConfig,
    },
    /// All of the image that the model is meant to see; nothing is drawn.
    Evaluate {
        /// Side of the square, pixels.
        size: usize,
        /// How an image becomes a square.
        resizing: Resizing,
    },
}

/// A random draw: everything random about a sample depends on these three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Draw {
    /// Seed of the run.
    pub seed: u64,
    /// Epoch of the sample's ticket.
    pub epoch: u64,
    /// Index of the sample's ticket.
    pub index: u64,
}

/// A rectangle of an image, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crop {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The crop that a training square comes from. Nothing outside of it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The crop.
    pub crop: Crop,
    /// Left and right are swapped.
    pub mirrored: bool,
}

impl Transform {
    /// The short side resized to `size` pixels, then the centre: for what belongs to no model.
    pub fn centre(size: usize) -> Self {
        Transform::Evaluate { size, resizing: Resizing::default() }
    }

    /// Side of the squares, pixels.
    pub fn size(&self) -> usize {
        match *self {
            Transform::Train { size, .. } | Transform::Evaluate { size, .. } => size,
        }
    }
}

impl Placement {
    /// Drawn for an image of at least one pixel.
    pub fn draw(augment: &AugmentConfig, (width, height): (u32, u32), draw: Draw) -> Self {
        let mut rng = rng(draw.seed, Purpose::Crop, draw.epoch, draw.index);
        // Drawn first, so that it does not depend on how many crops were tried.
        let mirrored = rng.gen::<bool>() && augment.flip;
        Placement { crop: random(width, height, augment, &mut rng), mirrored }
    }
}

/// A random rectangle whose share of the area and whose logarithm of the aspect ratio are uniform; after ten
/// that do not fit, the largest centred one with an allowed aspect ratio. As torchvision's `RandomResizedCrop`.
fn random(width: u32, height: u32, augment: &AugmentConfig, rng: &mut ChaCha8Rng) -> Crop {
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
            return Crop { left, top, width: w as u32, height: h as u32 };
        }
    }
    let (width, height) = (f64::from(width), f64::from(height));
    let aspect = (width / height).clamp(narrowest, widest);
    let w = (height * aspect).round().clamp(1.0, width);
    let h = (width / aspect).round().clamp(1.0, height);
    let before = |length: f64, kept: f64| ((length - kept) / 2.0).floor() as u32;
    Crop { left: before(width, w), top: before(height, h), width: w as u32, height: h as u32 }
}

fn between(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * rng.gen::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inside(crop: Crop, width: u32, height: u32) -> bool {
        crop.width > 0
            && crop.height > 0
            && crop.left + crop.width <= width
            && crop.top + crop.height <= height
    }

    proptest! {
        #[test]
        fn crops_lie_inside(
            width in 1u32..5000, height in 1u32..5000, index in 0u64..1000,
            smallest in 0.01f64..1.0, widest in 1.0f64..4.0,
        ) {
            let augment =
                AugmentConfig { crop_area: (smallest, 1.0), crop_aspect: (1.0 / widest, widest), flip: true };
            let crop = random(width, height, &augment, &mut rng(1, Purpose::Crop, 0, index));
            prop_assert!(inside(crop, width, height), "{crop:?}");
        }

        #[test]
        fn drawn_crops_keep_their_bounds(width in 50u32..500, height in 50u32..500, index in 0u64..1000) {
            let augment = AugmentConfig::default();
            let crop = random(width, height, &augment, &mut rng(1, Purpose::Crop, 0, index));
            let aspect = f64::from(crop.width) / f64::from(crop.height);
            prop_assert!((0.70..1.43).contains(&aspect), "{crop:?}");
        }
    }

    #[test]
    fn half_of_the_training_images_are_mirrored() {
        let mirrored = |flip: bool| {
            let augment = AugmentConfig { flip, ..AugmentConfig::default() };
            (0..1000)
                .filter(|&index| {
                    Placement::draw(&augment, (3, 3), Draw { seed: 5, epoch: 0, index }).mirrored
                })
                .count()
        };
        assert!((430..570).contains(&mirrored(true)));
        assert_eq!(mirrored(false), 0);
    }
}
