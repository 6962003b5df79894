//! Eight lanes of AVX2 with fused multiply-add.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: a value of the type is made only where the processor has the instructions"
)]

use std::arch::x86_64::*;

use super::Lanes;
use crate::kernel::element::Bf16;
use crate::kernel::isa::{Compiled, Isa};

/// Proof that the processor has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Panics
    /// If the processor lacks the instructions.
    #[inline]
    pub fn assume() -> Self {
        assert!(Isa::Avx2.available(), "this processor has no AVX2 with FMA");
        Avx2(())
    }
}

#[target_feature(enable = "avx2,fma,bmi2")]
fn call<R>(lanes: Avx2, f: impl FnOnce(Avx2) -> R) -> R {
    f(lanes)
}

impl Compiled for Avx2 {
    #[inline(always)]
    fn call<R>(self, f: impl FnOnce(Self) -> R) -> R {
        // SAFETY: a value of this type is made only where the processor has the instructions.
        unsafe { call(self, f) }
    }
}

// SAFETY of every block below: a value of this type is made only where the processor has the
// instructions; pointers are the caller's promise.
impl Lanes for Avx2 {
    type V = __m256;
    type Pairs = __m256i;
    const N: usize = 8;
    const DOT: bool = false;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: __m256, to: *mut f32) {
        _mm256_storeu_ps(to, x)
    }
    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const Bf16) -> __m256 {
        let half = _mm_loadu_si128(from.cast());
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
    }
    #[inline(always)]
    unsafe fn store_bf16_ptr(self, x: __m256, to: *mut Bf16) {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(high, high));
        _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn select_lt(self, a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale_by_power(self, x: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(self, from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> __m256i {
        unsafe { _mm256_set1_epi32(pair as i32) }
    }
    #[inline(always)]
    fn split_pairs(self, pairs: __m256i) -> (__m256, __m256) {
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            (first, _mm256_castsi256_ps(_mm256_and_si256(pairs, upper)))
        }
    }
}
