//! PNG files, reduced to what images are made of.
//!
//! Profiles and texts are packed: a few kilobytes may unpack to gigabytes that nobody looks at. So the decoder gets
//! to see the pixels, their palette and their orientation, and no other chunk.

use std::borrow::Cow;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Chunks that are kept: sizes, palette, transparency, pixels, orientation.
const KEPT: [&[u8]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf"];
/// Bytes of a chunk's length and name, and of its checksum.
const HEAD: usize = 8;
const SUM: usize = 4;

/// A PNG without the chunks that no pixel depends on. Other bytes as they are.
///
/// The pixels of a file that was cut off end as a chunk should, and the end chunk follows: whether all
/// pixels are there is what counts, as for other decoders.
pub(crate) fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut rest) = bytes.strip_prefix(SIGNATURE) else { return Cow::Borrowed(bytes) };
    let mut plain = Vec::with_capacity(bytes.len() + HEAD + SUM);
    plain.extend_from_slice(SIGNATURE);
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let (length, name) = head.split_at(4);
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        match rest.split_at_checked(HEAD + length + SUM) {
            _ if name == b"IEND" => break,
            Some((chunk, behind)) => {
                if KEPT.contains(&name) {
                    plain.extend_from_slice(chunk);
                }
                rest = behind;
            }
            None => {
                if name == b"IDAT" {
                    push_chunk(&mut plain, name, &behind[..behind.len().min(length)]);
                }
                break;
            }
        }
    }
    push_chunk(&mut plain, b"IEND", &[]);
    Cow::Owned(plain)
}

fn push_chunk(png: &mut Vec<u8>, name: &[u8], body: &[u8]) {
    let mut sum = flate2::Crc::new();
    sum.update(name);
    sum.update(body);
    for part in [&(body.len() as u32).to_be_bytes(), name, body, &sum.sum().to_be_bytes()] {
        png.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    #[test]
    fn what_no_pixel_depends_on_is_left_out() {
        let mut png = Cursor::new(Vec::new());
        image::RgbImage::new(3, 2).write_to(&mut png, image::ImageFormat::Png).unwrap();
        let png = png.into_inner();
        assert_eq!(plain(&png), png);

        let mut profile = flate2::write::ZlibEncoder::new(b"name\0\0".to_vec(), flate2::Compression::best());
        profile.write_all(&vec![0; 8 << 20]).unwrap();
        let header = SIGNATURE.len() + HEAD + 13 + SUM;
        let mut long = png[..header].to_vec();
        push_chunk(&mut long, b"iCCP", &profile.finish().unwrap());
        long.extend_from_slice(&png[header..]);
        assert_eq!(plain(&long), png);
        assert_eq!(plain(b"GIF89a"), &b"GIF89a"[..]);
    }

    #[test]
    fn files_end_where_their_pixels_do() {
        let mut png = SIGNATURE.to_vec();
        push_chunk(&mut png, b"IDAT", b"pixels");
        let all = png.len();
        push_chunk(&mut png, b"IEND", &[]);
        for cut in all - SUM..=png.len() {
            assert_eq!(plain(&png[..cut]), png, "cut at {cut}");
        }
        assert_ne!(plain(&png[..all - SUM - 1]), png);
    }
}
