//! Memory that operations of a backend read and write: an address, a length and a lifetime. A view of a GPU's memory cannot be
//! read on the host, so a view gives no slice; the backend of the CPU makes one of it.

use std::marker::PhantomData;
use std::ops::Range;

/// A number that kernels read and write.
pub trait Number: bytemuck::Pod + Send + Sync {}

impl Number for f32 {}
impl Number for f64 {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for u64 {}

/// Memory of a backend that is read.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    at: *const T,
    len: usize,
    lifetime: PhantomData<&'a T>,
}

/// Memory of a backend that is written.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    at: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut T>,
}

impl<'a, T: Number> View<'a, T> {
    /// `len` elements at an address of the backend.
    ///
    /// # Safety
    /// They must be readable by its kernels for `'a`.
    pub unsafe fn new(at: *const T, len: usize) -> Self {
        View { at, len, lifetime: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_ptr(&self) -> *const T {
        self.at
    }

    /// Its beginning as a number, for tables that kernels read.
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    /// The elements from `at` on, `len` of them.
    pub fn part(&self, at: usize, len: usize) -> View<'a, T> {
        assert!(at + len <= self.len, "elements {at} to {} of {}", at + len, self.len);
        View { at: self.at.wrapping_add(at), len, lifetime: PhantomData }
    }
}

impl<'a, T: Number> ViewMut<'a, T> {
    /// `len` elements at an address of the backend.
    ///
    /// # Safety
    /// They must be writable by its kernels for `'a`, and nobody else may use them.
    pub unsafe fn new(at: *mut T, len: usize) -> Self {
        ViewMut { at, len, lifetime: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn as_ptr(&self) -> *mut T {
        self.at
    }

    /// Its beginning as a number, for tables that kernels read.
    pub fn address(&self) -> u64 {
        self.at as u64
    }

    /// The same memory for the time of a call.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { at: self.at, len: self.len, lifetime: PhantomData }
    }

    /// The same memory, to be read.
    pub fn view(&self) -> View<'_, T> {
        View { at: self.at, len: self.len, lifetime: PhantomData }
    }

    /// The same memory as other numbers, as many as it holds.
    pub fn cast<U: Number>(&mut self) -> ViewMut<'_, U> {
        assert!((self.at as usize).is_multiple_of(align_of::<U>()), "numbers at {:p}", self.at);
        let len = self.len * size_of::<T>() / size_of::<U>();
        ViewMut { at: self.at.cast(), len, lifetime: PhantomData }
    }

    /// The elements from `at` on, `len` of them.
    pub fn part(&mut self, at: usize, len: usize) -> ViewMut<'_, T> {
        self.reborrow().into_part(at, len)
    }

    /// As [`part`](Self::part), for as long as the whole would have been there.
    pub fn into_part(self, at: usize, len: usize) -> ViewMut<'a, T> {
        assert!(at + len <= self.len, "elements {at} to {} of {}", at + len, self.len);
        ViewMut { at: self.at.wrapping_add(at), len, lifetime: PhantomData }
    }

    /// Ranges that come one after the other.
    pub fn into_ranges(self, ranges: impl Iterator<Item = Range<usize>>) -> Vec<ViewMut<'a, T>> {
        let mut end = 0;
        let part = |range: Range<usize>| {
            assert!(end <= range.start && range.end <= self.len, "{range:?} of {}, after {end}", self.len);
            end = range.end;
            ViewMut { at: self.at.wrapping_add(range.start), len: range.len(), lifetime: PhantomData }
        };
        ranges.map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_where_they_lie() {
        let mut values: Vec<f32> = (0..10).map(|i| i as f32).collect();
        // SAFETY: the values are borrowed for as long as the view lives.
        let all = unsafe { ViewMut::new(values.as_mut_ptr(), values.len()) };
        let cut = all.into_ranges([0..2, 4..7, 7..8].into_iter());
        // SAFETY: as above; the ranges lie apart from each other.
        let read =
            |view: &ViewMut<f32>| unsafe { std::slice::from_raw_parts(view.as_ptr(), view.len()) }.to_vec();
        assert_eq!(
            cut.iter().map(read).collect::<Vec<_>>(),
            [vec![0.0, 1.0], vec![4.0, 5.0, 6.0], vec![7.0]]
        );
    }

    #[test]
    #[should_panic(expected = "after 4")]
    fn ranges_that_overlap_are_refused() {
        let mut values = [0.0f32; 8];
        // SAFETY: the values are borrowed for as long as the view lives.
        let all = unsafe { ViewMut::new(values.as_mut_ptr(), values.len()) };
        all.into_ranges([0..4, 3..5].into_iter());
    }
}
