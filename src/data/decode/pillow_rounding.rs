//! Rounding to bytes as Pillow's fixed-point arithmetic does it (`Resample.c`): weights of 22 bits, and halves up.
//!
//! A pass in single precision gives the same bytes but for sums that lie next to the middle between two of them; those are
//! summed again here. There are few of them in photographs and many in enlarged drawings.

use fast_image_resize::FilterType;

/// Bits behind the point of a weight.
const BITS: u32 = 32 - 8 - 2;
/// Sums so near to the middle between two bytes are summed again: more than what the rounding of weights and of single
/// precision adds up to.
const NEAR: f32 = 1.0 / 64.0;

/// Weights of a pass over one side.
pub(super) struct PillowRounding {
    /// For every pixel that it becomes, the first of the pixels that count, and their weights.
    taps: Vec<(usize, Vec<i32>)>,
}

impl PillowRounding {
    /// A side of `from` pixels, of which `length` from `start` on become `to`.
    pub fn new(filter: FilterType, from: usize, (start, length, to): (f64, f64, u32)) -> Self {
        let (reach, weight): (f64, fn(f64) -> f64) = match filter {
            FilterType::Bilinear => (1.0, triangle),
            _ => (2.0, cubic),
        };
        let scale = length / f64::from(to);
        let stretch = scale.max(1.0);
        let support = reach * stretch;
        let taps = (0..to).map(|place| {
            let centre = start + (f64::from(place) + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weights: Vec<f64> =
                (first..end).map(|at| weight((at as f64 - centre + 0.5) / stretch)).collect();
            let total: f64 = weights.iter().sum();
            let fixed = |weight: &f64| (weight / total * f64::from(1u32 << BITS)).round() as i32;
            (first, weights.iter().map(fixed).collect())
        });
        PillowRounding { taps: taps.collect() }
    }

    /// The byte of a sum at `place`; `pixel` gives the bytes of the side that it is of.
    pub fn byte(&self, place: usize, sum: f32, pixel: impl Fn(usize) -> u8) -> u8 {
        let up = sum + 0.5;
        let rounded = up.floor();
        if (NEAR..1.0 - NEAR).contains(&(up - rounded)) {
            // A cast keeps what is too small or too large at the ends.
            return rounded as u8;
        }
        let (first, weights) = &self.taps[place];
        let pairs = weights.iter().zip(*first..);
        let sum: i64 = pairs.map(|(&weight, at)| i64::from(weight) * i64::from(pixel(at))).sum();
        ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
    }
}

fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic with a = -1/2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_rounded_up_whatever_single_precision_makes_of_it() {
        // Two pixels become four: the second is three quarters of the first and a quarter of the second.
        let rounding = PillowRounding::new(FilterType::Bilinear, 2, (0.0, 2.0, 4));
        let pixels = [10u8, 12];
        for sum in [10.49999, 10.5, 10.50001] {
            assert_eq!(rounding.byte(1, sum, |at| pixels[at]), 11);
        }
        assert_eq!(rounding.byte(1, 10.4, |_| unreachable!()), 10);
    }
}
