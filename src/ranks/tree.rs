//! The binary tree along which gradients of the parts of a batch are summed, whoever holds which parts.
//!
//! The node of parts [a, b) is the sum of the nodes of its two halves, the first one the smaller where they differ.

use std::collections::BTreeMap;
use std::ops::Range;

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

/// The buffer of a node, of what `leaf` computes for each of its parts, called in their order. So many of them are held at
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

/// The values of a node from those of the nodes below it that are held.
pub(super) fn node_total(node: Node, held: &BTreeMap<Node, &[f32]>) -> Vec<f32> {
    if let Some(values) = held.get(&node) {
        return values.to_vec();
    }
    let mut sum = node_total((node.0, middle(node)), held);
    match held.get(&(middle(node), node.1)) {
        Some(values) => add(&mut sum, values),
        None => add(&mut sum, &node_total((middle(node), node.1), held)),
    }
    sum
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

    /// A buffer of so many values for each part.
    fn leaf_of(length: usize) -> impl Fn(usize) -> Vec<f32> {
        move |part| {
            let value = |i: usize| ((part * 50 + i) as f32).sin() * 1e3f32.powi(part as i32 % 3);
            (0..length).map(value).collect()
        }
    }

    #[test]
    fn a_sum_is_the_same_to_the_last_bit_however_its_parts_are_held() {
        let leaf = leaf_of(50);
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
                assert_eq!(node_total((0, parts), &held), whole, "{parts} parts on {ranks} ranks");
            }
        }
    }
}
