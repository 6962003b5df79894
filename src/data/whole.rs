//! Pictures for evaluation: all of the picture, its short side resized, the centre cut out, as torchvision does on
//! Pillow's resizing, so that a score can be held against open_clip's.
//!
//! Decoded losslessly, every byte is within one of Pillow's. Two things are ours: a picture is turned as its EXIF
//! block says, and transparency lies over white; Pillow's `convert("RGB")` does neither.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, IntoImageView, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::picture::Rgb;
use super::source::Defect;

/// Resizes whole pictures; it keeps memory between them.
#[derive(Debug, Default)]
pub(super) struct Whole {
    resizer: Resizer,
}

/// Where a centred square comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Centred {
    /// Width and height after resizing, pixels.
    resized: (u64, u64),
    /// Columns and rows of it that are cut away in front.
    offset: (u64, u64),
}

impl Centred {
    /// The short side becomes `size` and the long one is rounded down; the offset is rounded half to even: torchvision's
    /// `Resize(size)` and `CenterCrop(size)`.
    fn of((width, height): (u32, u32), size: usize) -> Self {
        let size = size as u64;
        let short = u64::from(width.min(height));
        let resized = |length: u32| u64::from(length) * size / short;
        let offset = |length: u64| {
            let half = (length - size) / 2;
            half + u64::from((length - size) % 2 == 1 && half % 2 == 1)
        };
        let (width, height) = (resized(width), resized(height));
        Centred { resized: (width, height), offset: (offset(width), offset(height)) }
    }
}

/// The part of one side that is resized: where it begins and how long it is, in source pixels, and the pixels it
/// becomes.
type Side = (f64, f64, u32);

impl Whole {
    /// [size, size, 3]: the centre of a picture of at least one pixel.
    ///
    /// # Errors
    /// The picture has fewer bytes than pixels.
    pub fn centre(&mut self, picture: &Rgb, size: usize) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, .. } = *picture;
        let Centred { resized, offset } = Centred::of((width, height), size);
        // Only what stays is resized: a picture of 1 x 2000 never becomes one of 224 x 448,000.
        let side = |length: u32, resized: u64, offset: u64| {
            let scale = f64::from(length) / resized as f64;
            let start = offset as f64 * scale;
            (start, (size as f64 * scale).min(f64::from(length) - start), size as u32)
        };
        let across = side(width, resized.0, offset.0);
        let down = side(height, resized.1, offset.1);
        self.resize(picture, across, down, down_first((width, height), resized))
    }

    /// Bicubic (Catmull and Rom's), the support widened when shrinking. Each pass rounds to bytes, so their order shows.
    fn resize(
        &mut self,
        picture: &Rgb,
        across: Side,
        down: Side,
        down_first: bool,
    ) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, .. } = *picture;
        let source = ImageRef::new(width, height, &picture.pixels, PixelType::U8x3).map_err(defect)?;
        let all = |length: u32| (0.0, f64::from(length), length);
        let (first, second) = match down_first {
            true => ((all(width), down), (across, all(down.2))),
            false => ((across, all(height)), (all(across.2), down)),
        };
        let between = self.pass(&source, first.0, first.1)?;
        Ok(self.pass(&between, second.0, second.1)?.into_vec())
    }

    fn pass(
        &mut self,
        from: &impl IntoImageView,
        across: Side,
        down: Side,
    ) -> Result<Image<'static>, Defect> {
        let mut to = Image::new(across.2, down.2, PixelType::U8x3);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
            .crop(across.0, down.0, across.1, down.1);
        self.resizer.resize(from, &mut to, &options).map_err(defect)?;
        Ok(to)
    }
}

/// Pillow goes across first, unless the height shrinks by more than twice the pixels of the width.
fn down_first((width, height): (u32, u32), (to_width, to_height): (u64, u64)) -> bool {
    let lost = |from: u32, to: u64| i128::from(from) - i128::from(to);
    let (across, down) = (lost(width, to_width), lost(height, to_height));
    down > 0 && down > 2 * across
}

fn defect(error: impl std::fmt::Display) -> Defect {
    Defect::new("image_decode", error.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::transform::Placement;
    use proptest::prelude::*;

    /// What training makes of a picture, by the library: cut out, resized, mirrored. The cutter is held to it.
    pub fn placed(picture: &Rgb, placement: &Placement, size: usize) -> Vec<u8> {
        let crop = placement.crop;
        let rows = picture.pixels.chunks_exact(3 * picture.width as usize);
        let rows = rows.skip(crop.top as usize).take(crop.height as usize);
        let columns = 3 * crop.left as usize..3 * (crop.left + crop.width) as usize;
        let pixels = rows.flat_map(|row| row[columns.clone()].iter().copied()).collect();
        let cut = Rgb { width: crop.width, height: crop.height, pixels };
        let side = |length: u32| (0.0, f64::from(length), size as u32);
        let mut square =
            Whole::default().resize(&cut, side(crop.width), side(crop.height), true).expect("resized");
        if placement.mirrored {
            for row in square.chunks_exact_mut(3 * size) {
                let mirrored: Vec<u8> = row.chunks_exact(3).rev().flatten().copied().collect();
                row.copy_from_slice(&mirrored);
            }
        }
        square
    }

    fn centred(width: u32, height: u32, size: usize) -> ((u64, u64), (u64, u64)) {
        let Centred { resized, offset } = Centred::of((width, height), size);
        (resized, offset)
    }

    #[test]
    fn sizes_and_offsets_are_torchvision_s() {
        assert_eq!(centred(300, 100, 100), ((300, 100), (100, 0)));
        assert_eq!(centred(200, 301, 100), ((100, 150), (0, 25)));
        // int(96 * 640 / 97) is 633, and round(268.5) is 268; round(1.5) is 2.
        assert_eq!(centred(97, 640, 96), ((96, 633), (0, 268)));
        assert_eq!(centred(103, 100, 100), ((103, 100), (2, 0)));
        assert_eq!(centred(1, 2000, 224), ((224, 448_000), (0, 223_888)));
    }

    proptest! {
        #[test]
        fn every_picture_has_a_centre(width in 1u32..300, height in 1u32..300, size in 1usize..60) {
            let pixels = vec![77; (width * height * 3) as usize];
            let square = Whole::default().centre(&Rgb { width, height, pixels }, size).expect("resized");
            prop_assert_eq!(square, vec![77; size * size * 3]);
        }
    }

    #[test]
    fn a_picture_that_fits_stays_as_it_is() {
        let picture = Rgb { width: 4, height: 4, pixels: (0..48).collect() };
        assert_eq!(Whole::default().centre(&picture, 4), Ok(picture.pixels));
    }

    #[test]
    fn tall_pictures_are_resized_down_first() {
        assert!(!down_first((301, 200), (144, 96)));
        assert!(down_first((97, 640), (96, 633)));
        assert!(!down_first((50, 70), (96, 134)));
    }
}
