//! Bytes of an image file to pixels, by content and whatever the name says.

use std::borrow::Cow;
use std::io::Cursor;
use std::panic::{catch_unwind, AssertUnwindSafe};

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::data::decode::jpeg::complete::{self, Flaw};
use crate::data::decode::ImageLimits;
use crate::data::decode::{jpeg, png};
use crate::data::Defect;

/// Memory a decoder may take beside its output, bytes.
const SCRATCH: u64 = 64 << 20;
/// Bytes a pixel can take while it is decoded: 16 bits of four channels.
const WIDEST_PIXEL: u64 = 8;

/// A decoded image: [height, width, 3] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// [height, width, 3] bytes.
    pub pixels: Vec<u8>,
}

/// Decodes a JPEG, PNG, WebP, GIF or BMP to 8-bit RGB: the first frame of an animation, 16 bits scaled to 8,
/// gray expanded, transparency over white, EXIF orientation applied, colour profiles ignored.
///
/// ```
/// use flip::data::decode::image_file::decode;
/// use flip::data::decode::ImageLimits;
///
/// let file = b"not an image";
/// let defect = decode(file, ImageLimits::default()).unwrap_err();
/// assert_eq!(defect.reason, "image_decode");
///
/// let mut file = std::io::Cursor::new(Vec::new());
/// image::RgbImage::new(4, 3).write_to(&mut file, image::ImageFormat::Png).unwrap();
/// let rgb = decode(file.get_ref(), ImageLimits::default()).unwrap();
/// assert_eq!((rgb.width, rgb.height, rgb.pixels.len()), (4, 3, 4 * 3 * 3));
/// ```
///
/// # Errors
/// The image has to be left out: `image_empty`, `image_decode`, `image_format` (a format that is not read),
/// `image_mode` (colours that are not read), `image_truncated` (a JPEG that is not all there), `image_scans` (a JPEG
/// of too many scans) or `image_too_large` (too many pixels by its header, which is looked at before any memory is
/// taken).
pub fn decode(bytes: &[u8], limits: ImageLimits) -> Result<Rgb, Defect> {
    if bytes.is_empty() {
        return Err(Defect::new("image_empty", "zero bytes"));
    }
    // Decoders of hostile bytes have had panics; one image must not end a run.
    catch_unwind(AssertUnwindSafe(|| decode_inside(bytes, limits)))
        .unwrap_or_else(|_| Err(Defect::new("image_decode", "the decoder panicked")))
}

fn decode_inside(bytes: &[u8], most: ImageLimits) -> Result<Rgb, Defect> {
    let plain = plain(bytes);
    let mut reader = ImageReader::new(Cursor::new(&plain[..]))
        .with_guessed_format()
        .map_err(|error| Defect::new("image_decode", error.to_string()))?;
    let format = reader.format();
    if format.is_none() {
        return Err(Defect::new("image_decode", "not an image"));
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(most.pixels.saturating_mul(WIDEST_PIXEL).saturating_add(SCRATCH));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(defect)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Defect::new("image_decode", format!("its header says {width} x {height} pixels")));
    }
    if u64::from(width) * u64::from(height) > most.pixels {
        let detail =
            format!("{width} x {height} pixels, more than {} (`max_pixels` of its source)", most.pixels);
        return Err(Defect::new("image_too_large", detail));
    }
    if format == Some(ImageFormat::Jpeg) {
        complete::check(&plain, most.scans).map_err(flaw)?;
    }
    // Without a readable orientation the image is taken as it is stored.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(defect)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let image = over_white(image);
    let (width, height) = image.dimensions();
    Ok(Rgb { width, height, pixels: image.into_raw() })
}

/// Name of an image's format, detected by content.
pub(crate) fn format(bytes: &[u8]) -> &'static str {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => "jpeg",
        Ok(ImageFormat::Png) => "png",
        Ok(ImageFormat::WebP) => "webp",
        Ok(ImageFormat::Gif) => "gif",
        Ok(ImageFormat::Bmp) => "bmp",
        _ => "other",
    }
}

/// Width and height of an image by its header, in pixels as stored; `None` where they cannot be told.
pub(crate) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    if let Ok(header) = jpeg::Header::read(bytes) {
        return Some((header.width, header.height));
    }
    // As for decoding: hostile bytes must not end a run.
    let plain = plain(bytes);
    let read = || {
        let mut reader = ImageReader::new(Cursor::new(&plain[..])).with_guessed_format().ok()?;
        let mut limits = Limits::default();
        limits.max_alloc = Some(SCRATCH);
        reader.limits(limits);
        reader.into_dimensions().ok()
    };
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
}

/// 8-bit RGB, transparent parts over white.
fn over_white(image: DynamicImage) -> image::RgbImage {
    if !image.color().has_alpha() {
        return image.into_rgb8();
    }
    let image = image.into_rgba8();
    let blend = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    image::RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let [r, g, b, alpha] = image.get_pixel(x, y).0;
        image::Rgb([blend(r, alpha), blend(g, alpha), blend(b, alpha)])
    })
}

/// A file without what no pixel depends on: what is packed in there, or comes in many pieces, would cost the decoder
/// memory and time.
fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    match jpeg::plain(bytes) {
        Cow::Borrowed(bytes) => png::plain(bytes),
        plain => plain,
    }
}

/// True if an EXIF block says that the image is to be turned or mirrored.
pub(crate) fn is_turned(exif: &[u8]) -> bool {
    Orientation::from_exif_chunk(exif).is_some_and(|orientation| orientation != Orientation::NoTransforms)
}

fn flaw(flaw: Flaw) -> Defect {
    match flaw {
        Flaw::Truncated(how) => Defect::new("image_truncated", how),
        Flaw::Damaged => Defect::new("image_decode", "a scan of it is damaged"),
        Flaw::Scans(most) => {
            Defect::new("image_scans", format!("more than {most} scans (data.limits.jpeg_scans)"))
        }
    }
}

fn defect(error: ImageError) -> Defect {
    let reason = match &error {
        ImageError::Limits(limit) if !matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            "image_too_large"
        }
        ImageError::Unsupported(unsupported) => match unsupported.kind() {
            image::error::UnsupportedErrorKind::Color(_) => "image_mode",
            _ => "image_format",
        },
        _ => "image_decode",
    };
    Defect::new(reason, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgba, RgbaImage};

    fn up_to(pixels: u64) -> ImageLimits {
        ImageLimits { pixels, ..ImageLimits::default() }
    }

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn transparency_lies_over_white() {
        let bytes = encoded(RgbaImage::from_pixel(1, 1, Rgba([200, 0, 100, 51])), ImageFormat::Png);
        let blended = |colour: f64| (colour * 0.2 + 255.0 * 0.8).round() as u8;
        assert_eq!(decode(&bytes, up_to(1)).unwrap().pixels, [blended(200.0), blended(0.0), blended(100.0)]);
    }

    #[test]
    fn sixteen_bits_are_scaled() {
        let image = image::ImageBuffer::<image::Luma<u16>, _>::from_vec(3, 1, vec![0, 257 * 77, 65535]);
        let image = DynamicImage::ImageLuma16(image.unwrap());
        let got = decode(&encoded(image, ImageFormat::Png), up_to(3)).unwrap();
        assert_eq!(got.pixels, [0, 0, 0, 77, 77, 77, 255, 255, 255]);
    }

    #[test]
    fn the_limit_counts_pixels_of_the_header() {
        let bytes = encoded(image::RgbImage::new(8, 8), ImageFormat::Png);
        assert!(decode(&bytes, up_to(64)).is_ok());
        assert_eq!(decode(&bytes, up_to(63)).unwrap_err().reason, "image_too_large");
    }

    #[test]
    fn what_is_no_image_says_so() {
        assert_eq!(decode(b"", up_to(1)).unwrap_err().reason, "image_empty");
        assert_eq!(decode(b"<html>", up_to(1)).unwrap_err().reason, "image_decode");
        assert_eq!(decode(b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0", up_to(1)).unwrap_err().reason, "image_format");
    }
}
