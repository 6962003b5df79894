//! The entropy-coded data of a baseline JPEG: one scan over all planes.

use super::huffman::{Codes, END};
use super::transform::{dequantiser, Block, Inverse, PLACES};
use super::{Header, Unread, Wanted};
use crate::data::planes::Plane;

/// Zeros behind each piece of the data, so that bits can be read eight bytes at a time.
const PADDING: usize = 16;

/// Decodes scans; it keeps tables and memory for the next picture.
#[derive(Debug, Default)]
pub struct Scanner {
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    /// The data without stuffing and markers.
    data: Vec<u8>,
    /// Where each piece between two restart markers begins and ends in it.
    pieces: Vec<(usize, usize)>,
}

/// One plane while it is decoded.
struct Part<'a> {
    across: usize,
    down: usize,
    steps: [f32; 64],
    dc: &'a Codes,
    ac: &'a Codes,
    inverse: Inverse,
    wanted: &'a Wanted,
    /// First column and row of blocks in the plane's memory.
    origin: (usize, usize),
    /// The first coefficient of the block before.
    before: i32,
}

impl Scanner {
    /// The wanted blocks of each plane; the memory of others holds anything.
    ///
    /// # Errors
    /// The data is damaged or is not all of one scan.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        header: &Header<'_>,
        wanted: &[Wanted],
        planes: &mut [Plane],
    ) -> Result<(), Unread> {
        self.collect(bytes.get(header.scan..).unwrap_or_default(), header.restart > 0)?;
        for component in &header.components {
            refresh(&mut self.dc, &header.dc, component.dc, false)?;
            refresh(&mut self.ac, &header.ac, component.ac, true)?;
        }
        let mut parts = Vec::with_capacity(wanted.len());
        let mut last_row = 0;
        for ((component, wanted), plane) in header.components.iter().zip(wanted).zip(planes.iter_mut()) {
            let quantiser = header.quantisers[component.quantiser].as_ref().ok_or(Unread)?;
            let (columns, rows) = wanted.bounds();
            let side = wanted.side;
            plane.reserve(
                (columns.start * side, rows.start * side),
                (columns.len() * side, rows.len() * side),
            );
            last_row = last_row.max(rows.end.div_ceil(component.down as usize));
            parts.push(Part {
                across: component.across as usize,
                down: component.down as usize,
                steps: dequantiser(quantiser, side),
                dc: self.dc[component.dc].as_ref().ok_or(Unread)?,
                ac: self.ac[component.ac].as_ref().ok_or(Unread)?,
                inverse: Inverse::new(side),
                wanted,
                origin: (columns.start, rows.start),
                before: 0,
            });
        }

        let walk = Walk { units: header.units().0, rows: last_row, restart: header.restart };
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has both.
            return unsafe { walk.run_fast(&self.data, &self.pieces, &mut parts, planes) };
        }
        walk.run(&self.data, &self.pieces, &mut parts, planes)
    }

    /// Copies the data up to the end marker, without stuffing.
    fn collect(&mut self, mut rest: &[u8], restarts: bool) -> Result<(), Unread> {
        self.data.clear();
        self.pieces.clear();
        self.data.reserve(rest.len() + PADDING);
        let mut begin = 0;
        loop {
            let marker = memchr::memchr(0xff, rest).ok_or(Unread)?;
            let (plain, from_marker) = rest.split_at(marker);
            self.data.extend_from_slice(plain);
            let kind = from_marker.iter().position(|&byte| byte != 0xff).ok_or(Unread)?;
            rest = &from_marker[kind + 1..];
            match from_marker[kind] {
                0 => self.data.push(0xff),
                marker @ (0xd0..=0xd7 | 0xd9) => {
                    let end = self.data.len();
                    self.pieces.push((begin, end));
                    self.data.resize(end + PADDING, 0);
                    begin = end + PADDING;
                    match marker {
                        0xd9 => return Ok(()),
                        // Markers count from 0 to 7 again and again.
                        _ if restarts && usize::from(marker - 0xd0) == (self.pieces.len() - 1) % 8 => {}
                        _ => return Err(Unread),
                    }
                }
                _ => return Err(Unread),
            }
        }
    }
}

/// The coded units of a scan that are read.
struct Walk {
    /// Across the picture.
    units: usize,
    /// Down to the last wanted block.
    rows: usize,
    /// Units between two restart markers; 0 for none.
    restart: u32,
}

impl Walk {
    /// # Safety
    /// The processor has AVX2 and BMI2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi2")]
    unsafe fn run_fast(
        &self,
        data: &[u8],
        pieces: &[(usize, usize)],
        parts: &mut [Part<'_>],
        planes: &mut [Plane],
    ) -> Result<(), Unread> {
        self.run(data, pieces, parts, planes)
    }

    #[inline(always)]
    fn run(
        &self,
        data: &[u8],
        pieces: &[(usize, usize)],
        parts: &mut [Part<'_>],
        planes: &mut [Plane],
    ) -> Result<(), Unread> {
        let mut pieces = pieces.iter();
        let mut bits = Bits::of(data, pieces.next().ok_or(Unread)?);
        let mut until_restart = self.restart;
        for row in 0..self.rows {
            for column in 0..self.units {
                if self.restart > 0 {
                    if until_restart == 0 {
                        bits.end()?;
                        bits = Bits::of(data, pieces.next().ok_or(Unread)?);
                        parts.iter_mut().for_each(|part| part.before = 0);
                        until_restart = self.restart;
                    }
                    until_restart -= 1;
                }
                for (part, plane) in parts.iter_mut().zip(planes.iter_mut()) {
                    for v in 0..part.down {
                        for h in 0..part.across {
                            part.block(&mut bits, (column * part.across + h, row * part.down + v), plane)?;
                        }
                    }
                }
            }
        }
        bits.end()
    }
}

/// Builds a table unless the one at hand is of the same segment: most files have the standard's.
fn refresh(
    tables: &mut [Option<Codes>; 4],
    definitions: &[Option<&[u8]>; 4],
    at: usize,
    ac: bool,
) -> Result<(), Unread> {
    let definition = definitions[at].ok_or(Unread)?;
    if !tables[at].as_ref().is_some_and(|codes| codes.is_of(definition)) {
        tables[at] = Some(Codes::new(definition, ac)?);
    }
    Ok(())
}

impl Part<'_> {
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, at: (usize, usize), plane: &mut Plane) -> Result<(), Unread> {
        let (column, row) = at;
        if !self.wanted.blocks[row * self.wanted.columns + column] {
            return self.pass(bits);
        }
        let mut block: Block = [0.0; 64];
        let flat = self.read(bits, &mut block)?;
        let side = self.wanted.side;
        let start = (row - self.origin.1) * side * plane.stride + (column - self.origin.0) * side;
        let to = plane.pixels.get_mut(start..).ok_or(Unread)?;
        if flat {
            self.inverse.write_flat(block[0], to, plane.stride);
        } else {
            self.inverse.write(&block, to, plane.stride);
        }
        Ok(())
    }

    /// Reads a block; tells whether it has no values but the first.
    #[inline(always)]
    fn read(&mut self, bits: &mut Bits<'_>, block: &mut Block) -> Result<bool, Unread> {
        self.first(bits)?;
        block[0] = self.before as f32 * self.steps[0];
        let mut at = 1;
        loop {
            // Two codes with their values have at most 54 bits.
            if let Some(flat) = self.step(bits, block, &mut at)? {
                return Ok(flat);
            }
            bits.refill()?;
            if let Some(flat) = self.step(bits, block, &mut at)? {
                return Ok(flat);
            }
        }
    }

    /// Reads past a block that is not wanted.
    #[inline(always)]
    fn pass(&mut self, bits: &mut Bits<'_>) -> Result<(), Unread> {
        self.first(bits)?;
        let mut at = 1;
        while at < 64 {
            bits.refill()?;
            let pair = self.ac.look_up_pair(bits.next);
            if !pair.is_known() || at + pair.before_second() >= 64 {
                // A long code, or a block that ends between the two.
                let (run, _) = bits.take(self.ac, true)?;
                at += if run == END { END } else { run + 1 };
                if at > 64 && run != END {
                    return Err(Unread);
                }
                continue;
            }
            bits.skip(pair.bits());
            at += pair.coefficients();
            if at > 64 && pair.coefficients() < END {
                return Err(Unread);
            }
        }
        Ok(())
    }

    /// The first value of a block, which counts from that of the block before.
    #[inline(always)]
    fn first(&mut self, bits: &mut Bits<'_>) -> Result<(), Unread> {
        bits.refill()?;
        let (_, difference) = bits.take(self.dc, false)?;
        self.before = self.before.wrapping_add(difference);
        Ok(())
    }

    /// The next value after the first; at the end of the block whether it has none.
    #[inline(always)]
    fn step(&self, bits: &mut Bits<'_>, block: &mut Block, at: &mut usize) -> Result<Option<bool>, Unread> {
        let (run, value) = bits.take(self.ac, true)?;
        *at += run;
        if *at > 63 {
            return if run == END { Ok(Some(*at == 1 + END)) } else { Err(Unread) };
        }
        block[usize::from(PLACES[*at]) & 63] = value as f32 * self.steps[*at];
        *at += 1;
        Ok((*at == 64).then_some(false))
    }
}

/// Reads bits of a piece of data.
struct Bits<'a> {
    data: &'a [u8],
    /// The next byte to take.
    at: usize,
    end: usize,
    /// The next bits, the first of them highest; below the `left` bits that were counted there may be more.
    next: u64,
    left: u32,
}

impl<'a> Bits<'a> {
    fn of(data: &'a [u8], &(at, end): &(usize, usize)) -> Self {
        Bits { data, at, end, next: 0, left: 0 }
    }

    /// Makes at least 56 bits ready.
    #[inline(always)]
    fn refill(&mut self) -> Result<(), Unread> {
        let eight =
            self.data.get(self.at..self.at + 8).and_then(|eight| eight.try_into().ok()).ok_or(Unread)?;
        self.next |= u64::from_be_bytes(eight) >> self.left;
        self.at += (63 - self.left as usize) >> 3;
        self.left |= 56;
        Ok(())
    }

    /// The next run of zeros and the value behind it.
    #[inline(always)]
    fn take(&mut self, codes: &Codes, ac: bool) -> Result<(usize, i32), Unread> {
        let entry = codes.look_up(self.next, ac).ok_or(Unread)?;
        // Without branches: how long a value is cannot be foreseen.
        let bits = self.next << entry.code();
        self.skip(entry.bits());
        // In two steps, as a value of no bits would be shifted by 64.
        let value = (bits >> 1 >> (63 - entry.size())) as i32;
        // The lower half of a size's range is negative.
        let negative = !((bits as i64) >> 63) as i32;
        Ok((entry.run(), value + (negative & (1 - (1 << entry.size())))))
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.next <<= bits;
        self.left -= bits;
    }

    /// # Errors
    /// More bits were read than the piece has.
    fn end(&self) -> Result<(), Unread> {
        let read = 8 * self.at - self.left as usize;
        if read <= 8 * self.end {
            Ok(())
        } else {
            Err(Unread)
        }
    }
}
