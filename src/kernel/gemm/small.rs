//! Products that one thread computes by itself, in its own cache. The last panel is only as wide as it
//! must be.

use super::epilogue::Epilogue;
use super::pack::{self, BLOCK};
use super::tile::ROWS;
use super::{compute, Left, Part, Rows};
use crate::kernel::element::Element;
use crate::kernel::lanes::Lanes;

/// Words that a right operand [k, n] takes when packed.
pub const fn right_words(k: usize, n: usize, group: usize) -> usize {
    k.div_ceil(group) * n.next_multiple_of(16)
}

/// Words that a left operand [m, k] takes when packed.
pub const fn left_words(m: usize, k: usize, group: usize) -> usize {
    k.div_ceil(group) * m.next_multiple_of(ROWS)
}

/// A left operand, as it lies or packed.
#[derive(Clone, Copy)]
pub struct Operand(Rows);

/// A packed right operand [k, n].
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    words: &'a [u32],
    k: usize,
    n: usize,
}

/// Packs a right operand [k, n], row-major with `stride` elements a row.
#[inline(always)]
pub fn right_from_rows<'a, L: Lanes, E: Element>(
    l: L,
    words: &'a mut [u32],
    data: &[E],
    stride: usize,
    (k, n): (usize, usize),
) -> Panels<'a> {
    for (at, width, panel) in panels::<L, E>(l, words, k, n) {
        pack::panel_from_rows(panel, &data[at..], stride, k, width.min(n - at), width);
    }
    Panels { words, k, n }
}

/// Packs a right operand [k, n] that is stored transposed, [n, k] with `stride` elements a row.
#[inline(always)]
pub fn right_from_columns<'a, L: Lanes, E: Element>(
    l: L,
    words: &'a mut [u32],
    data: &[E],
    stride: usize,
    (k, n): (usize, usize),
) -> Panels<'a> {
    for (at, width, panel) in panels::<L, E>(l, words, k, n) {
        pack::panel_from_columns(panel, &data[at * stride..], stride, k, width.min(n - at), width);
    }
    Panels { words, k, n }
}

/// (first column, width, words) of every panel of a right operand [k, n].
#[inline(always)]
fn panels<L: Lanes, E: Element>(
    _: L,
    words: &mut [u32],
    k: usize,
    n: usize,
) -> impl Iterator<Item = (usize, usize, &mut [u32])> {
    let groups = k.div_ceil(E::GROUP);
    let widest = L::N * L::TILE;
    words[..groups * n.next_multiple_of(L::N)].chunks_mut(groups * widest).enumerate().map(
        move |(p, panel)| {
            let width = panel.len() / groups;
            (p * widest, width, panel)
        },
    )
}

/// A left operand [m, k]; packed into `words` if it must be.
#[inline(always)]
pub fn left<L: Lanes, E: Element>(l: L, words: &mut [u32], from: Left<E>, (m, k): (usize, usize)) -> Operand {
    let groups = k.div_ceil(E::GROUP);
    match from {
        Left::Rows { data, stride } if k % E::GROUP == 0 => Operand(Rows::direct(data, stride, m, k)),
        from => {
            let words = &mut words[..left_words(m, k, E::GROUP)];
            for (block, tiles) in words.chunks_mut(BLOCK * groups).enumerate() {
                pack::tiles(l, tiles, from, block * BLOCK, m, 0..k);
            }
            Operand(Rows::packed(words, groups))
        }
    }
}

/// epilogue(left x right) for the first `m` rows of `left`.
///
/// # Safety
/// `left` must be of [m, k], still borrowed, and not be overwritten by the epilogue; no other thread may hand the same rows and columns to
/// the epilogue.
#[inline(always)]
pub unsafe fn multiply<L: Lanes, E: Element>(
    l: L,
    epilogue: &impl Epilogue,
    left: Operand,
    right: Panels,
    m: usize,
) {
    let groups = right.k.div_ceil(E::GROUP);
    let widest = L::N * L::TILE;
    let whole = right.n / widest;
    let rest = (right.n - whole * widest).next_multiple_of(L::N);
    if whole > 0 {
        let part = Part { rows: 0..m, panels: 0..whole, n: right.n, groups };
        compute::<L, E, _>(l, epilogue, left.0, right.words, part, widest);
    }
    if rest > 0 {
        let part = Part { rows: 0..m, panels: 0..1, n: right.n - whole * widest, groups };
        let words = &right.words[whole * widest * groups..];
        compute::<L, E, _>(l, &Shifted { by: whole * widest, to: epilogue }, left.0, words, part, rest);
    }
}

/// An epilogue whose columns begin further right.
struct Shifted<'a, F> {
    by: usize,
    to: &'a F,
}

impl<F: Epilogue> Epilogue for Shifted<'_, F> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(row, self.by + column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        self.to.take(l, row, self.by + column, sums);
    }
}
