//! The innermost product: a few rows times one panel, accumulated in registers.

use crate::kernel::element::Element;
use crate::kernel::lanes::Lanes;

/// Rows of a tile.
pub const ROWS: usize = 6;
/// Columns of the widest tile: four vectors of 16.
pub const MAX_COLUMNS: usize = 64;

/// Sums of one tile, row after row, `vectors * N` columns each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Sums(pub [f32; ROWS * MAX_COLUMNS]);

/// Addresses of the rows of a left operand: byte `rows[i] + g * step` is the g-th group of row i.
#[derive(Clone, Copy)]
pub struct LeftTile {
    pub rows: [*const u8; ROWS],
    pub step: usize,
}

/// `sums[i][j]` = sum over g < groups of `left[i][g] * panel[g][j]`, for a panel of `vectors * N` columns,
/// `vectors <= TILE`.
///
/// # Safety
/// Every row must be readable for `groups` groups, the panel for `groups * vectors * N` groups.
#[inline(always)]
pub unsafe fn tile<L: Lanes, E: Element>(
    l: L,
    sums: &mut Sums,
    left: LeftTile,
    panel: *const u8,
    groups: usize,
    vectors: usize,
) {
    match vectors {
        1 => accumulate::<L, E, 1>(l, sums, left, panel, groups),
        2 => accumulate::<L, E, 2>(l, sums, left, panel, groups),
        3 if L::TILE > 2 => accumulate::<L, E, 3>(l, sums, left, panel, groups),
        4 if L::TILE > 2 => accumulate::<L, E, 4>(l, sums, left, panel, groups),
        _ => unreachable!("a panel has at most TILE vectors"),
    }
}

/// # Safety
/// As [`tile`], with `T` vectors in a row.
#[inline(always)]
unsafe fn accumulate<L: Lanes, E: Element, const T: usize>(
    l: L,
    sums: &mut Sums,
    left: LeftTile,
    panel: *const u8,
    groups: usize,
) {
    let mut acc = [[l.zero(); T]; ROWS];
    let mut panel = panel;
    let mut at = 0;
    for _ in 0..groups {
        let mut b = [E::load_group(l, panel); T];
        for (j, b) in b.iter_mut().enumerate().skip(1) {
            *b = E::load_group(l, panel.add(j * L::N * 4));
        }
        for (acc, row) in acc.iter_mut().zip(left.rows) {
            let a = E::splat_group(l, row.add(at));
            for (acc, &b) in acc.iter_mut().zip(&b) {
                *acc = E::dot(l, *acc, a, b);
            }
        }
        panel = panel.add(T * L::N * 4);
        at += left.step;
    }
    for (i, row) in acc.iter().enumerate() {
        for (j, &v) in row.iter().enumerate() {
            l.store_ptr(v, sums.0.as_mut_ptr().add((i * T + j) * L::N));
        }
    }
}
