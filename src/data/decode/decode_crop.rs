//! From an image as its source has it to the pixels that an encoder gets to see, and to no others.
//!
//! Training decodes and resizes here, in part: of an image only the blocks behind kept patches are needed, which no
//! library can leave out the rest of. What evaluates goes through the libraries of [`eval_transform`](super::eval_transform), whose
//! bytes are those of other tools; tests hold training's images to theirs.
//!
//! Whatever is cut out, its bytes are those that it has in the whole square: a mask changes what is computed, not
//! how it comes out.

use std::ops::Range;

use crate::data::decode::eval_transform::Whole;
use crate::data::decode::image_file::Rgb;
use crate::data::decode::jpeg::{Colours, Header, Scanner, Unread, Wanted};
use crate::data::decode::planes::{Plane, Planes};
use crate::data::decode::resample::{resample, Axis, Mapping, GROUP};
use crate::data::decode::ImageLimits;
use crate::data::decode::{colour, image_file, Crop, Placement, Transform};
use crate::data::{Defect, Image};

/// Rows that are resized at a time: few enough to stay in the nearest cache.
const STRIP: usize = 16;

/// Which part of a square is cut out.
#[derive(Debug, Clone, Copy)]
pub enum View<'a> {
    /// [size, size, 3].
    Whole,
    /// [ids, patch, patch, 3]: patches of this side in pixels, numbered row by row.
    Patches { patch: usize, ids: &'a [u32] },
}

/// Cuts images, one after the other; it keeps tables and memory between them.
#[derive(Default)]
pub struct Cutter {
    scanner: Scanner,
    planes: Vec<Plane>,
    scratch: Vec<u8>,
    rows: [Vec<u8>; 3],
    whole: Whole,
}

/// Patches that lie side by side, or a strip of the square.
#[derive(Debug)]
struct Run {
    across: Range<usize>,
    down: Range<usize>,
    /// Place among the ids of each patch, from left to right; empty for a strip.
    slots: Vec<usize>,
}

/// How one plane becomes the square.
struct Fit {
    across: Axis,
    down: Axis,
    side: usize,
}

impl Cutter {
    /// The pixels of a view of an image; what is random in it was drawn as `drawn`, (epoch, index).
    ///
    /// # Errors
    /// The image has to be left out, for the reasons of [`image_file::decode`].
    pub fn cut(
        &mut self,
        image: Image,
        limits: ImageLimits,
        transform: &Transform,
        view: View<'_>,
        seed: u64,
        drawn: (u64, u64),
    ) -> Result<Vec<u8>, Defect> {
        let augment = match transform {
            Transform::Train { augment, .. } => augment,
            Transform::Evaluate { size } => {
                let square = self.whole.centre(&decoded(image, limits)?, *size)?;
                return Ok(seen(square, *size, view));
            }
        };
        let size = transform.size();
        let runs = runs(size, view);
        if let Image::Encoded(bytes) = &image {
            if let Some(header) = plain_jpeg(bytes, limits) {
                let placement = Placement::draw(augment, (header.width, header.height), seed, drawn);
                if let Ok(pixels) = self.jpeg(bytes, &header, &placement, size, &runs, view) {
                    return Ok(pixels);
                }
            }
        }
        let rgb = decoded(image, limits)?;
        let placement = Placement::draw(augment, (rgb.width, rgb.height), seed, drawn);
        Ok(self.rgb(&rgb, &placement, size, &runs, view))
    }

    /// Decodes all of a baseline JPEG to planes, for measurements; tells whether it is one.
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
        runs: &[Run],
        view: View<'_>,
    ) -> Result<Vec<u8>, Unread> {
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
                    for run in runs {
                        wanted.add(fit.across.columns(run.across.clone()), fit.down.rows(run.down.clone()));
                    }
                    wanted
                }
            });
        }
        self.scanner.decode(bytes, header, &wanted, &mut self.planes)?;
        let planes = std::mem::take(&mut self.planes);
        let fits: Vec<&Fit> = fit_of.iter().map(|&fit| &fits[fit]).collect();
        let pixels = self.render(&planes, header.colours, &fits, size, runs, view);
        self.planes = planes;
        Ok(pixels)
    }

    fn rgb(
        &mut self,
        rgb: &Rgb,
        placement: &Placement,
        size: usize,
        runs: &[Run],
        view: View<'_>,
    ) -> Vec<u8> {
        let fit = Fit::new((rgb.width, rgb.height), (1.0, 1.0), placement, size, false);
        let nothing = Range { start: usize::MAX, end: 0 };
        let (mut across, mut down) = (nothing.clone(), nothing);
        for run in runs {
            let (columns, rows) = (fit.across.columns(run.across.clone()), fit.down.rows(run.down.clone()));
            across = across.start.min(columns.start)..across.end.max(columns.end);
            down = down.start.min(rows.start)..down.end.max(rows.end);
        }
        across.end = across.end.min(rgb.width as usize);
        let Planes { colours, planes } = Planes::of(rgb, across, down);
        self.render(&planes, colours, &[&fit; 3], size, runs, view)
    }

    /// Resizes what the runs cover and mixes its colours.
    fn render(
        &mut self,
        planes: &[Plane],
        colours: Colours,
        fits: &[&Fit],
        size: usize,
        runs: &[Run],
        view: View<'_>,
    ) -> Vec<u8> {
        let (patch, count) = match view {
            View::Whole => (size, 1),
            View::Patches { patch, ids } => (patch, ids.len()),
        };
        let mut pixels = vec![0; count * patch * patch * 3];
        for run in runs {
            for ((plane, fit), rows) in planes.iter().zip(fits).zip(&mut self.rows) {
                let rectangle = (run.across.clone(), run.down.clone());
                resample(rows, &mut self.scratch, plane, (&fit.across, &fit.down), rectangle);
                // What colours are mixed from is read sixteen bytes at a time.
                rows.resize(rows.len() + 16, 0);
            }
            let [first, second, third] = &self.rows;
            let [first, second, third] =
                if planes.len() == 1 { [first, first, first] } else { [first, second, third] };
            let width = crate::data::decode::resample::width_of(&run.across);
            let margin = run.across.start % GROUP;
            for (y, row) in run.down.clone().enumerate() {
                let at = |x: usize| [first, second, third].map(|rows| &rows[y * width + margin + x..]);
                if run.slots.is_empty() {
                    let start = (row * size + run.across.start) * 3;
                    colour::pixels(&mut pixels[start..start + run.across.len() * 3], at(0), colours);
                }
                for (column, slot) in run.slots.iter().enumerate() {
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

/// What has to be resized for a view: strips of the whole, or patches, neighbours together.
fn runs(size: usize, view: View<'_>) -> Vec<Run> {
    match view {
        View::Whole => (0..size)
            .step_by(STRIP)
            .map(|top| Run { across: 0..size, down: top..(top + STRIP).min(size), slots: Vec::new() })
            .collect(),
        View::Patches { patch, ids } => {
            let grid = size / patch;
            let mut order: Vec<(usize, usize)> =
                ids.iter().enumerate().map(|(slot, &id)| (id as usize, slot)).collect();
            order.sort_unstable();
            let mut runs: Vec<Run> = Vec::new();
            for (id, slot) in order {
                let (row, column) = (id / grid, id % grid);
                let down = row * patch..(row + 1) * patch;
                match runs.last_mut() {
                    Some(run) if run.down == down && run.across.end == column * patch => {
                        run.across.end += patch;
                        run.slots.push(slot);
                    }
                    _ => runs.push(Run {
                        across: column * patch..(column + 1) * patch,
                        down,
                        slots: vec![slot],
                    }),
                }
            }
            runs
        }
    }
}

#[cfg(test)]
mod tests;
