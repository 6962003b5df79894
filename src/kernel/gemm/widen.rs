//! Products of bf16 on lanes that have no dot product of pairs, or a slow one: the panels of a piece, and each
//! tile of rows, are widened to f32 once and then multiplied as f32. A panel is read by all rows of its piece,
//! so widening costs little beside the products it serves.
//!
//! Along the reduced dimension, widened operands hold the first of every pair, then the second of every pair.
//! A sum does not mind, as long as both operands agree.

use super::epilogue::Epilogue;
use super::tile::{tile, LeftTile, Sums, MAX_COLUMNS, ROWS};
use super::{Part, Rows};
use crate::kernel::element::Element;
use crate::kernel::lanes::Lanes;

/// True if products of `E` are computed here.
#[inline(always)]
pub fn needed<L: Lanes, E: Element>(_: L) -> bool {
    E::GROUP == 2 && !L::DOT
}

/// Words of scratch memory that a part needs: its panels, and a tile of rows.
pub fn words(part: &Part, width: usize) -> usize {
    2 * part.groups * (part.panels.len() * width + ROWS)
}

/// As [`super::compute`], for bf16.
///
/// # Safety
/// As [`super::compute`].
#[inline(always)]
pub unsafe fn compute<L: Lanes, F: Epilogue>(
    l: L,
    scratch: &mut [f32],
    epilogue: &F,
    left: Rows,
    right: &[u32],
    part: Part,
    width: usize,
) {
    let (panel, groups) = (part.groups * width, part.groups);
    let (panels, own) = scratch.split_at_mut(2 * panel * part.panels.len());
    for (p, wide) in part.panels.clone().zip(panels.chunks_exact_mut(2 * panel)) {
        widen(l, wide, right[p * panel..].as_ptr().cast(), panel);
    }
    let mut sums = Sums([0.0; ROWS * MAX_COLUMNS]);
    for row in part.rows.clone().step_by(ROWS) {
        let rows = widened(l, own, left, row, groups);
        let height = ROWS.min(part.rows.end - row);
        for (p, wide) in part.panels.clone().zip(panels.chunks_exact(2 * panel)) {
            let columns = width.min(part.n - p * width);
            (0..height).for_each(|i| epilogue.prefetch(row + i, p * width, columns));
            tile::<L, f32>(l, &mut sums, rows, wide.as_ptr().cast(), 2 * groups, width / L::N);
            for i in 0..height {
                epilogue.take(l, row + i, p * width, &sums.0[i * width..][..columns]);
            }
        }
    }
}

/// The tile of rows at `row` in `own`: a packed tile keeps its layout, other rows follow each other.
///
/// # Safety
/// `left` must have `groups` groups.
#[inline(always)]
unsafe fn widened<L: Lanes>(l: L, own: &mut [f32], left: Rows, row: usize, groups: usize) -> LeftTile {
    let narrow = left.tile(row);
    let (row, step) = if left.tile.is_some() {
        widen(l, &mut own[..2 * groups * ROWS], narrow.rows[0], groups * ROWS);
        (4, 4 * ROWS)
    } else {
        for (own, narrow) in own.chunks_exact_mut(2 * groups).zip(narrow.rows) {
            widen(l, own, narrow, groups);
        }
        (8 * groups, 4)
    };
    // Only now: writing through `own` ends what a pointer taken before may read.
    let base: *const u8 = own.as_ptr().cast();
    LeftTile { rows: std::array::from_fn(|i| base.wrapping_add(row * i)), step }
}

/// The first of each of `pairs` pairs, then the second of each.
///
/// # Safety
/// `from` must be readable for `pairs` pairs.
#[inline(always)]
unsafe fn widen<L: Lanes>(l: L, to: &mut [f32], from: *const u8, pairs: usize) {
    let (first, second) = to.split_at_mut(pairs);
    let whole = pairs - pairs % L::N;
    for i in (0..whole).step_by(L::N) {
        let (a, b) = l.split_pairs(l.load_pairs(from.add(4 * i)));
        l.store(a, &mut first[i..]);
        l.store(b, &mut second[i..]);
    }
    for i in whole..pairs {
        let pair = from.add(4 * i).cast::<u32>().read_unaligned();
        first[i] = f32::from_bits(pair << 16);
        second[i] = f32::from_bits(pair & 0xffff_0000);
    }
}
