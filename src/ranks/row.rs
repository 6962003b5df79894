//! Ranges of one buffer, as a row of values without anything between them, and the pieces in which parts of it are
//! exchanged.

use std::ops::Range;

/// Ranges of a buffer, side by side as a row.
#[derive(Debug, Clone)]
pub struct Row {
    ranges: Vec<Range<usize>>,
    /// The first value of each range, and the end.
    starts: Vec<usize>,
}

impl Row {
    /// The row of these ranges, one after the other.
    pub fn of(ranges: Vec<Range<usize>>) -> Row {
        let mut starts = vec![0];
        let mut end = 0;
        starts.extend(ranges.iter().map(|range| {
            end += range.len();
            end
        }));
        Row { ranges, starts }
    }

    /// All values.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    /// The parts of the buffer that have values of a piece, in order.
    fn cover<'a>(&'a self, piece: &'a Range<usize>) -> impl Iterator<Item = Range<usize>> + 'a {
        let first = self.starts.partition_point(|&start| start <= piece.start).saturating_sub(1);
        let all = self.starts.windows(2).zip(&self.ranges).skip(first);
        all.take_while(|(place, _)| place[0] < piece.end).filter_map(|(place, range)| {
            let (from, to) = (place[0].max(piece.start), place[1].min(piece.end));
            (from < to).then(|| range.start + from - place[0]..range.start + to - place[0])
        })
    }

    /// Appends the values of a piece.
    pub fn read(&self, buffer: &[f32], piece: &Range<usize>, to: &mut Vec<f32>) {
        self.cover(piece).for_each(|own| to.extend_from_slice(&buffer[own]));
    }

    /// Overwrites the values of a piece.
    pub fn write(&self, buffer: &mut [f32], piece: &Range<usize>, mut from: &[f32]) {
        for own in self.cover(piece) {
            let (values, rest) = from.split_at(own.len());
            buffer[own].copy_from_slice(values);
            from = rest;
        }
    }
}

/// The rounds of an exchange: in each, of every slice one piece of at most so many values.
pub fn rounds(slices: &[Range<usize>], most: usize) -> impl Iterator<Item = Vec<Range<usize>>> + '_ {
    let longest = slices.iter().map(Range::len).max().unwrap_or_default();
    (0..longest).step_by(most).map(move |at| {
        let piece = |slice: &Range<usize>| {
            (slice.start + at).min(slice.end)..(slice.start + at + most).min(slice.end)
        };
        slices.iter().map(piece).collect()
    })
}

/// Values of all pieces of a round together, 8 MiB, as long as there are not too many ranks for that.
const ROUND: usize = 2 << 20;

/// Values of a piece, at least, 256 KiB: with less, a link would wait for messages to begin.
const LEAST: usize = 64 << 10;

/// Values of a piece in an exchange between so many ranks.
pub fn piece(ranks: usize) -> usize {
    (ROUND / ranks).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_slice_once_and_read_what_was_written() {
        // Of any order, one of them empty, with room between them.
        let row = Row::of(vec![8..11, 0..1, 4..4, 12..17, 2..4]);
        let mut buffer = vec![-1.0; 18];
        assert_eq!(row.len(), 11);
        for most in 1..12 {
            let mut seen = [0; 11];
            for pieces in rounds(&[0..4, 4..4, 4..11], most) {
                for piece in pieces {
                    assert!(piece.len() <= most);
                    let values: Vec<f32> = piece.clone().map(|at| (100 * most + at) as f32).collect();
                    row.write(&mut buffer, &piece, &values);
                    let mut read = Vec::new();
                    row.read(&buffer, &piece, &mut read);
                    assert_eq!(read, values);
                    piece.for_each(|at| seen[at] += 1);
                }
            }
            assert_eq!(seen, [1; 11]);
            let at = |i: usize| (100 * most + i) as f32;
            let (room, rest) = ([-1.0; 1], [-1.0; 4]);
            let want = [&[at(3)][..], &room, &[at(9), at(10)], &rest, &[at(0), at(1), at(2)], &room];
            let want = [want.concat(), (4..9).map(at).collect(), room.to_vec()].concat();
            assert_eq!(buffer, want);
        }
    }
}
