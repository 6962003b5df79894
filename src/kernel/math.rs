//! Elementary functions on vectors. Their errors against double precision are tested below; the bound is
//! in each doc comment.

use super::lanes::Lanes;

/// e^x with a relative error below 2e-7; 0 below -87.33, saturates at 2.3e38 above 88.37.
#[inline(always)]
pub fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    let low = l.splat(-87.33);
    // A limit is the first operand, so that what is not a number stays so.
    let clamped = l.max(low, l.min(l.splat(88.37), x));
    l.select_lt(x, low, l.zero(), exp_within(l, clamped))
}

/// e^x for -87.33 <= x <= 88.37.
#[inline(always)]
fn exp_within<L: Lanes>(l: L, x: L::V) -> L::V {
    let n = l.round(l.mul(x, l.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first with zeros at its end: n times it is exact.
    let r = l.fma(n, l.splat(-0.693_359_4), x);
    let r = l.fma(n, l.splat(2.121_944_4e-4), r);
    // Cephes expf.
    let mut p = l.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = l.fma(p, r, l.splat(c));
    }
    let y = l.add(l.fma(p, l.mul(r, r), r), l.splat(1.0));
    l.scale_by_power(y, n)
}

/// 1 / (1 + e^-x) with a relative error below 4e-7 for x > -80, and 1.8e-35 below: products with what is
/// smaller would be denormal, on which processors are slow.
#[inline(always)]
pub fn sigmoid<L: Lanes>(l: L, x: L::V) -> L::V {
    let one = l.splat(1.0);
    let minus = l.max(l.splat(-80.0), l.min(l.splat(80.0), l.sub(l.zero(), x)));
    l.div(one, l.add(one, exp_within(l, minus)))
}

/// The normal distribution function, Phi(x) = erfc(-x / sqrt 2) / 2, with an absolute error below 2e-7; the
/// relative error in the lower tail grows with the rounding of x^2, to 1e-5 at x = -9.
#[inline(always)]
pub fn normal_cdf<L: Lanes>(l: L, x: L::V) -> L::V {
    let one = l.splat(1.0);
    let minus = l.sub(l.zero(), x);
    let z = l.mul(l.max(x, minus), l.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = l.div(one, l.fma(z, l.splat(0.5), one));
    // Numerical Recipes, erfcc: erfc(z) = t exp(-z^2 + p(t)), z >= 0.
    let mut p = l.splat(0.170_872_77);
    for c in [
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ] {
        p = l.fma(p, t, l.splat(c));
    }
    let square = l.mul(z, z);
    let tail = l.mul(l.mul(l.splat(0.5), t), exp(l, l.sub(p, square)));
    l.select_lt(x, l.zero(), tail, l.sub(one, tail))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernel::isa::{dispatch, Isa};

    /// Phi in double precision: a Taylor series in the middle, a continued fraction in the tails.
    pub fn normal_cdf_f64(x: f64) -> f64 {
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for i in 1..100 {
                term *= x * x / (2 * i + 1) as f64;
                sum += term;
            }
            0.5 + density * sum
        } else {
            let a = x.abs();
            let tail = density / (1..200).rev().fold(a, |f, i| a + i as f64 / f);
            if x < 0.0 {
                tail
            } else {
                1.0 - tail
            }
        }
    }

    fn worst(
        from: f32,
        to: f32,
        f: impl Fn(Isa, &mut [f32], &[f32]),
        g: impl Fn(f64) -> f64,
        error: impl Fn(f64, f64) -> f64,
    ) -> f64 {
        let xs: Vec<f32> = (0..20_001).map(|i| from + (to - from) * (i as f32 / 20_000.0)).collect();
        let mut worst = 0.0f64;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut ys = vec![0.0; xs.len()];
            f(isa, &mut ys, &xs);
            for (&x, &y) in xs.iter().zip(&ys) {
                worst = worst.max(error(y as f64, g(x as f64)));
            }
        }
        worst
    }

    macro_rules! on_slices {
        ($f:path) => {
            |isa, ys: &mut [f32], xs: &[f32]| {
                dispatch!(isa, l => apply(l, ys, xs, #[inline(always)] |x| $f(l, x)))
            }
        };
    }

    #[inline(always)]
    fn apply<L: Lanes>(l: L, ys: &mut [f32], xs: &[f32], f: impl Fn(L::V) -> L::V) {
        for i in (0..xs.len()).step_by(L::N) {
            l.store(f(l.load(&xs[i..])), &mut ys[i..]);
        }
    }

    fn relative(got: f64, want: f64) -> f64 {
        (got - want).abs() / want.abs()
    }

    #[test]
    fn exp_is_accurate() {
        let worst = worst(-87.3, 88.3, on_slices!(exp), f64::exp, relative);
        assert!(worst < 2e-7, "{worst}");
    }

    #[test]
    fn exp_has_limits() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut ys = [0.0; 5];
            on_slices!(exp)(isa, &mut ys, &[f32::NEG_INFINITY, -200.0, 0.0, 1e9, f32::NAN]);
            assert_eq!(ys[..3], [0.0, 0.0, 1.0]);
            assert!(ys[3] > 2e38 && ys[3].is_finite());
            assert!(ys[4].is_nan());
        }
    }

    #[test]
    fn sigmoid_is_accurate() {
        let worst = worst(-80.0, 85.0, on_slices!(sigmoid), |x| 1.0 / (1.0 + (-x).exp()), relative);
        assert!(worst < 4e-7, "{worst}");
    }

    #[test]
    fn normal_cdf_is_accurate() {
        let absolute = |got: f64, want: f64| (got - want).abs();
        let all = worst(-12.0, 12.0, on_slices!(normal_cdf), normal_cdf_f64, absolute);
        assert!(all < 2e-7, "{all}");
        let tail = worst(-9.0, 0.0, on_slices!(normal_cdf), normal_cdf_f64, relative);
        assert!(tail < 1e-5, "{tail}");
    }
}
