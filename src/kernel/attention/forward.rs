use super::Attention;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Epilogue, Grid, Write};
use crate::kernel::gemm::{small, Left};
use crate::kernel::isa::dispatch;
use crate::kernel::lanes::Lanes;
use crate::kernel::math::exp;
use crate::kernel::Cpu;

/// out, lse = attention(qkv).
pub fn forward<E: Element>(cpu: &Cpu, out: &mut [E], lse: &mut [f32], qkv: &[E], of: Attention) {
    let width = of.width();
    assert_eq!(qkv.len(), of.batch * of.tokens * 3 * width, "queries, keys and values");
    assert_eq!(out.len(), of.batch * of.tokens * width, "output");
    assert_eq!(lse.len(), of.saved(), "saved statistics");
    let out = Grid::new(out, width);
    cpu.threads.each(lse.chunks_mut(of.tokens).enumerate(), |slot, (piece, lse)| {
        let scratch = &mut *cpu.own(slot);
        dispatch!(cpu.isa, l => head(l, scratch.room(words::<E>(of)), &out, lse, qkv, piece, of))
    });
}

/// S; P, as much as S in f32 would take; packed queries; packed keys, then values.
fn words<E: Element>(of: Attention) -> usize {
    2 * of.tokens * of.columns() + 2 * of.operand_words(E::GROUP)
}

/// One head of one sequence.
#[inline(always)]
fn head<L: Lanes, E: Element>(
    l: L,
    scratch: &mut [u32],
    out: &Grid<E>,
    lse: &mut [f32],
    qkv: &[E],
    piece: usize,
    of: Attention,
) {
    let (t, columns, stride) = (of.tokens, of.columns(), 3 * of.width());
    let (b, h) = (piece / of.heads, piece % of.heads);
    let (s, scratch) = scratch.split_at_mut(t * columns);
    let (p, scratch) = scratch.split_at_mut(t * columns);
    let (left, right) = scratch.split_at_mut(of.operand_words(E::GROUP));
    let (s, p): (&mut [f32], &mut [E]) = (bytemuck::cast_slice_mut(s), bytemuck::cast_slice_mut(p));

    let part = |i: usize| &qkv[b * t * stride + i * of.width() + h * of.head..];
    let q = small::left(l, left, Left::Rows { data: part(0), stride }, (t, of.head));
    let k = small::right_from_columns(l, right, part(1), stride, (of.head, t));
    // SAFETY: q is of [t, head]; S belongs to this thread.
    unsafe { small::multiply::<L, E>(l, &Write { to: Grid::new(s, columns), bias: None }, q, k, t) };

    for (i, lse) in lse.iter_mut().enumerate() {
        let row = i * columns..(i + 1) * columns;
        let (largest, sum) = exponentials(l, &mut p[row.clone()], &s[row.clone()][..of.seen(i)], of.scale());
        *lse = largest * of.scale() + sum.ln();
        // The row of S is done with; what is left of it is the factor of its row of the output.
        s[row.start] = 1.0 / sum;
    }
    let v = small::right_from_rows(l, right, part(2), stride, (t, of.head));
    let p = small::left(l, left, Left::Rows { data: p, stride: columns }, (t, t.next_multiple_of(E::GROUP)));
    let out = Rows { to: out, row: b * t, column: h * of.head, factors: s, stride: columns };
    // SAFETY: P is of [t, t] with a zero beyond; heads and sequences have rows and columns of their own.
    unsafe { small::multiply::<L, E>(l, &out, p, v, t) };
}

/// p = exp(scale * (s - its largest)), zero beyond the end of `s`; returns the largest of s and the sum of p.
#[inline(always)]
fn exponentials<L: Lanes, E: Element>(l: L, p: &mut [E], s: &[f32], scale: f32) -> (f32, f32) {
    let mut largest = l.splat(f32::NEG_INFINITY);
    for j in (0..s.len()).step_by(L::N) {
        largest = l.max(largest, l.load_or(&s[j..], f32::NEG_INFINITY));
    }
    let largest = l.largest(largest);
    let (at, scale) = (l.splat(largest), l.splat(scale));
    let mut sum = l.zero();
    for j in (0..p.len()).step_by(L::N) {
        let x = l.load_or(&s[j.min(s.len())..], f32::NEG_INFINITY);
        let e = exp(l, l.mul(l.sub(x, at), scale));
        sum = l.add(sum, e);
        E::store(l, e, &mut p[j..]);
    }
    (largest, l.sum(sum))
}

/// Writes rows times a factor of each, the first of `stride` values.
struct Rows<'a, 'b, E> {
    to: &'a Grid<'b, E>,
    row: usize,
    column: usize,
    factors: &'a [f32],
    stride: usize,
}

impl<E: Element> Epilogue for Rows<'_, '_, E> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(self.row + row, self.column + column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let to = self.to.segment(self.row + row, self.column + column, sums.len());
        let factor = l.splat(self.factors[row * self.stride]);
        for j in (0..sums.len()).step_by(L::N) {
            E::store(l, l.mul(l.load(&sums[j..]), factor), &mut to[j..]);
        }
    }
}
