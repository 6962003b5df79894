//! Eight lanes of plain Rust, for every processor and for Miri.

use super::Lanes;
use crate::kernel::element::Bf16;

/// Lanes of portable code, for any processor.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

type V = [f32; 8];

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    type V = V;
    type Pairs = [u32; 8];
    const N: usize = 8;
    const DOT: bool = false;
    const TILE: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> V {
        from.cast::<V>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store_ptr(self, x: V, to: *mut f32) {
        to.cast::<V>().write_unaligned(x)
    }
    #[inline(always)]
    unsafe fn load_bf16_ptr(self, from: *const Bf16) -> V {
        from.cast::<[Bf16; 8]>().read_unaligned().map(Bf16::to_f32)
    }
    #[inline(always)]
    unsafe fn store_bf16_ptr(self, x: V, to: *mut Bf16) {
        to.cast::<[Bf16; 8]>().write_unaligned(x.map(Bf16::from_f32))
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        map(a, f32::sqrt)
    }
    #[inline(always)]
    fn select_lt(self, a: V, b: V, x: V, y: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    fn round(self, a: V) -> V {
        // Adding 1.5 * 2^23 leaves no bits for a fraction.
        const MAGIC: f32 = 12_582_912.0;
        map(a, |a| (a + MAGIC) - MAGIC)
    }
    #[inline(always)]
    fn scale_by_power(self, x: V, n: V) -> V {
        zip(x, n, |x, n| x * f32::from_bits(((n as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn load_pairs(self, from: *const u8) -> [u32; 8] {
        from.cast::<[u32; 8]>().read_unaligned()
    }
    #[inline(always)]
    fn splat_pair(self, pair: u32) -> [u32; 8] {
        [pair; 8]
    }
    #[inline(always)]
    fn split_pairs(self, pairs: [u32; 8]) -> (V, V) {
        (pairs.map(|pair| f32::from_bits(pair << 16)), pairs.map(|pair| f32::from_bits(pair & 0xffff_0000)))
    }
}
