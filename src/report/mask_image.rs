//! Images beside what the encoder gets to see of them.

use std::io::Cursor;

use image::{ImageFormat, Rgba, RgbaImage};

use super::ReportError;

/// A patch that was removed.
const REMOVED: Rgba<u8> = Rgba([128, 128, 128, 255]);
/// Small images are enlarged to at least this many pixels.
const VISIBLE: usize = 128;
/// Between an image and its masked twin, pixels.
const NEAR: usize = 6;
/// Between pairs, pixels.
const FAR: usize = 18;

/// An image and the patches of it that are kept.
#[derive(Debug, Clone, Copy)]
pub struct Masked<'a> {
    /// [size, size, 3], stored bytes.
    pub pixels: &'a [u8],
    /// Side of the image, pixels.
    pub size: usize,
    /// Positions of the kept patches, row-major in the grid of patches, in any order.
    pub kept: &'a [u32],
}

/// A PNG with every image beside its masked twin, removed patches grey, on a transparent ground. Images
/// are enlarged by a whole factor without smoothing, so that 32 pixels can be seen. `patch` is the side of a
/// patch, pixels; all images have the same size.
pub fn contact_sheet(pairs: &[Masked<'_>], patch: usize) -> Result<Vec<u8>, ReportError> {
    let size = pairs.first().map(|pair| pair.size).ok_or_else(|| mask("there is no image".into()))?;
    for (index, pair) in pairs.iter().enumerate() {
        check(pair, size, patch).map_err(|reason| mask(format!("image {index}: {reason}")))?;
    }
    let scale = VISIBLE.div_ceil(size);
    let side = size * scale;
    // About as wide as high, the pairs being twice as wide as high.
    let columns = ((pairs.len() as f64 / 2.0).sqrt().ceil() as usize).max(1);
    let rows = pairs.len().div_ceil(columns);
    let pair_width = 2 * side + NEAR;
    let width = columns * pair_width + (columns - 1) * FAR;
    let height = rows * side + (rows - 1) * FAR;
    let (Ok(width), Ok(height)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(mask(format!("{} images of {size} pixels do not fit into one", pairs.len())));
    };

    let mut sheet = RgbaImage::new(width, height);
    for (index, pair) in pairs.iter().enumerate() {
        let left = (index % columns) * (pair_width + FAR);
        let top = (index / columns) * (side + FAR);
        let kept = kept_grid(pair, patch);
        let across = size / patch;
        for y in 0..side {
            for x in 0..side {
                let (source_x, source_y) = (x / scale, y / scale);
                let at = (source_y * size + source_x) * 3;
                let pixel = Rgba([pair.pixels[at], pair.pixels[at + 1], pair.pixels[at + 2], 255]);
                let seen = kept[source_y / patch * across + source_x / patch];
                // In range: the sheet was measured for these positions above.
                let (x, y) = ((left + x) as u32, (top + y) as u32);
                sheet.put_pixel(x, y, pixel);
                sheet.put_pixel(x + (side + NEAR) as u32, y, if seen { pixel } else { REMOVED });
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| ReportError::Drawing { what: "the mask".into(), reason: error.to_string() })?;
    Ok(png.into_inner())
}

fn mask(reason: String) -> ReportError {
    ReportError::Mask(reason)
}

fn check(pair: &Masked<'_>, size: usize, patch: usize) -> Result<(), String> {
    if pair.size != size {
        return Err(format!("it has {} pixels a side, the first has {size}", pair.size));
    }
    if patch == 0 || size == 0 || !size.is_multiple_of(patch) {
        return Err(format!("{size} pixels do not divide into patches of {patch}"));
    }
    if Some(pair.pixels.len()) != size.checked_mul(size).and_then(|n| n.checked_mul(3)) {
        return Err(format!("{} bytes are not [{size}, {size}, 3]", pair.pixels.len()));
    }
    let patches = (size / patch) * (size / patch);
    match pair.kept.iter().find(|id| **id as usize >= patches) {
        Some(id) => Err(format!("patch {id} is kept where there are {patches}")),
        None => Ok(()),
    }
}

/// By patch: whether it is kept.
fn kept_grid(pair: &Masked<'_>, patch: usize) -> Vec<bool> {
    let across = pair.size / patch;
    let mut kept = vec![false; across * across];
    for id in pair.kept {
        kept[*id as usize] = true;
    }
    kept
}
