//! Check that a JPEG file holds all of its image.
//!
//! Decoders fill up what is missing with gray and say nothing. This reads the file's structure, and in every scan
//! that lays down whole blocks or their mean colours the codes too, without making pixels of them. Scans that only
//! refine are not read: without one, an image is all there, but coarser.

use super::bits::{Bits, Pieces};
use super::huffman::Codes;
use super::segments::{word, Segments, SCAN};
use super::{Unsupported, EOI};

/// A flaw that a decoder would not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The file ends before its end marker, or a scan before the image.
    Truncated(&'static str),
    /// Codes of a scan mean nothing.
    Damaged,
    /// It has more scans than this.
    Scans(u32),
}

/// Looks through a file that may have so many scans.
///
/// # Errors
/// It has a flaw. Whatever else is wrong with it is left for the decoder to say.
pub fn check(bytes: &[u8], most_scans: u32) -> Result<(), Flaw> {
    let mut file = File { segments: Segments { rest: bytes }, ..File::default() };
    let mut scans = 0;
    loop {
        let (marker, body) = file.segments.next().ok_or(NO_END)?;
        match marker {
            EOI => return file.check_planes(),
            // Frames; between them are the numbers of other segments.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => file.frame = Frame::read(marker, body),
            0xc4 => file.take_codes(body),
            0xdd => file.restart = body.get(..2).map_or(0, |two| word(two).into()),
            SCAN => {
                scans += 1;
                if scans > most_scans {
                    return Err(Flaw::Scans(most_scans));
                }
                let ended = file.pieces.collect(file.segments.rest);
                file.begin(body);
                file.check_scan(body)?;
                let (_, length) = ended.ok_or(NO_END)?;
                // The marker that ended it is read next.
                file.segments.rest = &file.segments.rest[length - 2..];
            }
            _ => {}
        }
    }
}

const NO_END: Flaw = Flaw::Truncated("it ends before its end marker");

/// A file while it is looked through.
#[derive(Default)]
struct File<'a> {
    segments: Segments<'a>,
    /// DC and AC tables, as their segments define them.
    codes: [[Option<&'a [u8]>; 4]; 2],
    /// Coded units between two restart markers; 0 for none.
    restart: u32,
    frame: Option<Frame>,
    pieces: Pieces,
}

/// A frame of Huffman codes for eight bits.
#[derive(Debug)]
struct Frame {
    progressive: bool,
    width: u32,
    height: u32,
    planes: Vec<Plane>,
}

/// A plane of a frame: its name, its blocks in a coded unit, and whether a scan of it has come.
#[derive(Debug, Clone, Copy)]
struct Plane {
    id: u8,
    across: u32,
    down: u32,
    begun: bool,
}

/// The coefficients that a scan has of each block.
enum BlockCoding {
    /// All of it.
    Whole(Codes, Codes),
    /// The first value.
    First(Codes),
    /// One more bit of the first value.
    Bit,
}

impl<'a> File<'a> {
    fn take_codes(&mut self, mut body: &'a [u8]) {
        while let Some((&kind, rest)) = body.split_first() {
            let Some(counts) = rest.get(..16) else { return };
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let Some(table) = rest.get(..16 + symbols) else { return };
            if let Some(place) = self
                .codes
                .get_mut(usize::from(kind >> 4))
                .and_then(|tables| tables.get_mut(usize::from(kind & 15)))
            {
                *place = Some(table);
            }
            body = &rest[16 + symbols..];
        }
    }

    /// Notes the planes that begin with a scan of this header.
    fn begin(&mut self, header: &[u8]) {
        let Some((&count, rest)) = header.split_first() else { return };
        let Some((names, spectrum)) = rest.split_at_checked(2 * usize::from(count)) else { return };
        // Other scans need what the first one of a plane brings.
        if spectrum.first() == Some(&0) {
            let planes = self.frame.iter_mut().flat_map(|frame| &mut frame.planes);
            for plane in planes.filter(|plane| names.iter().step_by(2).any(|name| *name == plane.id)) {
                plane.begun = true;
            }
        }
    }

    /// True if every plane has begun by the end of the file.
    fn check_planes(&self) -> Result<(), Flaw> {
        match self.frame.as_ref().is_some_and(|frame| frame.planes.iter().any(|plane| !plane.begun)) {
            true => Err(Flaw::Truncated("it ends before its last plane")),
            false => Ok(()),
        }
    }

    /// Checks that the data at hand reaches to the end of the scan of this header.
    fn check_scan(&self, header: &[u8]) -> Result<(), Flaw> {
        match self.scan(header) {
            Some((units, blocks)) => self.walk(units, &blocks),
            None => Ok(()),
        }
    }

    /// Coded units of a scan, and the codings of blocks in one of them; `None` where they are not read here.
    fn scan(&self, header: &[u8]) -> Option<(u64, Vec<BlockCoding>)> {
        let frame = self.frame.as_ref()?;
        let (&count, rest) = header.split_first()?;
        let (names, rest) = rest.split_at_checked(2 * usize::from(count))?;
        let &[first, _, precision, ..] = rest else { return None };
        if first > 0 || names.is_empty() {
            return None;
        }
        let alone = names.len() == 2;
        let mut codings = Vec::new();
        let mut units = frame.units();
        for name in names.chunks_exact(2) {
            let plane = frame.planes.iter().find(|plane| plane.id == name[0])?;
            // A scan of one plane has its blocks one by one.
            let blocks = if alone { 1 } else { plane.across * plane.down };
            if alone {
                units = frame.blocks(plane);
            }
            for _ in 0..blocks {
                codings.push(match (frame.progressive, precision >> 4) {
                    (false, _) => {
                        BlockCoding::Whole(self.table(0, name[1] >> 4)?, self.table(1, name[1] & 15)?)
                    }
                    (true, 0) => BlockCoding::First(self.table(0, name[1] >> 4)?),
                    (true, _) => BlockCoding::Bit,
                });
            }
        }
        Some((units, codings))
    }

    fn table(&self, kind: usize, place: u8) -> Option<Codes> {
        let definition = self.codes[kind].get(usize::from(place)).copied().flatten()?;
        Codes::new(definition, kind == 1).ok()
    }

    /// Reads all units of a scan.
    fn walk(&self, units: u64, codings: &[BlockCoding]) -> Result<(), Flaw> {
        const SHORT: Flaw = Flaw::Truncated("its data ends before the image");
        let mut pieces = self.pieces.ranges.iter();
        let mut bits = Bits::of(&self.pieces.data, pieces.next().ok_or(SHORT)?);
        for unit in 0..units {
            if self.restart > 0 && unit > 0 && unit % u64::from(self.restart) == 0 {
                bits.end().map_err(|Unsupported| SHORT)?;
                bits = Bits::of(&self.pieces.data, pieces.next().ok_or(SHORT)?);
            }
            for coding in codings {
                if coding.pass(&mut bits).is_err() {
                    return Err(if bits.end().is_err() { SHORT } else { Flaw::Damaged });
                }
            }
        }
        bits.end().map_err(|Unsupported| SHORT)
    }
}

impl BlockCoding {
    #[inline(always)]
    fn pass(&self, bits: &mut Bits<'_>) -> Result<(), Unsupported> {
        bits.refill()?;
        match self {
            BlockCoding::Whole(dc, ac) => {
                bits.take(dc, false)?;
                bits.pass(ac)
            }
            BlockCoding::First(dc) => bits.take(dc, false).map(|_| ()),
            BlockCoding::Bit => {
                bits.skip(1);
                Ok(())
            }
        }
    }
}

impl Frame {
    /// `None` for what is not Huffman codes of eight bits.
    fn read(marker: u8, body: &[u8]) -> Option<Frame> {
        let &[8, ref rest @ ..] = body else { return None };
        let (size, planes) = rest.split_at_checked(5)?;
        let planes = planes.get(..3 * usize::from(size[4]))?;
        let plane = |plane: &[u8]| Plane {
            id: plane[0],
            across: (plane[1] >> 4).into(),
            down: (plane[1] & 15).into(),
            begun: false,
        };
        let planes: Vec<Plane> = planes.chunks_exact(3).map(plane).collect();
        let usual = |blocks: u32| (1..=4).contains(&blocks);
        let usual = planes.iter().all(|plane| usual(plane.across) && usual(plane.down));
        (matches!(marker, 0xc0..=0xc2) && usual && !planes.is_empty()).then(|| Frame {
            progressive: marker == 0xc2,
            width: word(&size[2..4]).into(),
            height: word(&size[..2]).into(),
            planes,
        })
    }

    /// Largest number of blocks of a plane in a coded unit, across and down.
    fn most(&self) -> (u32, u32) {
        let across = self.planes.iter().map(|plane| plane.across).max().unwrap_or(1);
        let down = self.planes.iter().map(|plane| plane.down).max().unwrap_or(1);
        (across, down)
    }

    /// Coded units of the image.
    fn units(&self) -> u64 {
        let (across, down) = self.most();
        u64::from(self.width.div_ceil(8 * across)) * u64::from(self.height.div_ceil(8 * down))
    }

    /// Blocks of a plane that show some of the image.
    fn blocks(&self, plane: &Plane) -> u64 {
        let (across, down) = self.most();
        let blocks =
            |length: u32, here: u32, most: u32| u64::from((length * here).div_ceil(most).div_ceil(8));
        blocks(self.width, plane.across, across) * blocks(self.height, plane.down, down)
    }
}
