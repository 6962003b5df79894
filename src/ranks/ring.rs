//! Rows of all ranks, tile after tile in the order of the batch, with only a few tiles in memory.
//!
//! A tile may be made of the rows of several ranks. Each such piece begins at the rank that has it and goes on from
//! neighbour to neighbour until it has been everywhere: no rank ever holds more than its own rows and the tiles on their
//! way. All see the tiles in one order, so that a sum over tiles is taken in that order too.

use std::ops::Range;

use crossbeam_channel::bounded;

use super::{Ranks, RanksError};

/// Some values for each row of this rank.
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// [rows, width].
    pub values: &'a [f32],
    /// Values of a row.
    pub width: usize,
}

/// Rows of the batch with their columns, each [rows, width].
#[derive(Debug, Default)]
pub struct Tile {
    /// Number of its first row in the batch.
    pub first: usize,
    /// A buffer for each column.
    pub columns: Vec<Vec<f32>>,
}

/// Tiles that may wait for being used.
const AHEAD: usize = 1;

/// Hands every tile of `rows` rows to `each`. `bounds` are the first row of each rank, and the end; `own` are the columns of
/// this rank's rows.
///
/// # Errors
/// An exchange fails.
pub fn ring_pass(
    ranks: &dyn Ranks,
    bounds: &[usize],
    rows: usize,
    own: &[Column<'_>],
    mut each: impl FnMut(Tile),
) -> Result<(), RanksError> {
    let total = bounds[ranks.count()];
    let tiles = (0..total).step_by(rows).map(|first| first..(first + rows).min(total));
    if ranks.count() == 1 {
        for tile in tiles {
            let columns = own.iter().map(|column| cut(column, 0, &tile).to_vec()).collect();
            each(Tile { first: tile.start, columns });
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (filled, ready) = bounded(AHEAD);
        let travel = scope.spawn(move || -> Result<(), RanksError> {
            let mut behind: Option<Piece> = None;
            for tile in tiles {
                let mut columns: Vec<Vec<f32>> =
                    own.iter().map(|column| Vec::with_capacity(tile.len() * column.width)).collect();
                for (owner, rows) in pieces(bounds, &tile) {
                    let piece = Piece::next(ranks, bounds, own, owner, &rows, behind.take())?;
                    let mut rest = piece.values.as_slice();
                    for (to, column) in columns.iter_mut().zip(own) {
                        let (values, after) = rest.split_at(rows.len() * column.width);
                        to.extend_from_slice(values);
                        rest = after;
                    }
                    behind = Some(piece);
                }
                if filled.send(Tile { first: tile.start, columns }).is_err() {
                    break;
                }
            }
            ranks.pass(behind.as_ref().and_then(|piece| piece.onward(ranks)), None)
        });
        ready.iter().for_each(&mut each);
        travel.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Rows `rows` of a column that begins at row `first`.
fn cut<'a>(column: &Column<'a>, first: usize, rows: &Range<usize>) -> &'a [f32] {
    &column.values[(rows.start - first) * column.width..(rows.end - first) * column.width]
}

/// The ranks that have rows of a tile, and which.
fn pieces<'a>(
    bounds: &'a [usize],
    tile: &'a Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> + 'a {
    bounds.windows(2).enumerate().filter_map(|(rank, own)| {
        let rows = own[0].max(tile.start)..own[1].min(tile.end);
        (!rows.is_empty()).then_some((rank, rows))
    })
}

/// Rows of one rank on their way.
struct Piece {
    owner: usize,
    values: Vec<f32>,
}

impl Piece {
    /// The next piece, taken from the own rows or received, while the one before goes on.
    fn next(
        ranks: &dyn Ranks,
        bounds: &[usize],
        own: &[Column<'_>],
        owner: usize,
        rows: &Range<usize>,
        behind: Option<Piece>,
    ) -> Result<Piece, RanksError> {
        let width: usize = own.iter().map(|column| column.width).sum();
        let mut values = Vec::with_capacity(rows.len() * width);
        let onward = behind.as_ref().and_then(|piece| piece.onward(ranks));
        if owner == ranks.rank() {
            own.iter().for_each(|column| values.extend_from_slice(cut(column, bounds[owner], rows)));
            ranks.pass(onward, None)?;
        } else {
            values.resize(rows.len() * width, 0.0);
            ranks.pass(onward, Some(&mut values))?;
        }
        Ok(Piece { owner, values })
    }

    /// Values that the next rank in the ring still has to see.
    fn onward(&self, ranks: &dyn Ranks) -> Option<&[f32]> {
        let next = (ranks.rank() + 1) % ranks.count();
        (next != self.owner).then_some(self.values.as_slice())
    }
}

/// Bytes that a rank sends in a [`ring_pass`] of rows of `width` values.
pub fn bytes_sent(bounds: &[usize], width: usize, rank: usize) -> u64 {
    let ranks = bounds.len() - 1;
    let next = (rank + 1) % ranks;
    // All rows but those of the rank that comes next, which has them.
    let rows = if ranks == 1 { 0 } else { bounds[ranks] - (bounds[next + 1] - bounds[next]) };
    (4 * rows * width) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::Alone;

    #[test]
    fn a_tile_is_cut_where_ranks_meet() {
        let found: Vec<_> = pieces(&[0, 3, 6, 12], &(2..8)).collect();
        assert_eq!(found, [(0, 2..3), (1, 3..6), (2, 6..8)]);
    }

    #[test]
    fn alone_all_tiles_are_own() {
        let values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let column = Column { values: &values, width: 2 };
        let mut seen = Vec::new();
        ring_pass(&Alone::default(), &[0, 5], 2, &[column], |tile| {
            seen.push((tile.first, tile.columns[0].clone()))
        })
        .unwrap();
        assert_eq!(seen, [(0, values[..4].to_vec()), (2, values[4..8].to_vec()), (4, values[8..].to_vec())]);
    }
}
