//! Tensors that lie anywhere in memory, as one row of values, and the pieces in which parts of it are exchanged.

use std::ops::Range;

/// Where in the row each tensor begins.
#[derive(Debug, Clone)]
pub struct Row {
    /// The first value of each tensor, and the end.
    starts: Vec<usize>,
}

impl Row {
    /// The row of these tensors, one after the other.
    pub fn of(tensors: &[Vec<f32>]) -> Row {
        let mut starts = vec![0];
        let mut end = 0;
        starts.extend(tensors.iter().map(|tensor| {
            end += tensor.len();
            end
        }));
        Row { starts }
    }

    /// All values.
    pub fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or_default()
    }

    /// Each tensor's place in the row.
    pub fn places(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// The tensors that have values of a piece, which of theirs, and which of the piece.
    fn cover<'a>(
        &'a self,
        piece: &'a Range<usize>,
    ) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> + 'a {
        let first = self.starts.partition_point(|&start| start <= piece.start).saturating_sub(1);
        let places = self.places().enumerate().skip(first).take_while(|(_, place)| place.start < piece.end);
        places.filter_map(|(tensor, place)| {
            let (from, to) = (place.start.max(piece.start), place.end.min(piece.end));
            (from < to)
                .then(|| (tensor, from - place.start..to - place.start, from - piece.start..to - piece.start))
        })
    }

    /// Appends the values of a piece.
    pub fn read(&self, tensors: &[Vec<f32>], piece: &Range<usize>, to: &mut Vec<f32>) {
        self.cover(piece).for_each(|(tensor, own, _)| to.extend_from_slice(&tensors[tensor][own]));
    }

    /// Overwrites the values of a piece.
    pub fn write(&self, tensors: &mut [Vec<f32>], piece: &Range<usize>, from: &[f32]) {
        self.cover(piece).for_each(|(tensor, own, of)| tensors[tensor][own].copy_from_slice(&from[of]));
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
        let lengths = [3, 1, 0, 5, 2];
        let mut tensors: Vec<Vec<f32>> = lengths.iter().map(|&length| vec![0.0; length]).collect();
        let row = Row::of(&tensors);
        assert_eq!(row.len(), 11);
        for most in 1..12 {
            let mut seen = [0; 11];
            for pieces in rounds(&[0..4, 4..4, 4..11], most) {
                for piece in pieces {
                    assert!(piece.len() <= most);
                    let values: Vec<f32> = piece.clone().map(|at| (100 * most + at) as f32).collect();
                    row.write(&mut tensors, &piece, &values);
                    let mut read = Vec::new();
                    row.read(&tensors, &piece, &mut read);
                    assert_eq!(read, values);
                    piece.for_each(|at| seen[at] += 1);
                }
            }
            assert_eq!(seen, [1; 11]);
            let all: Vec<f32> = (0..11).map(|at| (100 * most + at) as f32).collect();
            assert_eq!(tensors.concat(), all);
        }
    }
}
