//! Tokens on their way into a transformer, and their gradients on the way back.
//!
//! A sequence has `tokens` rows of the residual stream [batch * tokens, width]; the first `prefix` of them
//! (a class token, or none) do not come from patches. [`PatchTokens`] is the epilogue of the patch embedding;
//! [`gather`] makes rows from tables; [`scatter_add`] is the gradient of a table.

pub mod cuda;

use super::element::{convert, Element};
use super::gemm::epilogue::{Epilogue, Grid};
use super::isa::dispatch;
use super::lanes::Lanes;
use super::Cpu;

/// Row b * kept + k of the patch embedding becomes token `prefix + k` of sequence b, with bias and the
/// position of its patch: x = sums + bias + positions[ids[b * kept + k]].
pub struct PatchTokens<'a> {
    /// [batch * (prefix + kept), width].
    pub to: Grid<'a, f32>,
    pub bias: Option<&'a [f32]>,
    /// [patches of the image, width].
    pub positions: &'a [f32],
    /// [batch * kept].
    pub ids: &'a [u32],
    pub kept: usize,
    pub prefix: usize,
    pub width: usize,
}

impl PatchTokens<'_> {
    #[inline(always)]
    fn token(&self, row: usize) -> usize {
        row / self.kept * (self.prefix + self.kept) + self.prefix + row % self.kept
    }
}

impl Epilogue for PatchTokens<'_> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(self.token(row), column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let to = self.to.segment(self.token(row), column, sums.len());
        let position = &self.positions[self.ids[row] as usize * self.width + column..][..sums.len()];
        for j in (0..sums.len()).step_by(L::N) {
            let mut x = l.add(l.load(&sums[j..]), l.load(&position[j..]));
            if let Some(bias) = self.bias {
                x = l.add(x, l.load(&bias[column + j..column + sums.len()]));
            }
            l.store(x, &mut to[j..]);
        }
    }
}

/// Writes the class token, `row` = its value plus its position where it has one, as the first row of every
/// sequence of `tokens` rows.
pub fn class_token(x: &mut [f32], row: &[f32], tokens: usize) {
    for sequence in x.chunks_mut(tokens * row.len()) {
        sequence[..row.len()].copy_from_slice(row);
    }
}

/// Backward of [`PatchTokens`]: out [batch * kept, width] = the rows of dx [batch * (prefix + kept), width]
/// that came from patches, rounded.
pub fn patch_rows<E: Element>(
    cpu: &Cpu,
    out: &mut [E],
    dx: &[f32],
    kept: usize,
    prefix: usize,
    width: usize,
) {
    let sequences = out.chunks_mut(kept * width).zip(dx.chunks((prefix + kept) * width));
    cpu.threads
        .each(sequences, |_, (out, dx)| dispatch!(cpu.isa, l => convert(l, out, &dx[prefix * width..])));
}

/// `x[row]` = `table[ids[row]] + positions[places[row]]`, x being [rows, width].
pub fn gather<E: Element>(
    cpu: &Cpu,
    x: &mut [f32],
    table: &[f32],
    ids: &[u32],
    positions: &[f32],
    places: &[u32],
    width: usize,
) {
    assert!(x.len() == ids.len() * width && places.len() == ids.len(), "one token and one position a row");
    const BLOCK: usize = 32;
    let pieces = x.chunks_mut(BLOCK * width).zip(ids.chunks(BLOCK).zip(places.chunks(BLOCK)));
    cpu.threads.each(pieces, |_, (x, (ids, places))| {
        for (x, (&id, &place)) in x.chunks_mut(width).zip(ids.iter().zip(places)) {
            let table = &table[id as usize * width..][..width];
            let position = &positions[place as usize * width..][..width];
            for ((x, a), b) in x.iter_mut().zip(table).zip(position) {
                *x = E::from_f32(*a).to_f32() + b;
            }
        }
    });
}

/// `table[ids[r]] += rows[source(r)]` for every r in order. Threads share columns, not rows, so a row of the
/// table that is named twice gets its sum in one order.
pub fn scatter_add(
    cpu: &Cpu,
    table: &mut [f32],
    ids: &[u32],
    rows: &[f32],
    source: impl Fn(usize) -> usize + Sync,
    width: usize,
) {
    const BLOCK: usize = 64;
    let table = Grid::new(table, width);
    cpu.threads.each(0..width.div_ceil(BLOCK), |_, piece| {
        let at = piece * BLOCK;
        let some = BLOCK.min(width - at);
        for (r, &id) in ids.iter().enumerate() {
            // SAFETY: every piece has columns of its own.
            let to = unsafe { table.segment(id as usize, at, some) };
            for (to, x) in to.iter_mut().zip(&rows[source(r) * width + at..]) {
                *to += x;
            }
        }
    });
}
