//! Images as `data:` URLs, small enough for a page of many.

use std::io::Cursor;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ImageFormat, RgbImage};

use super::ReportError;

/// Images with longer sides are made smaller, pixels.
const LONGEST: u32 = 112;
/// Images with longer sides are stored as JPEG; smaller ones are enlarged by browsers, which shows every
/// artefact.
const LOSSLESS: u32 = 64;
const QUALITY: u8 = 85;

/// A JPEG of an image of any shape, [height, width, 3] bytes, whose longer side has at most `longest` pixels.
///
/// # Errors
/// The bytes are no such image.
pub fn fitted((width, height): (u32, u32), pixels: Vec<u8>, longest: u32) -> Result<Vec<u8>, ReportError> {
    let drawing = |reason: String| ReportError::Drawing { what: "an image".into(), reason };
    let bytes = pixels.len();
    let image = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| drawing(format!("{bytes} bytes are not [{height}, {width}, 3]")))?;
    let image = match width.max(height) {
        longer if longer > longest => {
            let scaled = |side: u32| (u64::from(side) * u64::from(longest) / u64::from(longer)).max(1) as u32;
            image::imageops::thumbnail(&image, scaled(width), scaled(height))
        }
        _ => image,
    };
    let mut jpeg = Cursor::new(Vec::new());
    image
        .write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, QUALITY))
        .map_err(|error| drawing(error.to_string()))?;
    Ok(jpeg.into_inner())
}

/// A `data:` URL of an image, [size, size, 3] bytes.
pub fn thumbnail(pixels: &[u8], size: usize) -> Result<String, ReportError> {
    let drawing = |reason: String| ReportError::Drawing { what: "an example".into(), reason };
    let side = u32::try_from(size).map_err(|_| drawing(format!("{size} pixels are too many")))?;
    let image = RgbImage::from_raw(side, side, pixels.to_vec())
        .ok_or_else(|| drawing(format!("{} bytes are not [{size}, {size}, 3]", pixels.len())))?;
    let image = match side > LONGEST {
        true => image::imageops::resize(&image, LONGEST, LONGEST, FilterType::Triangle),
        false => image,
    };
    let mut bytes = Cursor::new(Vec::new());
    let (written, kind) = match side > LOSSLESS {
        true => (image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, QUALITY)), "jpeg"),
        false => (image.write_to(&mut bytes, ImageFormat::Png), "png"),
    };
    written.map_err(|error| drawing(error.to_string()))?;
    Ok(format!("data:image/{kind};base64,{}", STANDARD.encode(bytes.into_inner())))
}
