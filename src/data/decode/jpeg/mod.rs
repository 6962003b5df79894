//! Baseline JPEG to planes of bytes, and no more of them than asked for.
//!
//! A crop that is resized, of which a mask keeps a quarter, needs a fraction of an image's blocks: codes have to
//! be read in sequence, but a block that nobody looks at is not transformed, blocks of a large image come out at
//! half, quarter or eighth size, and planes stay as stored - subsampled, in the file's colours - for whoever resizes
//! them. No decoder for hire does that. What is rarer than a baseline scan is [`Unsupported`] here and left to the `image`
//! crate, once [`complete`] has seen that all of it is there.

mod bits;
pub(crate) mod complete;
mod header;
mod huffman;
mod scan;
mod segments;
mod transform;

use std::ops::Range;

pub use header::{Colours, Header};
pub use scan::Scanner;
pub use segments::plain;

/// The marker behind the last scan.
const EOI: u8 = 0xd9;
/// Planes of a colour image.
const MAX_COMPONENTS: usize = 3;

/// This decoder does not read the image; another may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsupported;

/// The size of a plane, and which of its blocks are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Pixels along a side of what a block of 8 x 8 becomes: 8, 4, 2 or 1.
    pub side: usize,
    /// Blocks across the plane.
    pub columns: usize,
    /// By row of blocks, then column.
    pub blocks: Vec<bool>,
}

impl Wanted {
    /// Of a plane of so many blocks, none so far.
    pub fn none(side: usize, (columns, rows): (usize, usize)) -> Self {
        Wanted { side, columns, blocks: vec![false; columns * rows] }
    }

    /// Adds the blocks that hold these pixels (of the reduced plane), as far as the plane reaches.
    pub fn add(&mut self, across: Range<usize>, down: Range<usize>) {
        let columns = across.start / self.side..across.end.div_ceil(self.side).min(self.columns);
        let rows = down.start / self.side..down.end.div_ceil(self.side);
        for row in self.blocks.chunks_mut(self.columns).take(rows.end).skip(rows.start) {
            row[columns.clone()].fill(true);
        }
    }

    /// The smallest rectangle of blocks that holds all wanted ones: columns and rows.
    fn bounds(&self) -> (Range<usize>, Range<usize>) {
        let rows = self.blocks.chunks(self.columns).enumerate();
        let nothing = Range { start: usize::MAX, end: 0 };
        let (mut across, mut down) = (nothing.clone(), nothing);
        for (y, row) in rows {
            let Some(first) = row.iter().position(|&wanted| wanted) else { continue };
            let last = row.iter().rposition(|&wanted| wanted).unwrap_or(first);
            across = across.start.min(first)..across.end.max(last + 1);
            down = down.start.min(y)..y + 1;
        }
        if down.is_empty() {
            (0..0, 0..0)
        } else {
            (across, down)
        }
    }
}
