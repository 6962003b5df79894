//! The segments before the scan of a JPEG: sizes, tables, and what the image's colours are.

use super::{Unsupported, MAX_COMPONENTS};

/// Everything a decoder needs to know before the entropy-coded data.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    pub width: u32,
    pub height: u32,
    pub components: Vec<Component>,
    /// Steps of the quantisers, in zigzag order.
    pub quantisers: [Option<[u16; 64]>; 4],
    /// DC tables, as their segments define them: sixteen counts, then the symbols.
    pub dc: [Option<&'a [u8]>; 4],
    /// AC tables.
    pub ac: [Option<&'a [u8]>; 4],
    /// Minimal coded units between two restart markers; 0 for none.
    pub restart: u32,
    pub colours: Colours,
    /// The EXIF block, without its name.
    pub exif: Option<&'a [u8]>,
    /// Start of the entropy-coded data.
    pub scan: usize,
}

/// One plane of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    id: u8,
    /// Blocks of a coded unit, across and down.
    pub across: u32,
    pub down: u32,
    pub quantiser: usize,
    pub dc: usize,
    pub ac: usize,
}

/// Colour space of the planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    Gray,
    YCbCr,
    Rgb,
}

impl<'a> Header<'a> {
    /// Reads up to the scan.
    ///
    /// # Errors
    /// [`Unsupported`] for what this decoder leaves to others: progressive and lossless frames, arithmetic
    /// codes, 12 bits, CMYK, several scans; and for anything that is no JPEG.
    pub fn read(bytes: &'a [u8]) -> Result<Header<'a>, Unsupported> {
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return Err(Unsupported);
        }
        let mut header = Header {
            width: 0,
            height: 0,
            components: Vec::new(),
            quantisers: [None; 4],
            dc: [None; 4],
            ac: [None; 4],
            restart: 0,
            colours: Colours::Gray,
            exif: None,
            scan: 0,
        };
        let (mut jfif, mut adobe) = (false, None);
        let mut at = 2;
        loop {
            let marker = match bytes.get(at..at + 2) {
                Some(&[0xff, 0xff]) => {
                    at += 1;
                    continue;
                }
                Some(&[0xff, marker]) => marker,
                _ => return Err(Unsupported),
            };
            let length = bytes.get(at + 2..at + 4).ok_or(Unsupported)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let body = bytes.get(at + 4..at + 2 + length).ok_or(Unsupported)?;
            at += 2 + length;
            match marker {
                0xc0 | 0xc1 => header.take_frame(body)?,
                0xc4 => header.take_codes(body)?,
                0xdb => header.take_quantisers(body)?,
                0xdd => header.restart = body.get(..2).map_or(0, |two| u32::from(word(two))),
                0xe0 => jfif |= body.starts_with(b"JFIF\0"),
                0xe1 => {
                    if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
                        header.exif = header.exif.or(Some(exif));
                    }
                }
                0xee if body.starts_with(b"Adobe") => adobe = body.get(11).copied().or(adobe),
                0xda => {
                    header.take_scan(body)?;
                    header.scan = at;
                    header.colours = header.colours_of(jfif, adobe)?;
                    return Ok(header);
                }
                // Application data and comments.
                0xe2..=0xef | 0xfe => {}
                _ => return Err(Unsupported),
            }
        }
    }

    /// Largest number of blocks of a plane in a coded unit, across and down.
    fn most(&self) -> (u32, u32) {
        let across = self.components.iter().map(|component| component.across).max().unwrap_or(1);
        let down = self.components.iter().map(|component| component.down).max().unwrap_or(1);
        (across, down)
    }

    /// Coded units across and down the image.
    pub fn units(&self) -> (usize, usize) {
        let (across, down) = self.most();
        (self.width.div_ceil(8 * across) as usize, self.height.div_ceil(8 * down) as usize)
    }

    /// Blocks across and down a plane, those that only fill up coded units included.
    pub fn blocks(&self, component: &Component) -> (usize, usize) {
        let (across, down) = self.units();
        (across * component.across as usize, down * component.down as usize)
    }

    /// Pixels of a plane for one of the image, across and down.
    pub fn density(&self, component: &Component) -> (f64, f64) {
        let (across, down) = self.most();
        (f64::from(component.across) / f64::from(across), f64::from(component.down) / f64::from(down))
    }

    fn take_frame(&mut self, body: &[u8]) -> Result<(), Unsupported> {
        let &[8, ref rest @ ..] = body else { return Err(Unsupported) };
        if !self.components.is_empty() || rest.len() < 5 {
            return Err(Unsupported);
        }
        (self.height, self.width) = (word(&rest[..2]).into(), word(&rest[2..4]).into());
        let count = usize::from(rest[4]);
        if self.width == 0 || self.height == 0 || rest.len() != 5 + 3 * count {
            return Err(Unsupported);
        }
        if count != 1 && count != MAX_COMPONENTS {
            return Err(Unsupported);
        }
        for part in rest[5..].chunks_exact(3) {
            let (mut across, mut down) = (u32::from(part[1] >> 4), u32::from(part[1] & 15));
            if !matches!(across, 1 | 2 | 4) || !matches!(down, 1 | 2 | 4) || part[2] > 3 {
                return Err(Unsupported);
            }
            if count == 1 {
                // A scan of one plane is not interleaved: its units are single blocks.
                (across, down) = (1, 1);
            }
            let quantiser = usize::from(part[2]);
            self.components.push(Component { id: part[0], across, down, quantiser, dc: 0, ac: 0 });
        }
        Ok(())
    }

    fn take_quantisers(&mut self, mut body: &[u8]) -> Result<(), Unsupported> {
        while let Some((&kind, rest)) = body.split_first() {
            let wide = match kind >> 4 {
                0 => 1,
                1 => 2,
                _ => return Err(Unsupported),
            };
            let values = rest.get(..64 * wide).ok_or(Unsupported)?;
            let table = self.quantisers.get_mut(usize::from(kind & 15)).ok_or(Unsupported)?;
            *table = Some(std::array::from_fn(|i| match wide {
                1 => values[i].into(),
                _ => word(&values[2 * i..2 * i + 2]),
            }));
            body = &rest[64 * wide..];
        }
        Ok(())
    }

    fn take_codes(&mut self, mut body: &'a [u8]) -> Result<(), Unsupported> {
        while let Some((&kind, rest)) = body.split_first() {
            let counts = rest.get(..16).ok_or(Unsupported)?;
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let table = rest.get(..16 + symbols).ok_or(Unsupported)?;
            let tables = match kind >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(Unsupported),
            };
            *tables.get_mut(usize::from(kind & 15)).ok_or(Unsupported)? = Some(table);
            body = &rest[16 + symbols..];
        }
        Ok(())
    }

    fn take_scan(&mut self, body: &[u8]) -> Result<(), Unsupported> {
        let count = self.components.len();
        if count == 0 || body.len() != 4 + 2 * count || usize::from(body[0]) != count {
            return Err(Unsupported);
        }
        for (component, part) in self.components.iter_mut().zip(body[1..].chunks_exact(2)) {
            (component.dc, component.ac) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            if component.id != part[0] || component.dc > 3 || component.ac > 3 {
                return Err(Unsupported);
            }
        }
        // The whole spectrum at once.
        match body[1 + 2 * count..] {
            [0, 63, 0] => Ok(()),
            _ => Err(Unsupported),
        }
    }

    /// As libjpeg guesses where the file does not say.
    fn colours_of(&self, jfif: bool, adobe: Option<u8>) -> Result<Colours, Unsupported> {
        let ids: Vec<u8> = self.components.iter().map(|component| component.id).collect();
        Ok(match (self.components.len(), jfif, adobe) {
            (1, ..) => Colours::Gray,
            (_, true, _) | (_, _, Some(1)) => Colours::YCbCr,
            (_, _, Some(0)) => Colours::Rgb,
            (_, _, Some(_)) => return Err(Unsupported),
            _ if ids == b"RGB" => Colours::Rgb,
            _ => Colours::YCbCr,
        })
    }
}

fn word(two: &[u8]) -> u16 {
    u16::from_be_bytes([two[0], two[1]])
}
