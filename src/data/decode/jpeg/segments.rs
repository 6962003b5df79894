//! The segments of a JPEG file.

use std::borrow::Cow;

use super::EOI;

/// Start of a scan.
pub const SCAN: u8 = 0xda;

/// Reads segments one after the other: the marker, and what belongs to it. Between them may be anything, as for other
/// decoders. They end where the file does, even before its end marker.
#[derive(Debug, Default)]
pub struct Segments<'a> {
    pub rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let at = memchr::memchr(0xff, self.rest)?;
            let kind = self.rest[at..].iter().position(|&byte| byte != 0xff)?;
            let marker = self.rest[at + kind];
            self.rest = &self.rest[at + kind + 1..];
            match marker {
                EOI => return Some((EOI, &[])),
                // No markers, or markers of nothing.
                0 | 1 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let length = usize::from(word(self.rest.get(..2)?)).max(2);
            let (segment, rest) = self.rest.split_at_checked(length)?;
            self.rest = rest;
            return Some((marker, &segment[2..]));
        }
    }
}

/// A JPEG without comments, profiles and descriptions, which a decoder would collect for nothing. Other bytes as they
/// are.
pub fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Cow::Borrowed(bytes);
    }
    let mut segments = Segments { rest: bytes };
    let (mut plain, mut from) = (Vec::new(), 0);
    while let Some((marker, body)) = segments.next() {
        let to = bytes.len() - segments.rest.len();
        match marker {
            SCAN | EOI => break,
            // JFIF and Adobe say what the colours are, Exif how the image is turned.
            0xe1..=0xef | 0xfe if marker != 0xee && !body.starts_with(b"Exif\0\0") => {
                plain.extend_from_slice(&bytes[from..to - body.len() - 4]);
                from = to;
            }
            _ => {}
        }
    }
    if from == 0 {
        return Cow::Borrowed(bytes);
    }
    plain.extend_from_slice(&bytes[from..]);
    Cow::Owned(plain)
}

pub fn word(two: &[u8]) -> u16 {
    u16::from_be_bytes([two[0], two[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
        [&[0xff, marker], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
    }

    #[test]
    fn descriptions_are_left_out_and_what_pixels_depend_on_stays() {
        let kept = [
            segment(0xe0, b"JFIF\0"),
            segment(0xe1, b"Exif\0\0II"),
            segment(0xee, b"Adobe"),
            segment(0xdb, b"1"),
        ];
        let dropped = [
            segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0<x>"),
            segment(0xe2, b"ICC_PROFILE\0"),
            segment(0xfe, b""),
        ];
        let scan = [segment(SCAN, b"2"), segment(0xe2, b"in the data"), vec![0xff, EOI]].concat();
        let start = vec![0xff, 0xd8];
        let clean = [start.clone(), kept.concat(), scan.clone()].concat();
        assert!(matches!(plain(&clean), Cow::Borrowed(_)));
        let mixed =
            kept.iter().zip(dropped.iter().cycle()).flat_map(|(kept, dropped)| [&dropped[..], kept].concat());
        let mixed = [start, mixed.collect(), scan].concat();
        assert_eq!(plain(&mixed), clean);
        assert_eq!(plain(&mixed[..40]).len(), 40 - dropped[0].len());
        assert_eq!(plain(b"GIF"), &b"GIF"[..]);
    }
}
