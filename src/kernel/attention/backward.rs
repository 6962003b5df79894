use super::Attention;
use crate::kernel::element::Element;
use crate::kernel::gemm::epilogue::{Epilogue, Grid, Write};
use crate::kernel::gemm::{small, Left};
use crate::kernel::isa::dispatch;
use crate::kernel::lanes::Lanes;
use crate::kernel::math::exp;
use crate::kernel::Cpu;

/// dqkv = gradient of [`forward`](super::forward) for the gradient `dout` of its output; out = that output once
/// more, which is less work than memory to keep it.
pub fn backward<E: Element>(
    cpu: &Cpu,
    dqkv: &mut [E],
    out: &mut [E],
    dout: &[E],
    qkv: &[E],
    lse: &[f32],
    of: Attention,
) {
    let width = of.width();
    assert_eq!(qkv.len(), of.batch * of.tokens * 3 * width, "queries, keys and values");
    assert_eq!(dqkv.len(), qkv.len(), "their gradients");
    assert_eq!(dout.len(), of.batch * of.tokens * width, "gradient of the output");
    assert_eq!(out.len(), dout.len(), "output");
    assert_eq!(lse.len(), of.saved(), "saved statistics");
    let (dqkv, out) = (Grid::new(dqkv, 3 * width), Grid::new(out, width));
    cpu.threads.each(0..of.batch * of.heads, |slot, piece| {
        let scratch = &mut *cpu.own(slot);
        let lse = &lse[piece * of.tokens..][..of.tokens];
        dispatch!(cpu.isa, l => head(l, scratch.room(words::<E>(of)), &dqkv, &out, dout, qkv, lse, piece, of))
    });
}

/// S and dP in f32; P and dS, as much as in f32 each; packed operands.
fn words<E: Element>(of: Attention) -> usize {
    4 * of.tokens * of.columns() + 2 * of.operand_words(E::GROUP)
}

/// One head of one sequence.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn head<L: Lanes, E: Element>(
    l: L,
    scratch: &mut [u32],
    dqkv: &Grid<E>,
    out: &Grid<E>,
    dout: &[E],
    qkv: &[E],
    lse: &[f32],
    piece: usize,
    of: Attention,
) {
    let (t, columns, width) = (of.tokens, of.columns(), of.width());
    let stride = 3 * width;
    let (b, h) = (piece / of.heads, piece % of.heads);
    let (s, scratch) = scratch.split_at_mut(t * columns);
    let (dp, scratch) = scratch.split_at_mut(t * columns);
    let (p, scratch) = scratch.split_at_mut(t * columns);
    let (ds, scratch) = scratch.split_at_mut(t * columns);
    let (left, right) = scratch.split_at_mut(of.operand_words(E::GROUP));
    let (s, dp): (&mut [f32], &mut [f32]) = (bytemuck::cast_slice_mut(s), bytemuck::cast_slice_mut(dp));
    let (p, ds): (&mut [E], &mut [E]) = (bytemuck::cast_slice_mut(p), bytemuck::cast_slice_mut(ds));

    let part = |i: usize| &qkv[b * t * stride + i * width + h * of.head..];
    let dout = &dout[b * t * width + h * of.head..];
    let square = |data| Left::Rows { data, stride: columns };
    let flipped = |data| Left::Columns { data, stride: columns };
    let gradient = |i: usize| Place { to: dqkv, row: b * t, column: i * width + h * of.head };
    let even = t.next_multiple_of(E::GROUP);

    let q = small::left(l, left, Left::Rows { data: part(0), stride }, (t, of.head));
    let k = small::right_from_columns(l, right, part(1), stride, (of.head, t));
    // SAFETY: the operands have the sizes named beside them, and S belongs to this thread.
    unsafe { small::multiply::<L, E>(l, &Write { to: Grid::new(s, columns), bias: None }, q, k, t) };
    let left_dout = small::left(l, left, Left::Rows { data: dout, stride: width }, (t, of.head));
    let v = small::right_from_columns(l, right, part(2), stride, (of.head, t));
    // SAFETY: the operands have the sizes named beside them, and dP belongs to this thread.
    unsafe { small::multiply::<L, E>(l, &Write { to: Grid::new(dp, columns), bias: None }, left_dout, v, t) };

    for (i, &lse) in lse.iter().enumerate() {
        let row = i * columns..(i + 1) * columns;
        softmax_backward(
            l,
            &mut p[row.clone()],
            &mut ds[row.clone()],
            &mut s[row.clone()],
            &dp[row],
            of.seen(i),
            of.scale(),
            lse,
        );
    }

    let v = small::right_from_rows(l, right, part(2), stride, (t, of.head));
    let p_rows = small::left(l, left, square(p), (t, even));
    let to = Place { to: out, row: b * t, column: h * of.head };
    // SAFETY: sizes as named; a head of a sequence has rows and columns of the output of its own.
    unsafe { small::multiply::<L, E>(l, &to, p_rows, v, t) };
    let right_dout = small::right_from_rows(l, right, dout, width, (t, of.head));
    let p = small::left(l, left, flipped(p), (t, t));
    // SAFETY: sizes as named; a head of a sequence has rows and columns of dqkv of its own.
    unsafe { small::multiply::<L, E>(l, &gradient(2), p, right_dout, t) };
    let k = small::right_from_rows(l, right, part(1), stride, (t, of.head));
    let ds_rows = small::left(l, left, square(ds), (t, even));
    // SAFETY: as for dV.
    unsafe { small::multiply::<L, E>(l, &gradient(0), ds_rows, k, t) };
    let q = small::right_from_rows(l, right, part(0), stride, (t, of.head));
    let ds = small::left(l, left, flipped(ds), (t, t));
    // SAFETY: as for dV.
    unsafe { small::multiply::<L, E>(l, &gradient(1), ds, q, t) };
}

/// p = exp(scale * s - lse); ds = scale * p * (dp - sum of p * dp); both zero beyond `seen` keys. `s` is
/// used up.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn softmax_backward<L: Lanes, E: Element>(
    l: L,
    p: &mut [E],
    ds: &mut [E],
    s: &mut [f32],
    dp: &[f32],
    seen: usize,
    scale: f32,
    lse: f32,
) {
    let (factor, minus) = (l.splat(scale), l.splat(-lse));
    let mut sum = l.zero();
    for j in (0..p.len()).step_by(L::N) {
        let live = seen.max(j).min(j + L::N);
        let x = l.load_or(&s[j..live], f32::NEG_INFINITY);
        let e = exp(l, l.fma(x, factor, minus));
        sum = l.fma(e, l.load(&dp[j..live]), sum);
        l.store(e, &mut s[j..]);
        E::store(l, e, &mut p[j..]);
    }
    let sum = l.splat(l.sum(sum));
    for j in (0..p.len()).step_by(L::N) {
        let live = seen.max(j).min(j + L::N);
        let e = l.mul(l.load(&s[j..]), factor);
        E::store(l, l.mul(e, l.sub(l.load(&dp[j..live]), sum)), &mut ds[j..]);
    }
}

/// Writes rows of a block of a larger output.
struct Place<'a, 'b, E> {
    to: &'a Grid<'b, E>,
    row: usize,
    column: usize,
}

impl<E: Element> Epilogue for Place<'_, '_, E> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(self.row + row, self.column + column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let to = self.to.segment(self.row + row, self.column + column, sums.len());
        for j in (0..sums.len()).step_by(L::N) {
            E::store(l, l.load(&sums[j..]), &mut to[j..]);
        }
    }
}
