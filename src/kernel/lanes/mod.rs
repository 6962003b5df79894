//! Vectors of `f32`, one implementation an instruction set. Kernels are written once over [`Lanes`].

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;

use super::element::Bf16;

/// A vector of `N` numbers. A value of an implementing type is the proof that the processor has the
/// instructions; methods are inlined into a function that is compiled for them.
pub trait Lanes: Copy + Send + Sync {
    /// `N` f32.
    type V: Copy;
    /// `N` pairs of bf16.
    type Pairs: Copy;
    /// Lanes of a vector.
    const N: usize;
    /// Vectors that a row of a GEMM tile spans.
    const TILE: usize;

    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `from` must be readable for `N` f32; it need not be aligned.
    unsafe fn load_ptr(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `to` must be writable for `N` f32; it need not be aligned.
    unsafe fn store_ptr(self, x: Self::V, to: *mut f32);
    /// # Safety
    /// `from` must be readable for `N` bf16.
    unsafe fn load_bf16_ptr(self, from: *const Bf16) -> Self::V;
    /// # Safety
    /// `to` must be writable for `N` bf16.
    unsafe fn store_bf16_ptr(self, x: Self::V, to: *mut Bf16);

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c, with one rounding where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; the second if either is not a number.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; the second if either is not a number.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a < b ? x : y`.
    fn select_lt(self, a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// Nearest integer, ties to even; for |a| < 2^22.
    fn round(self, a: Self::V) -> Self::V;
    /// x * 2^n for integers -126 <= n <= 127.
    fn scale_by_power(self, x: Self::V, n: Self::V) -> Self::V;
    /// Sum of the lanes, as a balanced tree.
    fn sum(self, a: Self::V) -> f32;
    /// Largest lane.
    fn largest(self, a: Self::V) -> f32;

    /// # Safety
    /// `from` must be readable for `N` pairs.
    unsafe fn load_pairs(self, from: *const u8) -> Self::Pairs;
    fn splat_pair(self, pair: u32) -> Self::Pairs;
    /// True if [`dot_pairs`](Self::dot_pairs) is one instruction. Where it is not, products widen their
    /// operands beforehand.
    const DOT: bool;
    /// The first and the second of every pair.
    fn split_pairs(self, pairs: Self::Pairs) -> (Self::V, Self::V);
    /// acc + a.0 * b.0 + a.1 * b.1.
    #[inline(always)]
    fn dot_pairs(self, acc: Self::V, a: Self::Pairs, b: Self::Pairs) -> Self::V {
        let ((a0, a1), (b0, b1)) = (self.split_pairs(a), self.split_pairs(b));
        self.fma(a1, b1, self.fma(a0, b0, acc))
    }

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// The first `N` of `from`; zero beyond its end.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        if from.len() >= Self::N {
            // SAFETY: the slice has N elements.
            unsafe { self.load_ptr(from.as_ptr()) }
        } else {
            let mut some = [0.0f32; 16];
            some[..from.len()].copy_from_slice(from);
            // SAFETY: N <= 16.
            unsafe { self.load_ptr(some.as_ptr()) }
        }
    }

    /// The first `N` of `from`, `fill` beyond its end.
    #[inline(always)]
    fn load_or(self, from: &[f32], fill: f32) -> Self::V {
        if from.len() >= Self::N {
            // SAFETY: the slice has N elements.
            unsafe { self.load_ptr(from.as_ptr()) }
        } else {
            let mut some = [fill; 16];
            some[..from.len()].copy_from_slice(from);
            // SAFETY: N <= 16.
            unsafe { self.load_ptr(some.as_ptr()) }
        }
    }

    /// As many lanes as `to` has room for.
    #[inline(always)]
    fn store(self, x: Self::V, to: &mut [f32]) {
        if to.len() >= Self::N {
            // SAFETY: the slice has N elements.
            unsafe { self.store_ptr(x, to.as_mut_ptr()) }
        } else {
            let mut some = [0.0f32; 16];
            // SAFETY: N <= 16.
            unsafe { self.store_ptr(x, some.as_mut_ptr()) };
            let n = to.len();
            to.copy_from_slice(&some[..n]);
        }
    }

    /// The first `N` of `from`; zero beyond its end.
    #[inline(always)]
    fn load_bf16(self, from: &[Bf16]) -> Self::V {
        if from.len() >= Self::N {
            // SAFETY: the slice has N elements.
            unsafe { self.load_bf16_ptr(from.as_ptr()) }
        } else {
            let mut some = [Bf16(0); 16];
            some[..from.len()].copy_from_slice(from);
            // SAFETY: N <= 16.
            unsafe { self.load_bf16_ptr(some.as_ptr()) }
        }
    }

    /// As many lanes as `to` has room for.
    #[inline(always)]
    fn store_bf16(self, x: Self::V, to: &mut [Bf16]) {
        if to.len() >= Self::N {
            // SAFETY: the slice has N elements.
            unsafe { self.store_bf16_ptr(x, to.as_mut_ptr()) }
        } else {
            let mut some = [Bf16(0); 16];
            // SAFETY: N <= 16.
            unsafe { self.store_bf16_ptr(x, some.as_mut_ptr()) };
            let n = to.len();
            to.copy_from_slice(&some[..n]);
        }
    }
}

/// Asks for the memory of `len` values, which need not exist.
#[inline(always)]
pub fn prefetch<T>(from: *const T, len: usize) {
    for line in (0..len * size_of::<T>()).step_by(64) {
        let line = from.cast::<i8>().wrapping_add(line);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch has no effect that a program could see, whatever the address.
        unsafe {
            use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
            _mm_prefetch::<_MM_HINT_T0>(line);
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = line;
    }
}
