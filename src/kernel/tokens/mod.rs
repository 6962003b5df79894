//! Tokens on their way into a transformer, and their gradients.
//!
//! A sequence has `tokens` rows of the residual stream [batch * tokens, width]; the first `prefix` of them
//! (a class token, or none) do not come from patches. [`PatchTokens`] is the epilogue of the patch embedding;
//! [`gather`] makes rows from tables; [`scatter_add`] is the gradient of a table.

pub mod cuda;

use super::element::{convert, Element};
use super::gemm::epilogue::{Epilogue, Grid};
use super::isa::dispatch;
use super::lanes::Lanes;
use super::view::View;
use super::Cpu;

/// Sizes of sequences whose first `prefix` tokens, 0 or 1, do not come from patches.
#[derive(Debug, Clone, Copy)]
pub struct Sequences {
    pub batch: usize,
    pub kept: usize,
    pub prefix: usize,
    pub width: usize,
}

impl Sequences {
    /// Tokens of a sequence.
    pub fn tokens(self) -> usize {
        self.prefix + self.kept
    }

    /// Tokens of all.
    pub fn rows(self) -> usize {
        self.batch * self.tokens()
    }

    /// The row of the residual stream of kept patch or token `r` of [batch * kept].
    pub fn row(self, r: usize) -> usize {
        r / self.kept * self.tokens() + self.prefix + r % self.kept
    }
}

/// Vectors that are added to a row of the patch embedding, and the class token.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// `[width]`.
    pub bias: Option<View<'a, f32>>,
    /// [patches of the image, width].
    pub positions: View<'a, f32>,
    /// `[width]`; read where there is a prefix.
    pub class_token: View<'a, f32>,
    /// `[width]`, where it has one.
    pub class_position: Option<View<'a, f32>>,
}

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

/// Writes the class token, with its position where it has one, as the first row of every sequence of `tokens` rows.
pub fn class_token(x: &mut [f32], class: &[f32], position: Option<&[f32]>, tokens: usize) {
    let mut row = class.to_vec();
    add(&mut row, position.unwrap_or_default());
    for sequence in x.chunks_mut(tokens * row.len()) {
        sequence[..row.len()].copy_from_slice(&row);
    }
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// to += share * from.
fn add_share(to: &mut [f32], share: f32, from: &[f32]) {
    if share != 0.0 {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += share * from);
    }
}

/// table [rows, width] = matrix [rows, from] learned [from, width]; most of the matrix is zero.
pub fn resample(table: &mut [f32], matrix: &[f32], learned: &[f32], width: usize) {
    table.fill(0.0);
    for (to, shares) in table.chunks_mut(width).zip(matrix.chunks(learned.len() / width)) {
        for (row, &share) in learned.chunks(width).zip(shares) {
            add_share(to, share, row);
        }
    }
}

/// Adds to the gradients of the class token `[width]` and of learned positions [prefix + own grid^2, width] what
/// dx [batch * (prefix + kept), width] contributes. With the positions comes the matrix of [`resample`] that made those of this grid of
/// them, where it is another one.
pub fn gradients(
    cpu: &Cpu,
    class_token: Option<&mut [f32]>,
    positions: Option<(&mut [f32], Option<&[f32]>)>,
    ids: &[u32],
    dx: &[f32],
    of: Sequences,
) {
    let width = of.width;
    let mut dclass = vec![0.0; of.prefix * width];
    dx.chunks(of.tokens() * width).for_each(|sequence| add(&mut dclass, sequence));
    class_token.into_iter().for_each(|class_token| add(class_token, &dclass));
    let Some((positions, matrix)) = positions else { return };
    let own = positions.len() / width;
    let mut dtable = vec![0.0; matrix.map_or(own, |matrix| matrix.len() / own) * width];
    dtable[..dclass.len()].copy_from_slice(&dclass);
    scatter_add(cpu, &mut dtable[dclass.len()..], ids, dx, |r| of.row(r), width);
    let Some(matrix) = matrix else { return add(positions, &dtable) };
    for (from, shares) in dtable.chunks(width).zip(matrix.chunks(own)) {
        positions.chunks_mut(width).zip(shares).for_each(|(to, &share)| add_share(to, share, from));
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
