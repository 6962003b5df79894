//! Sums over parts along one binary tree, whoever holds which parts.
//!
//! The node of parts [a, b) is the sum of the nodes of its two halves, the first one the smaller where they differ. A rank
//! adds up the nodes that lie within its own parts; what remains is added up by one rank for each slice of the values.
//! So every value is the same sum, in the same order, on any number of ranks.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Parts, Ranks, RanksError};

/// A node: the parts that it sums.
pub type Node = (usize, usize);

fn middle((from, to): Node) -> usize {
    from + (to - from) / 2
}

/// The largest nodes within `own`, of the tree of all `parts`, in order.
pub fn nodes(parts: usize, own: &Range<usize>) -> Vec<Node> {
    let mut found = Vec::new();
    collect((0, parts), own, &mut found);
    found
}

fn collect(node: Node, own: &Range<usize>, found: &mut Vec<Node>) {
    let (from, to) = node;
    if own.start <= from && to <= own.end {
        found.push(node);
    } else if from < own.end && own.start < to {
        collect((from, middle(node)), own, found);
        collect((middle(node), to), own, found);
    }
}

/// The values of a node, of what `leaf` computes for each of its parts, called in their order. So many vectors are held at
/// a time as the node is deep.
///
/// # Errors
/// Those of `leaf`.
pub fn node_sum<E>(node: Node, leaf: &mut impl FnMut(usize) -> Result<Vec<f32>, E>) -> Result<Vec<f32>, E> {
    if node.1 - node.0 == 1 {
        return leaf(node.0);
    }
    let mut sum = node_sum((node.0, middle(node)), leaf)?;
    add(&mut sum, &node_sum((middle(node), node.1), leaf)?);
    Ok(sum)
}

fn add(to: &mut [f32], other: &[f32]) {
    to.iter_mut().zip(other).for_each(|(to, other)| *to += other);
}

/// The slice of `len` values that a rank adds up.
pub fn slice(len: usize, rank: usize, ranks: usize) -> Range<usize> {
    rank * len / ranks..(rank + 1) * len / ranks
}

/// The sum over all parts, on every rank. `own` are the values of this rank's [`nodes`], each as long.
///
/// # Errors
/// The exchange fails.
pub fn sum(ranks: &dyn Ranks, parts: &Parts, own: Vec<Vec<f32>>) -> Result<Vec<f32>, RanksError> {
    let len = own.first().map_or(0, Vec::len);
    let slices: Vec<Range<usize>> = (0..ranks.count()).map(|rank| slice(len, rank, ranks.count())).collect();
    let part = summed_slice(ranks, parts, own, &slices)?;
    spread(ranks, part, &slices)
}

/// The sum over all parts of the values of this rank's slice; `slices` are those of all ranks.
///
/// # Errors
/// The exchange fails.
pub fn summed_slice(
    ranks: &dyn Ranks,
    parts: &Parts,
    mut own: Vec<Vec<f32>>,
    slices: &[Range<usize>],
) -> Result<Vec<f32>, RanksError> {
    if ranks.count() == 1 && own.len() == 1 {
        return Ok(own.swap_remove(0));
    }
    let mine = slices[ranks.rank()].len();
    let of_ranks: Vec<Vec<Node>> =
        (0..ranks.count()).map(|rank| nodes(parts.count(), &parts.of_rank(rank))).collect();
    let sent: Vec<usize> = slices.iter().map(|slice| slice.len() * own.len()).collect();
    let received: Vec<usize> = of_ranks.iter().map(|nodes| nodes.len() * mine).collect();
    let mut send = Vec::with_capacity(sent.iter().sum());
    for slice in slices {
        own.iter().for_each(|values| send.extend_from_slice(&values[slice.clone()]));
    }
    drop(own);
    let mut receive = vec![0.0; received.iter().sum()];
    ranks.exchange(&send, &sent, &mut receive, &received)?;
    drop(send);
    if mine == 0 {
        return Ok(Vec::new());
    }
    let held: BTreeMap<Node, &[f32]> =
        of_ranks.into_iter().flatten().zip(receive.chunks_exact(mine)).collect();
    Ok(held_sum((0, parts.count()), &held))
}

/// The values of a node from those of the nodes below it that are held.
fn held_sum(node: Node, held: &BTreeMap<Node, &[f32]>) -> Vec<f32> {
    if let Some(values) = held.get(&node) {
        return values.to_vec();
    }
    let mut sum = held_sum((node.0, middle(node)), held);
    match held.get(&(middle(node), node.1)) {
        Some(values) => add(&mut sum, values),
        None => add(&mut sum, &held_sum((middle(node), node.1), held)),
    }
    sum
}

/// Every rank's slice to all: the whole.
///
/// # Errors
/// The exchange fails.
pub fn spread(ranks: &dyn Ranks, own: Vec<f32>, slices: &[Range<usize>]) -> Result<Vec<f32>, RanksError> {
    if ranks.count() == 1 {
        return Ok(own);
    }
    let sent = vec![own.len(); slices.len()];
    let received: Vec<usize> = slices.iter().map(Range::len).collect();
    let send = own.repeat(slices.len());
    let mut whole = vec![0.0; received.iter().sum()];
    ranks.exchange(&send, &sent, &mut whole, &received)?;
    Ok(whole)
}

/// Bytes that a rank sends in [`sum`].
pub fn bytes_sent(parts: &Parts, len: usize, rank: usize, ranks: usize) -> u64 {
    let own = nodes(parts.count(), &parts.of_rank(rank)).len();
    let mine = slice(len, rank, ranks).len();
    (4 * (own * (len - mine) + mine * (ranks - 1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_cover_a_ranks_parts_once() {
        assert_eq!(nodes(4, &(0..4)), [(0, 4)]);
        assert_eq!(nodes(4, &(1..4)), [(1, 2), (2, 4)]);
        for parts in 1..20 {
            for from in 0..parts {
                for to in from + 1..=parts {
                    let found = nodes(parts, &(from..to));
                    let covered: Vec<usize> = found.iter().flat_map(|&(a, b)| a..b).collect();
                    assert_eq!(covered, (from..to).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_sum_is_the_same_to_the_last_bit_however_its_parts_are_held() {
        let leaf = |part: usize| -> Vec<f32> {
            (0..50).map(|i| ((part * 50 + i) as f32).sin() * 1e3f32.powi(part as i32 % 3)).collect()
        };
        for parts in [1, 2, 3, 4, 6, 7, 12] {
            let mut count = 0;
            let whole = node_sum((0, parts), &mut |part| {
                assert_eq!(part, count);
                count += 1;
                Ok::<_, ()>(leaf(part))
            });
            let whole = whole.unwrap();
            for ranks in 1..=parts {
                let mut held = BTreeMap::new();
                for rank in 0..ranks {
                    let own = rank * parts / ranks..(rank + 1) * parts / ranks;
                    for node in nodes(parts, &own) {
                        held.insert(node, node_sum(node, &mut |part| Ok::<_, ()>(leaf(part))).unwrap());
                    }
                }
                let held: BTreeMap<Node, &[f32]> =
                    held.iter().map(|(&node, sum)| (node, sum.as_slice())).collect();
                assert_eq!(held_sum((0, parts), &held), whole, "{parts} parts on {ranks} ranks");
            }
        }
    }
}
