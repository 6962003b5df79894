//! A picture of any size to the square that the encoder takes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::picture::Rgb;
use super::source::Defect;
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

impl Transform {
    /// Side of the squares, pixels.
    pub fn size(&self) -> usize {
        match *self {
            Transform::Train { size, .. } | Transform::Evaluate { size } => size,
        }
    }

    /// The square of one picture: [size, size, 3] bytes. What is random depends on the seed and on the `epoch`
    /// and `index` of its ticket.
    ///
    /// # Errors
    /// The picture has no pixels.
    pub fn apply(
        &self,
        resizer: &mut Resizer,
        picture: &Rgb,
        seed: u64,
        (epoch, index): (u64, u64),
    ) -> Result<Vec<u8>, Defect> {
        match self {
            Transform::Evaluate { size } => {
                resize(resizer, picture, centre(picture.width, picture.height, *size), *size)
            }
            Transform::Train { size, augment } => {
                let mut rng = rng(seed, Purpose::Crop, epoch, index);
                // Drawn first, so that it does not depend on how many crops were tried.
                let mirrored = rng.gen::<bool>() && augment.flip;
                let crop = random(picture.width, picture.height, augment, &mut rng);
                let mut pixels = resize(resizer, picture, crop, *size)?;
                if mirrored {
                    mirror(&mut pixels, *size);
                }
                Ok(pixels)
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

/// Bicubic, with the support widened when shrinking.
fn resize(resizer: &mut Resizer, picture: &Rgb, crop: Crop, size: usize) -> Result<Vec<u8>, Defect> {
    let failed = |error: &dyn std::fmt::Display| Defect::new("image_decode", error.to_string());
    let source = ImageRef::new(picture.width, picture.height, &picture.pixels, PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let mut square = Image::new(size as u32, size as u32, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).crop(
        crop.left,
        crop.top,
        crop.width,
        crop.height,
    );
    resizer.resize(&source, &mut square, &options).map_err(|error| failed(&error))?;
    Ok(square.into_vec())
}

/// Swaps left and right of [size, size, 3].
fn mirror(pixels: &mut [u8], size: usize) {
    for row in pixels.chunks_exact_mut(3 * size) {
        for x in 0..size / 2 {
            for channel in 0..3 {
                row.swap(3 * x + channel, 3 * (size - 1 - x) + channel);
            }
        }
    }
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
    fn thin_pictures_become_squares_too() {
        let mut resizer = Resizer::new();
        for (width, height) in [(1, 2000), (2000, 1), (1, 1)] {
            let pixels = vec![9; (width * height * 3) as usize];
            let picture = Rgb { width, height, pixels };
            for transform in [
                Transform::Evaluate { size: 8 },
                Transform::Train { size: 8, augment: AugmentConfig::default() },
            ] {
                assert_eq!(transform.apply(&mut resizer, &picture, 1, (0, 0)).unwrap(), [9; 8 * 8 * 3]);
            }
        }
    }

    #[test]
    fn evaluation_cuts_the_centre() {
        assert_eq!(centre(300, 100, 100), Crop { left: 100.0, top: 0.0, width: 100.0, height: 100.0 });
        // 200 x 301 becomes 100 x 150, of which rows 25 to 124 stay.
        let crop = centre(200, 301, 100);
        assert_eq!((crop.left, crop.width), (0.0, 200.0));
        assert!((crop.top - 25.0 * 301.0 / 150.0).abs() < 1e-9);
        // A picture that fits stays as it is.
        let picture = Rgb { width: 4, height: 4, pixels: (0..48).collect() };
        let square = Transform::Evaluate { size: 4 }.apply(&mut Resizer::new(), &picture, 1, (0, 0)).unwrap();
        assert_eq!(square, picture.pixels);
    }

    #[test]
    fn half_of_the_training_pictures_are_mirrored() {
        let mut row = vec![1, 1, 1, 2, 2, 2, 3, 3, 3];
        row.extend_from_slice(&row.clone());
        row.extend_from_slice(&row.clone()[..9]);
        let picture = Rgb { width: 3, height: 3, pixels: row };
        let augment = AugmentConfig { crop_area: (1.0, 1.0), crop_aspect: (1.0, 1.0), flip: true };
        let mirrored = |flip: bool| {
            let augment = AugmentConfig { flip, ..augment.clone() };
            let transform = Transform::Train { size: 3, augment };
            let mut resizer = Resizer::new();
            (0..1000)
                .filter(|&index| transform.apply(&mut resizer, &picture, 5, (0, index)).unwrap()[0] == 3)
                .count()
        };
        assert!((430..570).contains(&mirrored(true)));
        assert_eq!(mirrored(false), 0);
    }
}
