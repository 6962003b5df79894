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
