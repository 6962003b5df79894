//! The entropy-coded data of a baseline JPEG: one scan over all planes.

use super::bits::{Bits, Pieces};
use super::huffman::{Codes, END};
use super::transform::{dequantiser, Block, Inverse, PLACES};
use super::{Header, Unsupported, Wanted, EOI};
use crate::data::decode::planes::Plane;

/// Decodes scans; it keeps tables and memory for the next image.
#[derive(Debug, Default)]
pub struct Scanner {
    dc: [Option<Codes>; 4],
    ac: [Option<Codes>; 4],
    pieces: Pieces,
}

/// One plane while it is decoded.
struct PlaneDecoder<'a> {
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
    ) -> Result<(), Unsupported> {
        match self.pieces.collect(bytes.get(header.scan..).unwrap_or_default()) {
            Some((EOI, _)) if self.pieces.in_order => {}
            _ => return Err(Unsupported),
        }
        if header.restart == 0 && self.pieces.ranges.len() > 1 {
            return Err(Unsupported);
        }
        for component in &header.components {
            refresh(&mut self.dc, &header.dc, component.dc, false)?;
            refresh(&mut self.ac, &header.ac, component.ac, true)?;
        }
        let mut decoders = Vec::with_capacity(wanted.len());
        for ((component, wanted), plane) in header.components.iter().zip(wanted).zip(planes.iter_mut()) {
            let quantiser = header.quantisers[component.quantiser].as_ref().ok_or(Unsupported)?;
            let (columns, rows) = wanted.bounds();
            let side = wanted.side;
            plane.reserve(
                (columns.start * side, rows.start * side),
                (columns.len() * side, rows.len() * side),
            );
            decoders.push(PlaneDecoder {
                across: component.across as usize,
                down: component.down as usize,
                steps: dequantiser(quantiser, side),
                dc: self.dc[component.dc].as_ref().ok_or(Unsupported)?,
                ac: self.ac[component.ac].as_ref().ok_or(Unsupported)?,
                inverse: Inverse::new(side),
                wanted,
                origin: (columns.start, rows.start),
                before: 0,
            });
        }

        // To the end, whatever is wanted: whether a file is all there must not depend on what is looked at.
        let walk = Walk { units: header.units(), restart: header.restart };
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi2") {
            // SAFETY: the processor has both, which was looked up above.
            return unsafe { walk.run_fast(&self.pieces, &mut decoders, planes) };
        }
        walk.run(&self.pieces, &mut decoders, planes)
    }
}

/// The coded units of a scan.
struct Walk {
    /// Across and down the image.
    units: (usize, usize),
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
        pieces: &Pieces,
        decoders: &mut [PlaneDecoder<'_>],
        planes: &mut [Plane],
    ) -> Result<(), Unsupported> {
        self.run(pieces, decoders, planes)
    }

    #[inline(always)]
    fn run(
        &self,
        pieces: &Pieces,
        decoders: &mut [PlaneDecoder<'_>],
        planes: &mut [Plane],
    ) -> Result<(), Unsupported> {
        let data = &pieces.data;
        let mut pieces = pieces.ranges.iter();
        let mut bits = Bits::of(data, pieces.next().ok_or(Unsupported)?);
        let mut until_restart = self.restart;
        for row in 0..self.units.1 {
            for column in 0..self.units.0 {
                if self.restart > 0 {
                    if until_restart == 0 {
                        bits.end()?;
                        bits = Bits::of(data, pieces.next().ok_or(Unsupported)?);
                        decoders.iter_mut().for_each(|decoder| decoder.before = 0);
                        until_restart = self.restart;
                    }
                    until_restart -= 1;
                }
                for (decoder, plane) in decoders.iter_mut().zip(planes.iter_mut()) {
                    for v in 0..decoder.down {
                        for h in 0..decoder.across {
                            decoder.block(
                                &mut bits,
                                (column * decoder.across + h, row * decoder.down + v),
                                plane,
                            )?;
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
) -> Result<(), Unsupported> {
    let definition = definitions[at].ok_or(Unsupported)?;
    if !tables[at].as_ref().is_some_and(|codes| codes.is_of(definition)) {
        tables[at] = Some(Codes::new(definition, ac)?);
    }
    Ok(())
}

impl PlaneDecoder<'_> {
    #[inline(always)]
    fn block(
        &mut self,
        bits: &mut Bits<'_>,
        at: (usize, usize),
        plane: &mut Plane,
    ) -> Result<(), Unsupported> {
        let (column, row) = at;
        if !self.wanted.blocks[row * self.wanted.columns + column] {
            return self.pass(bits);
        }
        let mut block: Block = [0.0; 64];
        let flat = self.read(bits, &mut block)?;
        let side = self.wanted.side;
        let start = (row - self.origin.1) * side * plane.stride + (column - self.origin.0) * side;
        let to = plane.pixels.get_mut(start..).ok_or(Unsupported)?;
        if flat {
            self.inverse.write_flat(block[0], to, plane.stride);
        } else {
            self.inverse.write(&block, to, plane.stride);
        }
        Ok(())
    }

    /// Reads a block; true if it has no values but the first.
    #[inline(always)]
    fn read(&mut self, bits: &mut Bits<'_>, block: &mut Block) -> Result<bool, Unsupported> {
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
    fn pass(&mut self, bits: &mut Bits<'_>) -> Result<(), Unsupported> {
        self.first(bits)?;
        bits.pass(self.ac)
    }

    /// The first value of a block, which counts from that of the block before.
    #[inline(always)]
    fn first(&mut self, bits: &mut Bits<'_>) -> Result<(), Unsupported> {
        bits.refill()?;
        let (_, difference) = bits.take(self.dc, false)?;
        self.before = self.before.wrapping_add(difference);
        Ok(())
    }

    /// The next value after the first; at the end of the block whether it has none.
    #[inline(always)]
    fn step(
        &self,
        bits: &mut Bits<'_>,
        block: &mut Block,
        at: &mut usize,
    ) -> Result<Option<bool>, Unsupported> {
        let (run, value) = bits.take(self.ac, true)?;
        *at += run;
        if *at > 63 {
            return if run == END { Ok(Some(*at == 1 + END)) } else { Err(Unsupported) };
        }
        block[usize::from(PLACES[*at]) & 63] = value as f32 * self.steps[*at];
        *at += 1;
        Ok((*at == 64).then_some(false))
    }
}
