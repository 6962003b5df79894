//! Epilogues: operations on the sums of a product while they are still in the first-level cache.

use std::marker::PhantomData;

use crate::kernel::activation::{Activation, Curve};
use crate::kernel::element::Element;
use crate::kernel::lanes::{prefetch, Lanes};

/// Takes the sums of a product, a few columns of one row at a time.
pub trait Epilogue: Sync {
    /// `sums` are columns `column ..` of row `row`.
    ///
    /// # Safety
    /// No two threads may hand in the same columns of a row.
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]);

    /// Asks for the memory that [`take`](Self::take) of `len` columns will touch.
    fn prefetch(&self, row: usize, column: usize, len: usize);
}

/// A row-major output that several threads write, each its own columns of a row.
pub struct Grid<'a, T> {
    data: *mut T,
    len: usize,
    stride: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: `segment` is the only access, and its caller promises that segments are disjoint.
unsafe impl<T: Send> Sync for Grid<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// Rows of `stride` values.
    pub fn new(data: &'a mut [T], stride: usize) -> Self {
        Grid { data: data.as_mut_ptr(), len: data.len(), stride, lifetime: PhantomData }
    }

    /// # Safety
    /// No two threads may hold overlapping segments.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn segment(&self, row: usize, column: usize, len: usize) -> &mut [T] {
        let at = row * self.stride + column;
        assert!(at + len <= self.len, "a product is larger than its output");
        std::slice::from_raw_parts_mut(self.data.add(at), len)
    }

    /// Asks for the memory of a segment.
    #[inline(always)]
    pub fn prefetch(&self, row: usize, column: usize, len: usize) {
        prefetch(self.data.wrapping_add(row * self.stride + column), len);
    }
}

/// to = sums + bias.
pub struct Write<'a, T> {
    pub to: Grid<'a, T>,
    pub bias: Option<&'a [f32]>,
}

impl<T: Element> Epilogue for Write<'_, T> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(row, column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let to = self.to.segment(row, column, sums.len());
        for j in (0..sums.len()).step_by(L::N) {
            let mut x = l.load(&sums[j..]);
            if let Some(bias) = self.bias {
                x = l.add(x, l.load(&bias[column + j..column + sums.len()]));
            }
            T::store(l, x, &mut to[j..]);
        }
    }
}

/// to += sums + bias.
pub struct Add<'a> {
    pub to: Grid<'a, f32>,
    pub bias: Option<&'a [f32]>,
}

impl Epilogue for Add<'_> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.to.prefetch(row, column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let to = self.to.segment(row, column, sums.len());
        for j in (0..sums.len()).step_by(L::N) {
            let mut x = l.load(&sums[j..]);
            if let Some(bias) = self.bias {
                x = l.add(x, l.load(&bias[column + j..column + sums.len()]));
            }
            let before = l.load(&to[j..]);
            l.store(l.add(before, x), &mut to[j..]);
        }
    }
}

/// before = sums + bias; after = activation(before).
pub struct Activate<'a, E> {
    pub before: Grid<'a, E>,
    pub after: Grid<'a, E>,
    pub bias: &'a [f32],
    pub activation: Activation,
}

impl<E: Element> Epilogue for Activate<'_, E> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.before.prefetch(row, column, len);
        self.after.prefetch(row, column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let before = self.before.segment(row, column, sums.len());
        let after = self.after.segment(row, column, sums.len());
        for j in (0..sums.len()).step_by(L::N) {
            let x = l.add(l.load(&sums[j..]), l.load(&self.bias[column + j..column + sums.len()]));
            E::store(l, x, &mut before[j..]);
            E::store(l, Curve::of(l, self.activation, x).value, &mut after[j..]);
        }
    }
}

/// Backward of [`Activate`]: gradient = sums * activation'(before); then before = activation(before), which
/// the gradient of the next weight needs.
pub struct ActivateBackward<'a, E> {
    pub before: Grid<'a, E>,
    pub gradient: Grid<'a, E>,
    pub activation: Activation,
}

impl<E: Element> Epilogue for ActivateBackward<'_, E> {
    #[inline(always)]
    fn prefetch(&self, row: usize, column: usize, len: usize) {
        self.before.prefetch(row, column, len);
        self.gradient.prefetch(row, column, len);
    }
    #[inline(always)]
    unsafe fn take<L: Lanes>(&self, l: L, row: usize, column: usize, sums: &[f32]) {
        let before = self.before.segment(row, column, sums.len());
        let gradient = self.gradient.segment(row, column, sums.len());
        for j in (0..sums.len()).step_by(L::N) {
            let curve = Curve::of(l, self.activation, E::load(l, &before[j..]));
            E::store(l, l.mul(l.load(&sums[j..]), curve.slope), &mut gradient[j..]);
            E::store(l, curve.value, &mut before[j..]);
        }
    }
}
