//! Many small images as one.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use super::ReportError;

/// Between images, pixels.
const GAP: usize = 4;
/// Ground behind them.
const GROUND: Rgb<u8> = Rgb([255, 255, 255]);

/// A PNG of square images, [size, size, 3] bytes each, row by row in so many columns.
///
/// # Errors
/// There is no image, or one is not of that size.
pub fn sheet(images: &[Vec<u8>], size: usize, columns: usize) -> Result<Vec<u8>, ReportError> {
    let failed = |reason: String| ReportError::Drawing { what: "the sheet".into(), reason };
    if images.is_empty() || size == 0 || columns == 0 {
        return Err(failed("there is no image".into()));
    }
    if let Some(wrong) = images.iter().position(|pixels| pixels.len() != size * size * 3) {
        return Err(failed(format!("image {wrong} is not [{size}, {size}, 3]")));
    }
    let columns = columns.min(images.len());
    let side = |count: usize| u32::try_from(count * (size + GAP) + GAP);
    let (Ok(width), Ok(height)) = (side(columns), side(images.len().div_ceil(columns))) else {
        return Err(failed(format!("{} images of {size} pixels do not fit into one", images.len())));
    };
    let mut sheet = RgbImage::from_pixel(width, height, GROUND);
    for (index, pixels) in images.iter().enumerate() {
        let (left, top) = (GAP + index % columns * (size + GAP), GAP + index / columns * (size + GAP));
        for (i, pixel) in pixels.chunks_exact(3).enumerate() {
            // In range: the sheet was measured for these positions above.
            let (x, y) = ((left + i % size) as u32, (top + i / size) as u32);
            sheet.put_pixel(x, y, Rgb([pixel[0], pixel[1], pixel[2]]));
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(|error| failed(error.to_string()))?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_row_by_row_with_gaps() {
        let images: Vec<Vec<u8>> = (1..=3u8).map(|value| vec![value; 2 * 2 * 3]).collect();
        let png = sheet(&images, 2, 2).expect("a sheet");
        let shown = image::load_from_memory(&png).expect("an image").to_rgb8();
        assert_eq!(shown.dimensions(), (16, 16));
        let at = |x, y| shown.get_pixel(x, y).0[0];
        assert_eq!([at(4, 4), at(10, 4), at(4, 10), at(10, 10), at(6, 4)], [1, 2, 3, 255, 255]);
        assert!(sheet(&[], 2, 2).is_err());
        assert!(sheet(&[vec![0; 5]], 2, 2).is_err());
    }
}
