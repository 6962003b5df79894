//! Sums over ranks: [`all_reduce`] and [`reduce_scatter`], in which every value is the same sum, in the same order, on any
//! number of ranks. MPI's own would add in an order that depends on that number.
//!
//! Each rank gives the sums of the [nodes] of the tree that lie within its own parts; the rest of the tree is summed by one
//! rank for each slice of the values.
//!
//! Values lie in ranges of one buffer for each node, and stay where they are: ranks send them in pieces, and sums are
//! written where the first of a rank's own nodes has its values. Beside these, a rank holds a few pieces.

use std::collections::BTreeMap;
use std::ops::Range;

use super::row::{piece, rounds, Row};
use super::tree::{node_total, nodes, Node};
use super::{cut, cut_mut, Parts, Ranks, RanksError};

/// The slice of `len` values that a rank adds up.
pub fn slice(len: usize, rank: usize, ranks: usize) -> Range<usize> {
    rank * len / ranks..(rank + 1) * len / ranks
}

/// Sums the values in these ranges over all parts, and gives the sums to every rank. `own` are the buffers of this rank's
/// [`nodes`].
///
/// # Errors
/// The exchange fails.
pub fn all_reduce(
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<Vec<f32>>,
    ranges: Vec<Range<usize>>,
) -> Result<Vec<f32>, RanksError> {
    all_reduce_in(piece(ranks.count()), ranks, parts, own, Row::of(ranges))
}

fn all_reduce_in(
    most: usize,
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<Vec<f32>>,
    row: Row,
) -> Result<Vec<f32>, RanksError> {
    let slices: Vec<Range<usize>> =
        (0..ranks.count()).map(|rank| slice(row.len(), rank, ranks.count())).collect();
    let mut sums = reduce_slice(most, ranks, parts, own, &row, &slices)?;
    all_gather(most, ranks, &mut sums, &row, &slices)?;
    Ok(sums)
}

/// Sums the values in these ranges over all parts, and gives each range to its owner: the ranges of this rank side by side,
/// in their order. `owners` has a rank for each range. The memory of the others is freed.
///
/// # Errors
/// The exchange fails.
pub fn reduce_scatter(
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<Vec<f32>>,
    ranges: Vec<Range<usize>>,
    owners: &[usize],
) -> Result<Vec<f32>, RanksError> {
    reduce_scatter_in(piece(ranks.count()), ranks, parts, own, ranges, owners)
}

fn reduce_scatter_in(
    most: usize,
    ranks: &dyn Ranks,
    parts: &Parts,
    own: Vec<Vec<f32>>,
    ranges: Vec<Range<usize>>,
    owners: &[usize],
) -> Result<Vec<f32>, RanksError> {
    // Side by side, the ranges of a rank are a slice.
    let mut order: Vec<usize> = (0..owners.len()).collect();
    order.sort_by_key(|&range| owners[range]);
    let mut end = 0;
    let slice = |rank: usize| {
        let start = end;
        end += order
            .iter()
            .filter(|&&range| owners[range] == rank)
            .map(|&range| ranges[range].len())
            .sum::<usize>();
        start..end
    };
    let slices: Vec<Range<usize>> = (0..ranks.count()).map(slice).collect();
    let row = Row::of(order.iter().map(|&range| ranges[range].clone()).collect());
    let mut sums = reduce_slice(most, ranks, parts, own, &row, &slices)?;
    let (rank, mut end) = (ranks.rank(), 0);
    for (range, _) in ranges.into_iter().zip(owners).filter(|(_, &owner)| owner == rank) {
        sums.copy_within(range.clone(), end);
        end += range.len();
    }
    sums.truncate(end);
    sums.shrink_to_fit();
    Ok(sums)
}

/// Sums this rank's slice, in pieces of at most `most` values. Values beyond it stay as they were.
fn reduce_slice(
    most: usize,
    ranks: &dyn Ranks,
    parts: &Parts,
    mut own: Vec<Vec<f32>>,
    row: &Row,
    slices: &[Range<usize>],
) -> Result<Vec<f32>, RanksError> {
    if own.is_empty() || ranks.count() == 1 && own.len() == 1 {
        return Ok(own.pop().unwrap_or_default());
    }
    let rank = ranks.rank();
    let of_ranks: Vec<Vec<Node>> =
        (0..ranks.count()).map(|rank| nodes(parts.count(), &parts.of_rank(rank))).collect();
    let (mut send, mut receive) = (Vec::new(), Vec::new());
    for pieces in rounds(slices, most) {
        let mine = pieces[rank].len();
        send.clear();
        // As many as in the first round, and no more: growing by doubling would take twice the memory.
        send.reserve_exact(pieces.iter().map(Range::len).sum::<usize>() * own.len());
        for piece in &pieces {
            own.iter().for_each(|buffer| row.read(buffer, piece, &mut send));
        }
        let sent: Vec<usize> = pieces.iter().map(|piece| piece.len() * own.len()).collect();
        let received: Vec<usize> = of_ranks.iter().map(|nodes| nodes.len() * mine).collect();
        receive.resize(received.iter().sum(), 0.0);
        ranks.exchange(&cut(&send, &sent), &mut cut_mut(&mut receive, &received))?;
        if mine > 0 {
            let nodes = of_ranks.iter().flatten().copied();
            let held: BTreeMap<Node, &[f32]> = nodes.zip(receive.chunks_exact(mine)).collect();
            row.write(&mut own[0], &pieces[rank], &node_total((0, parts.count()), &held));
        }
    }
    Ok(own.swap_remove(0))
}

/// Gives every rank's slice to all, in pieces.
fn all_gather(
    most: usize,
    ranks: &dyn Ranks,
    sums: &mut [f32],
    row: &Row,
    slices: &[Range<usize>],
) -> Result<(), RanksError> {
    if ranks.count() == 1 {
        return Ok(());
    }
    let rank = ranks.rank();
    let (mut send, mut receive) = (Vec::new(), Vec::new());
    for mut pieces in rounds(slices, most) {
        send.clear();
        row.read(sums, &pieces[rank], &mut send);
        // Its own lies there already.
        pieces[rank] = 0..0;
        let to: Vec<&[f32]> =
            (0..ranks.count()).map(|other| if other == rank { &[] } else { send.as_slice() }).collect();
        let received: Vec<usize> = pieces.iter().map(Range::len).collect();
        receive.resize(received.iter().sum(), 0.0);
        ranks.exchange(&to, &mut cut_mut(&mut receive, &received))?;
        for (piece, values) in pieces.iter().zip(cut(&receive, &received)) {
            row.write(sums, piece, values);
        }
    }
    Ok(())
}

/// Bytes that a rank sends in [`all_reduce`].
pub fn bytes_sent(parts: &Parts, len: usize, rank: usize, ranks: usize) -> u64 {
    let own = nodes(parts.count(), &parts.of_rank(rank)).len();
    let mine = slice(len, rank, ranks).len();
    (4 * (own * (len - mine) + mine * (ranks - 1))) as u64
}

/// Messages that a rank sends one after the other while `len` values are added up, or handed back.
pub fn messages(len: usize, ranks: usize) -> usize {
    (len / ranks).div_ceil(piece(ranks)) * (ranks - 1)
}

/// Bytes that a rank holds for the pieces of `len` values on their way, where each rank has one [node](nodes): what it sends
/// to all, what it receives from all, and sums, as many as the tree is deep.
pub fn scratch_bytes(len: usize, ranks: usize) -> usize {
    let depth = ranks.next_power_of_two().ilog2() as usize;
    4 * (2 * ranks + depth) * piece(ranks).min(len.div_ceil(ranks))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::ranks::tree::node_sum;
    use crate::ranks::{Kind, RanksConfig, Together};

    /// A buffer of so many values for each part.
    fn leaf_of(length: usize) -> impl Fn(usize) -> Vec<f32> {
        move |part| {
            let value = |i: usize| ((part * 50 + i) as f32).sin() * 1e3f32.powi(part as i32 % 3);
            (0..length).map(value).collect()
        }
    }

    /// Results of `of` on each of several ranks, each on a thread.
    fn on_each<T: Send>(count: usize, of: impl Fn(&Together) -> T + Sync) -> Vec<T> {
        let of = &of;
        std::thread::scope(|scope| {
            let ranks = Together::of(count).into_iter();
            let threads: Vec<_> = ranks.map(|ranks| scope.spawn(move || of(&ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn sums_in_pieces_of_any_size_are_the_same_and_take_the_bytes_of_the_formula() {
        // Side by side with gaps between them.
        let (parts_of, ranges) = (6, [0..4, 6..7, 10..19, 20..40, 50..53]);
        let leaf = leaf_of(55);
        let config = RanksConfig { parts: NonZeroUsize::new(parts_of), ..Default::default() };
        let whole = node_sum((0, parts_of), &mut |part| Ok::<_, ()>(leaf(part))).unwrap();
        for count in 1..=5 {
            let owners: Vec<usize> = (0..ranges.len()).map(|range| (7 - range) % 3 % count).collect();
            for most in [1, 3, 8, 1000] {
                let (whole, leaf, owners, ranges) = (&whole, &leaf, &owners, &ranges.to_vec());
                on_each(count, |ranks| {
                    let parts = Parts::of(&config, parts_of, 1, ranks).unwrap();
                    let own = || -> Vec<Vec<f32>> {
                        let nodes = nodes(parts_of, &parts.own()).into_iter();
                        let sum = |node| node_sum(node, &mut |part| Ok::<_, ()>(leaf(part))).unwrap();
                        nodes.map(sum).collect()
                    };
                    let sums = all_reduce_in(most, ranks, &parts, own(), Row::of(ranges.clone())).unwrap();
                    for range in ranges {
                        assert_eq!(
                            sums[range.clone()],
                            whole[range.clone()],
                            "{count} ranks, pieces of {most}"
                        );
                    }
                    let sent = ranks.traffic().sent(Kind::Exchange);
                    assert_eq!(sent, bytes_sent(&parts, 37, ranks.rank(), count));
                    let sums = reduce_scatter_in(most, ranks, &parts, own(), ranges.clone(), owners).unwrap();
                    let rank = ranks.rank();
                    let own = ranges.iter().zip(owners).filter(|(_, &owner)| owner == rank);
                    let want: Vec<f32> = own.flat_map(|(range, _)| &whole[range.clone()]).copied().collect();
                    assert_eq!(sums, want, "{count} ranks, pieces of {most}");
                });
            }
        }
    }
}
