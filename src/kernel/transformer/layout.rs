//! Where the parameters of a stack, and their gradients, are in one flat buffer.

use std::ops::Range;

use super::Shape;

/// A parameter of a block, in the order of the flat buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Norm1Scale,
    Norm1Shift,
    /// [width, 3 * width]: queries, keys, values; within each, head after head.
    QkvWeight,
    QkvBias,
    /// [width, width].
    OutWeight,
    OutBias,
    Norm2Scale,
    Norm2Shift,
    /// [width, hidden].
    UpWeight,
    UpBias,
    /// [hidden, width].
    DownWeight,
    DownBias,
}

impl Part {
    /// All of them, in order.
    pub const ALL: [Part; 12] = [
        Part::Norm1Scale,
        Part::Norm1Shift,
        Part::QkvWeight,
        Part::QkvBias,
        Part::OutWeight,
        Part::OutBias,
        Part::Norm2Scale,
        Part::Norm2Shift,
        Part::UpWeight,
        Part::UpBias,
        Part::DownWeight,
        Part::DownBias,
    ];

    /// Whether products multiply by it.
    pub fn is_weight(self) -> bool {
        matches!(self, Part::QkvWeight | Part::OutWeight | Part::UpWeight | Part::DownWeight)
    }

    /// [rows, columns]; a vector has one row.
    fn shape(self, of: &Shape) -> [usize; 2] {
        match self {
            Part::Norm1Scale | Part::Norm1Shift | Part::Norm2Scale | Part::Norm2Shift => [1, of.width],
            Part::QkvWeight => [of.width, 3 * of.width],
            Part::QkvBias => [1, 3 * of.width],
            Part::OutWeight => [of.width, of.width],
            Part::OutBias | Part::DownBias => [1, of.width],
            Part::UpWeight => [of.width, of.hidden],
            Part::UpBias => [1, of.hidden],
            Part::DownWeight => [of.hidden, of.width],
        }
    }
}

/// One parameter of the flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub block: usize,
    pub part: Part,
    /// [rows, columns]; a vector has one row.
    pub shape: [usize; 2],
    pub range: Range<usize>,
}

/// The flat buffer: block after block, parts in the order of [`Part::ALL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
}

impl Layout {
    pub fn new(shape: &Shape) -> Self {
        let mut entries = Vec::with_capacity(shape.depth * Part::ALL.len());
        let mut at = 0;
        for block in 0..shape.depth {
            for part in Part::ALL {
                let [rows, columns] = part.shape(shape);
                entries.push(Entry { block, part, shape: [rows, columns], range: at..at + rows * columns });
                at += rows * columns;
            }
        }
        Layout { entries }
    }

    /// Values in the buffer.
    pub fn len(&self) -> usize {
        self.entries.last().map_or(0, |last| last.range.end)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where a part of a block is.
    pub fn range(&self, block: usize, part: Part) -> Range<usize> {
        self.entries[block * Part::ALL.len() + part as usize].range.clone()
    }

    /// A flat buffer as one slice an entry.
    pub fn split<'a>(&self, mut flat: &'a mut [f32]) -> Vec<&'a mut [f32]> {
        let parts = self.entries.iter().map(|entry| {
            let (part, rest) = std::mem::take(&mut flat).split_at_mut(entry.range.len());
            flat = rest;
            part
        });
        parts.collect()
    }
}

/// Of one slice an entry: a part of a block and the one that follows it, which is a weight and its bias, or a
/// scale and its shift.
pub(super) fn pair<'a>(
    parts: &'a mut [&mut [f32]],
    block: usize,
    first: Part,
) -> (&'a mut [f32], &'a mut [f32]) {
    let index = block * Part::ALL.len() + first as usize;
    let (a, b) = parts[index..index + 2].split_at_mut(1);
    (a[0], b[0])
}
