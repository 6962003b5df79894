//! Sixteen lanes of AVX-512, with or without the dot product of bf16 pairs.

#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "SAFETY of every block: a value of the type is made only where the processor has the instructions"
)]

use std::arch::x86_64::*;

use super::Lanes;
use crate::kernel::element::Bf16;
use crate::kernel::isa::{Compiled, Isa};

/// Proof that the processor has AVX-512 F, BW, VL and DQ.
#[derive(Debug, Clone, Copy)]
pub struct Avx512(());

/// Proof that the processor has AVX-512 F, BW, VL, DQ and BF16.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Bf16(());

impl Avx512 {
    /// # Panics
    /// If the processor lacks the instructions.
    #[inline]
    pub fn assume() -> Self {
        assert!(Isa::Avx512.available(), "this processor has no AVX-512");
        Avx512(())
    }
}

impl Avx512Bf16 {
    /// # Panics
    /// If the processor lacks the instructions.
    #[inline]
    pub fn assume() -> Self {
        assert!(Isa::Avx512Bf16.available(), "this processor has no AVX-512 BF16");
        Avx512Bf16(())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,bmi2")]
fn call<R>(lanes: Avx512, f: impl FnOnce(Avx512) -> R) -> R {
    f(lanes)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,bmi2")]
fn call_bf16<R>(lanes: Avx512Bf16, f: impl FnOnce(Avx512Bf16) -> R) -> R {
    f(lanes)
}

impl Compiled for Avx512 {
    #[inline(always)]
    fn call<R>(self, f: impl FnOnce(Self) -> R) -> R {
        // SAFETY: a value of this type is made only where the processor has the instructions.
        unsafe { call(self, f) }
    }
}

impl Compiled for Avx512Bf16 {
    #[inline(always)]
    fn call<R>(self, f: impl FnOnce(Self) -> R) -> R {
        // SAFETY: a value of this type is made only where the processor has the instructions.
        unsafe { call_bf16(self, f) }
    }
}

/// Methods that both share. SAFETY of every block: a value of either type is made only where the processor has
/// the instructions; pointers are the caller's promise.
macro_rules! sixteen_lanes {
    () => {
        type V = __m512;
        type Pairs = __m512i;
        const N: usize = 16;
        const TILE: usize = 4;

        #[inline(always)]
        fn splat(self, x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load_ptr(self, from: *const f32) -> __m512 {
            _mm512_loadu_ps(from)
        }
        #[inline(always)]
        unsafe fn store_ptr(self, x: __m512, to: *mut f32) {
            _mm512_storeu_ps(to, x)
        }
        #[inline(always)]
        unsafe fn load_bf16_ptr(self, from: *const Bf16) -> __m512 {
            let half = _mm256_loadu_si256(from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        fn div(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn min(self, a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        fn sqrt(self, a: __m512) -> __m512 {
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        fn select_lt(self, a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
        }
        #[inline(always)]
        fn round(self, a: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(a) }
        }
        #[inline(always)]
        fn scale_by_power(self, x: __m512, n: __m512) -> __m512 {
            unsafe { _mm512_scalef_ps(x, n) }
        }
        #[inline(always)]
        fn sum(self, a: __m512) -> f32 {
            unsafe {
                let high = _mm512_extractf32x8_ps::<1>(a);
                let eight = _mm256_add_ps(_mm512_castps512_ps256(a), high);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
        #[inline(always)]
        fn largest(self, a: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(a) }
        }
        #[inline(always)]
        unsafe fn load_pairs(self, from: *const u8) -> __m512i {
            _mm512_loadu_si512(from.cast())
        }
        #[inline(always)]
        fn splat_pair(self, pair: u32) -> __m512i {
            unsafe { _mm512_set1_epi32(pair as i32) }
        }
        #[inline(always)]
        fn split_pairs(self, pairs: __m512i) -> (__m512, __m512) {
            unsafe {
                let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
                let first = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
                (first, _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)))
            }
        }
    };
}

impl Lanes for Avx512 {
    sixteen_lanes!();
    const DOT: bool = false;

    #[inline(always)]
    unsafe fn store_bf16_ptr(self, x: __m512, to: *mut Bf16) {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        let kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000));
        _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept)))
    }
}

impl Lanes for Avx512Bf16 {
    sixteen_lanes!();
    const DOT: bool = true;

    #[inline(always)]
    unsafe fn store_bf16_ptr(self, x: __m512, to: *mut Bf16) {
        let half = _mm512_cvtneps_pbh(x);
        // Both are 256 bits without padding.
        _mm256_storeu_si256(to.cast(), std::mem::transmute::<__m256bh, __m256i>(half))
    }
    #[inline(always)]
    fn dot_pairs(self, acc: __m512, a: __m512i, b: __m512i) -> __m512 {
        // SAFETY: as above; both types are 512 bits without padding.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }
}
