//! Number types of products: `f32`, or `Bf16` with f32 accumulation.

use bytemuck::{Pod, Zeroable};

use super::lanes::Lanes;
use super::view::Number;

/// A brain float: the upper half of an `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

// SAFETY: a transparent u16, for which every bit pattern is valid.
unsafe impl Zeroable for Bf16 {}
// SAFETY: as above; no padding.
unsafe impl Pod for Bf16 {}
impl Number for Bf16 {}

impl Bf16 {
    /// The nearest brain float, ties to even.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            return Bf16((bits >> 16) as u16 | 0x40);
        }
        Bf16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    /// Exact.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits((self.0 as u32) << 16)
    }
}

/// A number that activations and weights are stored in and products are taken of; sums are always `f32`.
pub trait Element: Number + Default + std::fmt::Debug {
    /// Consecutive terms of a sum that one multiply-add takes together.
    const GROUP: usize;
    /// Relative distance of neighbouring numbers.
    const EPSILON: f32;
    /// `GROUP` terms for each lane.
    type Group<L: Lanes>: Copy;

    fn from_f32(x: f32) -> Self;
    fn to_f32(self) -> f32;

    /// Converts as many numbers as `L` has lanes, or all that `from` has, zero beyond.
    fn load<L: Lanes>(l: L, from: &[Self]) -> L::V;
    /// Rounds as many numbers as `L` has lanes, or as `to` has room for.
    fn store<L: Lanes>(l: L, x: L::V, to: &mut [Self]);

    /// # Safety
    /// `from` must be readable for `GROUP * L::N` elements.
    unsafe fn load_group<L: Lanes>(l: L, from: *const u8) -> Self::Group<L>;
    /// # Safety
    /// `from` must be readable for `GROUP` elements.
    unsafe fn splat_group<L: Lanes>(l: L, from: *const u8) -> Self::Group<L>;
    /// acc + sum over the group of a * b.
    fn dot<L: Lanes>(l: L, acc: L::V, a: Self::Group<L>, b: Self::Group<L>) -> L::V;
}

impl Element for f32 {
    const GROUP: usize = 1;
    const EPSILON: f32 = f32::EPSILON;
    type Group<L: Lanes> = L::V;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f32]) -> L::V {
        l.load(from)
    }
    #[inline(always)]
    fn store<L: Lanes>(l: L, x: L::V, to: &mut [f32]) {
        l.store(x, to)
    }
    #[inline(always)]
    unsafe fn load_group<L: Lanes>(l: L, from: *const u8) -> L::V {
        l.load_ptr(from.cast())
    }
    #[inline(always)]
    unsafe fn splat_group<L: Lanes>(l: L, from: *const u8) -> L::V {
        l.splat(from.cast::<f32>().read_unaligned())
    }
    #[inline(always)]
    fn dot<L: Lanes>(l: L, acc: L::V, a: L::V, b: L::V) -> L::V {
        l.fma(a, b, acc)
    }
}

impl Element for Bf16 {
    const GROUP: usize = 2;
    const EPSILON: f32 = 1.0 / 128.0;
    type Group<L: Lanes> = L::Pairs;

    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        Bf16::from_f32(x)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        Bf16::to_f32(self)
    }
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[Bf16]) -> L::V {
        l.load_bf16(from)
    }
    #[inline(always)]
    fn store<L: Lanes>(l: L, x: L::V, to: &mut [Bf16]) {
        l.store_bf16(x, to)
    }
    #[inline(always)]
    unsafe fn load_group<L: Lanes>(l: L, from: *const u8) -> L::Pairs {
        l.load_pairs(from)
    }
    #[inline(always)]
    unsafe fn splat_group<L: Lanes>(l: L, from: *const u8) -> L::Pairs {
        l.splat_pair(from.cast::<u32>().read_unaligned())
    }
    #[inline(always)]
    fn dot<L: Lanes>(l: L, acc: L::V, a: L::Pairs, b: L::Pairs) -> L::V {
        l.dot_pairs(acc, a, b)
    }
}

/// Rounds every number of `from`.
#[inline(always)]
pub fn convert<L: Lanes, E: Element>(l: L, to: &mut [E], from: &[f32]) {
    for i in (0..from.len()).step_by(L::N) {
        E::store(l, l.load(&from[i..]), &mut to[i..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_and_ties_to_even() {
        for (x, want) in [
            (1.0, 0x3f80),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (-0.0, 0x8000),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
        ] {
            assert_eq!(Bf16::from_f32(x), Bf16(want), "{x}");
        }
        assert!(Bf16::from_f32(f32::NAN).to_f32().is_nan());
        assert!(Bf16::from_f32(f32::from_bits(0x7f80_0001)).to_f32().is_nan());
    }
}
