//! Images for evaluation: all of the image, resized to a square as [`Resizing`] says, with open_clip's arithmetic on
//! Pillow's resizing, so that a score can be held against open_clip's. transformers' `CLIPImageProcessor` rounds the offset of
//! the centre down where torchvision and this module round half to even: a pixel, where an odd number is cut away.
//!
//! Decoded losslessly, bytes are Pillow's. Two things are ours: an image is turned as its EXIF block says, and
//! transparency lies over white; Pillow's `convert("RGB")` does neither.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::data::decode::image_file::Rgb;
use crate::data::decode::pillow_rounding::PillowRounding;
use crate::data::decode::resizing::{Interpolation, ResizeMode, Resizing};
use crate::data::Defect;

/// Rows or columns that are in memory as floats.
const STRIP: usize = 64;

/// Resizes whole images; it keeps memory between them.
#[derive(Debug, Default)]
pub(crate) struct EvalTransform {
    resizer: Resizer,
}

/// Place of the square in the resized image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fit {
    /// Width and height after resizing, pixels.
    resized: (u64, u64),
    /// Columns and rows of it that are cut away in front.
    offset: (u64, u64),
    /// Columns and rows of it that are seen.
    seen: (usize, usize),
}

impl Fit {
    fn of(from: (u32, u32), size: usize, mode: ResizeMode) -> Self {
        match mode {
            ResizeMode::Shortest => Fit::centred(from, size),
            ResizeMode::Squash => {
                Fit { resized: (size as u64, size as u64), offset: (0, 0), seen: (size, size) }
            }
            ResizeMode::Longest => Fit::padded(from, size),
        }
    }

    /// The short side becomes `size` and the long one is rounded down; the offset is rounded half to even: torchvision's
    /// `Resize(size)` and `CenterCrop(size)`.
    fn centred((width, height): (u32, u32), size: usize) -> Self {
        let side = size as u64;
        let short = u64::from(width.min(height));
        let resized = |length: u32| u64::from(length) * side / short;
        let offset = |length: u64| {
            let half = (length - side) / 2;
            half + u64::from((length - side) % 2 == 1 && half % 2 == 1)
        };
        let (width, height) = (resized(width), resized(height));
        Fit { resized: (width, height), offset: (offset(width), offset(height)), seen: (size, size) }
    }

    /// The long side becomes `size` and the short one is rounded half to even: open_clip's `ResizeKeepRatio(size, longest=1)`.
    fn padded((width, height): (u32, u32), size: usize) -> Self {
        let ratio = |length: u32| f64::from(length) / size as f64;
        let ratio = ratio(width).max(ratio(height));
        let seen = |length: u32| ((f64::from(length) / ratio).round_ties_even() as usize).clamp(1, size);
        let seen = (seen(width), seen(height));
        Fit { resized: (seen.0 as u64, seen.1 as u64), offset: (0, 0), seen }
    }
}

/// The part of one side that is resized: where it begins and how long it is, in source pixels, and the pixels it
/// becomes.
type Side = (f64, f64, u32);

impl EvalTransform {
    /// [size, size, 3] of an image of at least one pixel.
    ///
    /// # Errors
    /// The image has fewer bytes than pixels.
    pub fn square(&mut self, image: &Rgb, size: usize, resizing: Resizing) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, .. } = *image;
        let Fit { resized, offset, seen } = Fit::of((width, height), size, resizing.mode);
        // Only what stays is resized: an image of 1 x 2000 never becomes one of 224 x 448,000.
        let side = |length: u32, resized: u64, offset: u64, seen: usize| {
            let scale = f64::from(length) / resized as f64;
            let start = offset as f64 * scale;
            (start, (seen as f64 * scale).min(f64::from(length) - start), seen as u32)
        };
        let across = side(width, resized.0, offset.0, seen.0);
        let down = side(height, resized.1, offset.1, seen.1);
        let first = down_first((width, height), resized);
        let seen_part = self.resize(image, across, down, first, resizing.interpolation)?;
        Ok(match seen == (size, size) {
            true => seen_part,
            false => framed(&seen_part, seen, size, resizing.fill),
        })
    }

    /// The support of the filter is widened when shrinking. Each pass rounds to bytes, so their order shows.
    fn resize(
        &mut self,
        image: &Rgb,
        across: Side,
        down: Side,
        down_first: bool,
        interpolation: Interpolation,
    ) -> Result<Vec<u8>, Defect> {
        let Rgb { width, height, pixels } = image;
        let (width, height) = (*width as usize, *height as usize);
        let filter = match interpolation {
            Interpolation::Bicubic => FilterType::CatmullRom,
            Interpolation::Bilinear => FilterType::Bilinear,
        };
        if down_first {
            let between = self.down(pixels, width, height, down, filter)?;
            self.across(&between, width, across, filter)
        } else {
            let between = self.across(pixels, width, across, filter)?;
            self.down(&between, across.2 as usize, height, down, filter)
        }
    }

    /// Resizes rows of `width` pixels.
    fn across(
        &mut self,
        from: &[u8],
        width: usize,
        side: Side,
        filter: FilterType,
    ) -> Result<Vec<u8>, Defect> {
        let rounding = PillowRounding::new(filter, width, side);
        let mut to = Vec::with_capacity(from.len() / width * side.2 as usize);
        for rows in from.chunks(STRIP * 3 * width) {
            let count = rows.len() / (3 * width);
            let pixels: Vec<F32x3> = rows.as_chunks().0.iter().map(float).collect();
            let crop = (side.0, 0.0, side.1, count as f64);
            let resized = self.pass((width, count), &pixels, crop, (side.2 as usize, count), filter)?;
            let sums = resized.pixels().chunks_exact(side.2 as usize).zip(rows.chunks_exact(3 * width));
            for (sums, row) in sums {
                for (place, sum) in sums.iter().enumerate() {
                    to.extend([0, 1, 2].map(|c| rounding.byte(place, sum.0[c], |at| row[3 * at + c])));
                }
            }
        }
        Ok(to)
    }

    /// Resizes columns of `height` pixels.
    fn down(
        &mut self,
        from: &[u8],
        width: usize,
        height: usize,
        side: Side,
        filter: FilterType,
    ) -> Result<Vec<u8>, Defect> {
        let rounding = PillowRounding::new(filter, height, side);
        let mut to = vec![0; side.2 as usize * 3 * width];
        for left in (0..width).step_by(STRIP) {
            let count = STRIP.min(width - left);
            let columns = 3 * left..3 * (left + count);
            let rows = from.chunks_exact(3 * width).map(|row| &row[columns.clone()]);
            let pixels: Vec<F32x3> = rows.flat_map(|row| row.as_chunks().0.iter().map(float)).collect();
            let crop = (0.0, side.0, count as f64, side.1);
            let resized = self.pass((count, height), &pixels, crop, (count, side.2 as usize), filter)?;
            let sums = resized.pixels().chunks_exact(count);
            for (place, (to, sums)) in to.chunks_exact_mut(3 * width).zip(sums).enumerate() {
                for (column, sum) in sums.iter().enumerate() {
                    let at = 3 * (left + column);
                    for c in 0..3 {
                        to[at + c] = rounding.byte(place, sum.0[c], |row| from[3 * width * row + at + c]);
                    }
                }
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
        filter: FilterType,
    ) -> Result<TypedImage<'static, F32x3>, Defect> {
        let from = TypedImageRef::new(width as u32, height as u32, pixels).map_err(defect)?;
        let mut to = TypedImage::new(to.0 as u32, to.1 as u32);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(crop.0, crop.1, crop.2, crop.3);
        self.resizer.resize_typed(&from, &mut to, &options).map_err(defect)?;
        Ok(to)
    }
}

/// The part of an image that is seen, [height, width, 3], in the middle of a square of one colour.
fn framed(part: &[u8], (width, height): (usize, usize), size: usize, fill: u8) -> Vec<u8> {
    let mut square = vec![fill; size * size * 3];
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    for (row, from) in part.chunks_exact(3 * width).enumerate() {
        let at = 3 * ((top + row) * size + left);
        square[at..at + from.len()].copy_from_slice(from);
    }
    square
}

fn float(pixel: &[u8; 3]) -> F32x3 {
    F32x3::new(pixel.map(f32::from))
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
            .resize(&cut, side(crop.width), side(crop.height), true, Interpolation::Bicubic)
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
        let Fit { resized, offset, .. } = Fit::of((width, height), size, ResizeMode::Shortest);
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
            let square = EvalTransform::default()
                .square(&Rgb { width, height, pixels }, size, Resizing::default())
                .expect("resized");
            prop_assert_eq!(square, vec![77; size * size * 3]);
        }
    }

    #[test]
    fn an_image_that_fits_stays_as_it_is() {
        let image = Rgb { width: 4, height: 4, pixels: (0..48).collect() };
        assert_eq!(EvalTransform::default().square(&image, 4, Resizing::default()), Ok(image.pixels));
    }

    #[test]
    fn tall_images_are_resized_down_first() {
        assert!(!down_first((301, 200), (144, 96)));
        assert!(down_first((97, 640), (96, 633)));
        assert!(!down_first((50, 70), (96, 134)));
    }
}
