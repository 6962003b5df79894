//! Decodes the pixels of an image that an encoder gets to see, and no others.
//!
//! Training decodes and resizes here, in part: of an image only the blocks behind kept patches are needed, which no
//! library can leave out the rest of. What evaluates goes through the libraries of [`eval_transform`](super::eval_transform), whose
//! bytes are those of other tools; tests hold training's images to theirs.
//!
//! Whatever is cut out, its bytes are those that it has in the whole square: a mask changes what is computed, not
//! how it comes out.

use std::ops::Range;

use crate::data::decode::eval_transform::EvalTransform;
use crate::data::decode::image_file::Rgb;
use crate::data::decode::jpeg::{Colours, Header, Scanner, Unsupported, Wanted};
use crate::data::decode::planes::{Plane, Planes};
use crate::data::decode::resample::{resample, Axis, Mapping, GROUP};
use crate::data::decode::ImageLimits;
use crate::data::decode::{colour, image_file, Crop, Draw, Placement, Transform};
use crate::data::{Defect, Image};

/// Rows that are resized at a time: few enough to stay in the nearest cache.
const STRIP: usize = 16;

/// The part of a square that is wanted.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// [size, size, 3].
    Whole,
    /// [ids, patch, patch, 3].
    Patches {
        /// Side of a patch, pixels.
        patch: usize,
        /// Patches, numbered row by row.
        ids: &'a [u32],
    },
}

/// Decodes and crops images, one after the other; it keeps tables and memory between them.
///
/// ```
/// use flip::data::decode::{AugmentConfig, CropDecoder, Draw, ImageLimits, Transform, View};
/// use flip::data::Image;
///
/// let image = Image::Rgb { width: 40, height: 30, pixels: vec![128; 40 * 30 * 3] };
/// let transform = Transform::Train { size: 16, augment: AugmentConfig::default() };
/// let draw = Draw { seed: 0, epoch: 0, index: 7 };
/// let mut decoder = CropDecoder::default();
/// let pixels = decoder.decode_crop(image, ImageLimits::default(), &transform, View::Whole, draw);
/// assert_eq!(pixels.map(|pixels| pixels.len()), Ok(16 * 16 * 3));
/// ```
#[derive(Default)]
pub struct CropDecoder {
    scanner: Scanner,
    planes: Vec<Plane>,
    scratch: Vec<u8>,
    rows: [Vec<u8>; 3],
    eval: EvalTransform,
}

/// Patches that lie side by side, or a strip of the square.
#[derive(Debug)]
struct Region {
    across: Range<usize>,
    down: Range<usize>,
    /// Place among the ids of each patch, from left to right; empty for a strip.
    slots: Vec<usize>,
}

/// Mapping of one plane to the square.
struct Fit {
    across: Axis,
    down: Axis,
    side: usize,
}

impl CropDecoder {
    /// The pixels of a view of an image: of the crop that is drawn, or of the centre for an evaluation, which draws
    /// nothing.
    ///
    /// # Errors
    /// The image has to be left out, for the reasons of [`image_file::decode`].
    pub fn decode_crop(
        &mut self,
        image: Image,
        limits: ImageLimits,
        transform: &Transform,
        view: View<'_>,
        draw: Draw,
    ) -> Result<Vec<u8>, Defect> {
        let augment = match transform {
            Transform::Train { augment, .. } => augment,
            Transform::Evaluate { size, resizing } => {
                let square = self.eval.square(&decoded(image, limits)?, *size, *resizing)?;
                return Ok(seen(square, *size, view));
            }
        };
        let size = transform.size();
        let regions = regions(size, view);
        if let Image::Encoded(bytes) = &image {
            if let Some(header) = plain_jpeg(bytes, limits) {
                let placement = Placement::draw(augment, (header.width, header.height), draw);
                if let Ok(pixels) = self.jpeg(bytes, &header, &placement, size, &regions, view) {
                    return Ok(pixels);
                }
            }
        }
        let rgb = decoded(image, limits)?;
        let placement = Placement::draw(augment, (rgb.width, rgb.height), draw);
        Ok(self.rgb(&rgb, &placement, size, &regions, view))
    }

    /// Decodes all of a baseline JPEG to planes, for measurements; true if it is one.
    pub fn decode_all(&mut self, bytes: &[u8], limits: ImageLimits) -> bool {
        let Some(header) = plain_jpeg(bytes, limits) else { return false };
        let all = header.components.iter().map(|component| {
            let (columns, rows) = header.blocks(component);
            Wanted { side: 8, columns, blocks: vec![true; columns * rows] }
        });
        let all: Vec<Wanted> = all.collect();
        self.planes.resize_with(all.len(), Plane::default);
        self.scanner.decode(bytes, &header, &all, &mut self.planes).is_ok()
    }

    fn jpeg(
        &mut self,
        bytes: &[u8],
        header: &Header<'_>,
        placement: &Placement,
        size: usize,
        regions: &[Region],
        view: View<'_>,
    ) -> Result<Vec<u8>, Unsupported> {
        let mut fits: Vec<Fit> = Vec::with_capacity(3);
        let mut fit_of = Vec::with_capacity(3);
        let mut wanted = Vec::with_capacity(3);
        self.planes.resize_with(header.components.len(), Plane::default);
        for (i, component) in header.components.iter().enumerate() {
            let density = header.density(component);
            let same = (0..i).find(|&j| header.density(&header.components[j]) == density);
            fit_of.push(match same {
                Some(same) => fit_of[same],
                None => {
                    fits.push(Fit::new((header.width, header.height), density, placement, size, true));
                    fits.len() - 1
                }
            });
            let fit = &fits[fit_of[i]];
            let extent = |pixels: u32, density: f64| {
                ((f64::from(pixels) * density).ceil() as usize * fit.side).div_ceil(8)
            };
            let plane = &mut self.planes[i];
            (plane.width, plane.height) = (extent(header.width, density.0), extent(header.height, density.1));
            wanted.push(match same {
                Some(same) => Wanted::clone(&wanted[same]),
                None => {
                    let mut wanted = Wanted::none(fit.side, header.blocks(component));
                    for region in regions {
                        wanted.add(
                            fit.across.columns(region.across.clone()),
                            fit.down.rows(region.down.clone()),
                        );
                    }
                    wanted
                }
            });
        }
        self.scanner.decode(bytes, header, &wanted, &mut self.planes)?;
        let planes = std::mem::take(&mut self.planes);
        let fits: Vec<&Fit> = fit_of.iter().map(|&fit| &fits[fit]).collect();
        let pixels = self.render(&planes, header.colours, &fits, size, regions, view);
        self.planes = planes;
        Ok(pixels)
    }

    fn rgb(
        &mut self,
        rgb: &Rgb,
        placement: &Placement,
        size: usize,
        regions: &[Region],
        view: View<'_>,
    ) -> Vec<u8> {
        let fit = Fit::new((rgb.width, rgb.height), (1.0, 1.0), placement, size, false);
        let nothing = Range { start: usize::MAX, end: 0 };
        let (mut across, mut down) = (nothing.clone(), nothing);
        for region in regions {
            let (columns, rows) =
                (fit.across.columns(region.across.clone()), fit.down.rows(region.down.clone()));
            across = across.start.min(columns.start)..across.end.max(columns.end);
            down = down.start.min(rows.start)..down.end.max(rows.end);
        }
        across.end = across.end.min(rgb.width as usize);
        let Planes { colours, planes } = Planes::of(rgb, across, down);
        self.render(&planes, colours, &[&fit; 3], size, regions, view)
    }

    /// Resizes what the regions cover and mixes its colours.
    fn render(
        &mut self,
        planes: &[Plane],
        colours: Colours,
        fits: &[&Fit],
        size: usize,
        regions: &[Region],
        view: View<'_>,
    ) -> Vec<u8> {
        let (patch, count) = match view {
            View::Whole => (size, 1),
            View::Patches { patch, ids } => (patch, ids.len()),
        };
        let mut pixels = vec![0; count * patch * patch * 3];
        for region in regions {
            for ((plane, fit), rows) in planes.iter().zip(fits).zip(&mut self.rows) {
                let rectangle = (region.across.clone(), region.down.clone());
                resample(rows, &mut self.scratch, plane, (&fit.across, &fit.down), rectangle);
                // What colours are mixed from is read sixteen bytes at a time.
                rows.resize(rows.len() + 16, 0);
            }
            let [first, second, third] = &self.rows;
            let [first, second, third] =
                if planes.len() == 1 { [first, first, first] } else { [first, second, third] };
            let width = crate::data::decode::resample::width_of(&region.across);
            let margin = region.across.start % GROUP;
            for (y, row) in region.down.clone().enumerate() {
                let at = |x: usize| [first, second, third].map(|rows| &rows[y * width + margin + x..]);
                if region.slots.is_empty() {
                    let start = (row * size + region.across.start) * 3;
                    colour::pixels(&mut pixels[start..start + region.across.len() * 3], at(0), colours);
                }
                for (column, slot) in region.slots.iter().enumerate() {
                    let start = (slot * patch + y) * patch * 3;
                    colour::pixels(&mut pixels[start..start + patch * 3], at(column * patch), colours);
                }
            }
        }
        pixels
    }
}

impl Fit {
    fn new(
        (width, height): (u32, u32),
        density: (f64, f64),
        placement: &Placement,
        size: usize,
        may_shrink: bool,
    ) -> Fit {
        let Crop { left, top, width: crop_width, height: crop_height } = placement.crop;
        let (across, down) = (f64::from(crop_width) * density.0, f64::from(crop_height) * density.1);
        let mut side = 8;
        // Half the pixels are still enough where the crop has twice those of the square.
        while may_shrink && side > 1 {
            let halved = (side / 2) as f64 / 8.0;
            if across.min(down) * halved < size as f64 {
                break;
            }
            side /= 2;
        }
        let mapping = |start: u32, length: u32, pixels: u32, density: f64, mirrored| {
            let density = density * side as f64 / 8.0;
            let whole = (f64::from(pixels) * density).ceil() as usize;
            let (start, length) = (f64::from(start) * density, f64::from(length) * density);
            // Nothing outside of the crop is looked at, as if it had been cut out before it was resized.
            let from = (start as usize).min(whole.saturating_sub(1));
            let to = ((start + length).ceil() as usize).min(whole);
            Mapping { start, length, from, to, mirrored }
        };
        Fit {
            across: Axis::across(size, mapping(left, crop_width, width, density.0, placement.mirrored)),
            down: Axis::down(size, mapping(top, crop_height, height, density.1, false)),
            side,
        }
    }
}

/// All of an image.
fn decoded(image: Image, limits: ImageLimits) -> Result<Rgb, Defect> {
    let rgb = match image {
        Image::Rgb { width, height, pixels } => Rgb { width, height, pixels },
        Image::Encoded(bytes) => image_file::decode(&bytes, limits)?,
    };
    match rgb.width == 0 || rgb.height == 0 {
        true => Err(Defect::new("image_decode", "it has no pixels")),
        false => Ok(rgb),
    }
}

/// A view of a square [size, size, 3].
fn seen(square: Vec<u8>, size: usize, view: View<'_>) -> Vec<u8> {
    let View::Patches { patch, ids } = view else { return square };
    let grid = size / patch;
    let mut pixels = Vec::with_capacity(ids.len() * patch * patch * 3);
    for &id in ids {
        let (row, column) = (id as usize / grid * patch, id as usize % grid * patch);
        for y in row..row + patch {
            pixels.extend_from_slice(&square[(y * size + column) * 3..][..patch * 3]);
        }
    }
    pixels
}

/// The header of a JPEG that can be decoded in part and needs no turning.
fn plain_jpeg(bytes: &[u8], limits: ImageLimits) -> Option<Header<'_>> {
    let header = Header::read(bytes).ok()?;
    let turned = header.exif.is_some_and(image_file::is_turned);
    let pixels = u64::from(header.width) * u64::from(header.height);
    (!turned && pixels <= limits.pixels).then_some(header)
}

/// Rectangles that have to be resized for a view: strips of the whole, or patches, neighbours together.
fn regions(size: usize, view: View<'_>) -> Vec<Region> {
    match view {
        View::Whole => (0..size)
            .step_by(STRIP)
            .map(|top| Region { across: 0..size, down: top..(top + STRIP).min(size), slots: Vec::new() })
            .collect(),
        View::Patches { patch, ids } => {
            let grid = size / patch;
            let mut order: Vec<(usize, usize)> =
                ids.iter().enumerate().map(|(slot, &id)| (id as usize, slot)).collect();
            order.sort_unstable();
            let mut regions: Vec<Region> = Vec::new();
            for (id, slot) in order {
                let (row, column) = (id / grid, id % grid);
                let down = row * patch..(row + 1) * patch;
                match regions.last_mut() {
                    Some(region) if region.down == down && region.across.end == column * patch => {
                        region.across.end += patch;
                        region.slots.push(slot);
                    }
                    _ => regions.push(Region {
                        across: column * patch..(column + 1) * patch,
                        down,
                        slots: vec![slot],
                    }),
                }
            }
            regions
        }
    }
}

#[cfg(test)]
mod tests;
