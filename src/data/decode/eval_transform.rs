//! Images for evaluation: all of the image, its short side resized, the centre cut out, as torchvision does on
//! Pillow's resizing, so that a score can be held against open_clip's.
//!
//! Decoded losslessly, bytes are Pillow's. Two things are ours: an image is turned as its EXIF block says, and
//! transparency lies over white; Pillow's `convert("RGB")` does neither.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::data::decode::image_file::Rgb;
use crate::data::Defect;

/// Rows or columns that are in memory as floats.
const STRIP: usize = 64;

/// Resizes whole images; it keeps memory between them.
#[derive(Debug, Default)]
pub(crate) struct EvalTransform {
    resizer: Resizer,
}

/// Place of a centred square in the resized image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CentreCrop {
    /// Width and height after resizing, pixels.
    resized: (u64, u64),
    /// Columns and rows of it that are cut away in front.
    offset: (u64, u64),
}

impl CentreCrop {
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
        CentreCrop { resized: (width, height), offset: (offset(width), offset(height)) }
    }
}

/// The part of one side that is resized: where it begins and how long it is, in source pixels, and the pixels it
/// becomes.
type Side = (f64, f64, u32);

impl EvalTransform {
    /// [size, size, 3]: the centre of an image of at least one pixel.
    ///
    /// # Errors
    /// The image has fewer bytes than pixels.
    pub fn centre(&mut self, image: &Rgb, size: usize) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, .. } = *image;
        let CentreCrop { resized, offset } = CentreCrop::of((width, height), size);
        // Only what stays is resized: an image of 1 x 2000 never becomes one of 224 x 448,000.
        let side = |length: u32, resized: u64, offset: u64| {
            let scale = f64::from(length) / resized as f64;
            let start = offset as f64 * scale;
            (start, (size as f64 * scale).min(f64::from(length) - start), size as u32)
        };
        let across = side(width, resized.0, offset.0);
        let down = side(height, resized.1, offset.1);
        self.resize(image, across, down, down_first((width, height), resized))
    }

    /// Bicubic (Catmull and Rom's), the support widened when shrinking. Each pass rounds to bytes, so their order shows.
    fn resize(&mut self, image: &Rgb, across: Side, down: Side, down_first: bool) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, pixels } = image;
        let (width, height) = (*width as usize, *height as usize);
        if down_first {
            let between = self.down(pixels, width, height, down)?;
            self.across(&between, width, across)
        } else {
            let between = self.across(pixels, width, across)?;
            self.down(&between, across.2 as usize, height, down)
        }
    }

    /// Resizes rows of `width` pixels.
    fn across(&mut self, from: &[u8], width: usize, side: Side) -> Result<Vec<u8>, Defect> {
        let mut to = Vec::with_capacity(from.len() / width * side.2 as usize);
        for rows in from.chunks(STRIP * 3 * width) {
            let count = rows.len() / (3 * width);
            let pixels: Vec<F32x3> = rows.as_chunks().0.iter().map(float).collect();
            let crop = (side.0, 0.0, side.1, count as f64);
            let resized = self.pass((width, count), &pixels, crop, (side.2 as usize, count))?;
            to.extend(resized.pixels().iter().flat_map(bytes));
        }
        Ok(to)
    }

    /// Resizes columns of `height` pixels.
    fn down(&mut self, from: &[u8], width: usize, height: usize, side: Side) -> Result<Vec<u8>, Defect> {
        let mut to = vec![0; side.2 as usize * 3 * width];
        for left in (0..width).step_by(STRIP) {
            let count = STRIP.min(width - left);
            let columns = 3 * left..3 * (left + count);
            let rows = from.chunks_exact(3 * width).map(|row| &row[columns.clone()]);
            let pixels: Vec<F32x3> = rows.flat_map(|row| row.as_chunks().0.iter().map(float)).collect();
            let crop = (0.0, side.0, count as f64, side.1);
            let resized = self.pass((count, height), &pixels, crop, (count, side.2 as usize))?;
            for (to, row) in to.chunks_exact_mut(3 * width).zip(resized.pixels().chunks_exact(count)) {
                to[columns.clone()]
                    .as_chunks_mut()
                    .0
                    .iter_mut()
                    .zip(row)
                    .for_each(|(to, pixel)| *to = bytes(pixel));
            }
        }
        Ok(to)
    }

    /// Resizes a crop (left, top, width, height). In floats: the library's weights for bytes have sixteen bits, and
    /// Pillow's twenty-two.
    fn pass(
        &mut self,
        (width, height): (usize, usize),
        pixels: &[F32x3],
        crop: (f64, f64, f64, f64),
        to: (usize, usize),
    ) -> Result<TypedImage<'static, F32x3>, Defect> {
        let from = TypedImageRef::new(width as u32, height as u32, pixels).map_err(defect)?;
        let mut to = TypedImage::new(to.0 as u32, to.1 as u32);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
            .crop(crop.0, crop.1, crop.2, crop.3);
        self.resizer.resize_typed(&from, &mut to, &options).map_err(defect)?;
        Ok(to)
    }
}

fn float(pixel: &[u8; 3]) -> F32x3 {
    F32x3::new(pixel.map(f32::from))
}

fn bytes(pixel: &F32x3) -> [u8; 3] {
    // A cast keeps what is too small or too large at the ends.
    pixel.0.map(|value| (value + 0.5).floor() as u8)
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
pub(crate) mod tests {
    use super::*;
    use crate::data::decode::Placement;
    use proptest::prelude::*;

    /// An image as training gets it, by the library: cut out, resized, mirrored. The decoder is held to it.
    pub fn placed(image: &Rgb, placement: &Placement, size: usize) -> Vec<u8> {
        let crop = placement.crop;
        let rows = image.pixels.chunks_exact(3 * image.width as usize);
        let rows = rows.skip(crop.top as usize).take(crop.height as usize);
        let columns = 3 * crop.left as usize..3 * (crop.left + crop.width) as usize;
        let pixels = rows.flat_map(|row| row[columns.clone()].iter().copied()).collect();
        let cut = Rgb { width: crop.width, height: crop.height, pixels };
        let side = |length: u32| (0.0, f64::from(length), size as u32);
        let mut square = EvalTransform::default()
            .resize(&cut, side(crop.width), side(crop.height), true)
            .expect("resized");
        if placement.mirrored {
            for row in square.chunks_exact_mut(3 * size) {
                let mirrored: Vec<u8> = row.chunks_exact(3).rev().flatten().copied().collect();
                row.copy_from_slice(&mirrored);
            }
        }
        square
    }

    fn centred(width: u32, height: u32, size: usize) -> ((u64, u64), (u64, u64)) {
        let CentreCrop { resized, offset } = CentreCrop::of((width, height), size);
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
        fn every_image_has_a_centre(width in 1u32..300, height in 1u32..300, size in 1usize..60) {
            let pixels = vec![77; (width * height * 3) as usize];
            let square = EvalTransform::default().centre(&Rgb { width, height, pixels }, size).expect("resized");
            prop_assert_eq!(square, vec![77; size * size * 3]);
        }
    }

    #[test]
    fn an_image_that_fits_stays_as_it_is() {
        let image = Rgb { width: 4, height: 4, pixels: (0..48).collect() };
        assert_eq!(EvalTransform::default().centre(&image, 4), Ok(image.pixels));
    }

    #[test]
    fn tall_images_are_resized_down_first() {
        assert!(!down_first((301, 200), (144, 96)));
        assert!(down_first((97, 640), (96, 633)));
        assert!(!down_first((50, 70), (96, 134)));
    }
}
