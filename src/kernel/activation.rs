//! The non-linearity of the MLP and its slope. Reference: [`Activation::value_and_slope`].

pub mod cuda;

use super::lanes::Lanes;
use super::math::{exp, normal_cdf, sigmoid};

/// A non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), Hendrycks and Gimpel, arXiv 1606.08415.
    GeluTanh,
    /// x Phi(x).
    GeluExact,
    /// x sigmoid(1.702 x).
    QuickGelu,
}

/// sqrt(2 / pi)
const ROOT: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
const QUICK: f32 = 1.702;
const FAR: f32 = 1000.0;

/// A non-linearity at a point.
pub struct Curve<V> {
    pub value: V,
    pub slope: V,
}

impl<V: Copy> Curve<V> {
    /// Value and slope share their transcendental part; an unused half costs nothing.
    #[inline(always)]
    pub fn of<L: Lanes<V = V>>(l: L, activation: Activation, x: V) -> Curve<V> {
        // Further out the curve is a line; its parts would overflow.
        let (value_at, x) = (l.max(l.splat(-FAR), x), l.max(l.splat(-FAR), l.min(l.splat(FAR), x)));
        let curve = Self::near(l, activation, x);
        Curve { value: l.mul(value_at, curve.value), slope: curve.slope }
    }

    /// The factor on x, and the slope, for |x| <= FAR.
    #[inline(always)]
    fn near<L: Lanes<V = V>>(l: L, activation: Activation, x: V) -> Curve<V> {
        match activation {
            Activation::GeluTanh => {
                // (1 + tanh u) / 2 = sigmoid(2u).
                let square = l.mul(x, x);
                let z = l.mul(x, l.fma(square, l.splat(2.0 * ROOT * CUBIC), l.splat(2.0 * ROOT)));
                let dz = l.fma(square, l.splat(6.0 * ROOT * CUBIC), l.splat(2.0 * ROOT));
                Self::gated(l, x, z, dz)
            }
            Activation::QuickGelu => Self::gated(l, x, l.mul(x, l.splat(QUICK)), l.splat(QUICK)),
            Activation::GeluExact => {
                let phi = normal_cdf(l, x);
                let density = exp(l, l.mul(l.mul(x, x), l.splat(-0.5)));
                // 1 / sqrt(2 pi)
                let slope = l.fma(l.mul(x, density), l.splat(0.398_942_3), phi);
                Curve { value: phi, slope }
            }
        }
    }

    /// x sigmoid(z) for a z of slope dz.
    #[inline(always)]
    fn gated<L: Lanes<V = V>>(l: L, x: V, z: V, dz: V) -> Curve<V> {
        let s = sigmoid(l, z);
        let ds = l.mul(l.mul(s, l.sub(l.splat(1.0), s)), dz);
        Curve { value: s, slope: l.fma(x, ds, s) }
    }
}

impl Activation {
    /// The reference, in double precision, without an approximation of its own.
    pub fn value_and_slope(self, x: f64) -> (f64, f64) {
        let gated = |z: f64, dz: f64| {
            let s = 1.0 / (1.0 + (-z).exp());
            (x * s, s + x * s * (1.0 - s) * dz)
        };
        match self {
            Activation::GeluTanh => {
                let root = (2.0 / std::f64::consts::PI).sqrt();
                gated(2.0 * root * (x + 0.044715 * x * x * x), 2.0 * root * (1.0 + 3.0 * 0.044715 * x * x))
            }
            Activation::QuickGelu => gated(1.702 * x, 1.702),
            Activation::GeluExact => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                // Simpson's rule from the nearer tail; 40 is as good as infinity.
                let (a, n) = (-x.abs(), 4000);
                let h = (a + 40.0) / n as f64;
                let f = |t: f64| (-0.5 * t * t).exp();
                let sum: f64 = (0..n)
                    .map(|i| -40.0 + i as f64 * h)
                    .map(|t| f(t) + 4.0 * f(t + 0.5 * h) + f(t + h))
                    .sum();
                let tail = sum * h / 6.0 / (2.0 * std::f64::consts::PI).sqrt();
                let phi = if x < 0.0 { tail } else { 1.0 - tail };
                (x * phi, phi + x * density)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::isa::{dispatch, Isa};

    #[test]
    fn value_and_slope_match_double_precision() {
        let xs: Vec<f32> = (-1200..=1200).map(|i| i as f32 / 100.0).chain([-1e30, -300.0, 300.0]).collect();
        for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu] {
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                for &x in &xs {
                    let (mut y, mut dy) = ([0.0], [0.0]);
                    dispatch!(isa, l => {
                        let curve = Curve::of(l, activation, l.splat(x));
                        l.store(curve.value, &mut y);
                        l.store(curve.slope, &mut dy);
                    });
                    let (want, slope) = activation.value_and_slope(x as f64);
                    let tolerance = 1e-6 * (x.abs() as f64).clamp(1.0, 300.0);
                    assert!(
                        (y[0] as f64 - want).abs() <= tolerance,
                        "{activation:?} {isa:?} {x}: {} {want}",
                        y[0]
                    );
                    assert!(
                        (dy[0] as f64 - slope).abs() <= 2e-6,
                        "{activation:?}' {isa:?} {x}: {} {slope}",
                        dy[0]
                    );
                }
            }
        }
    }

    #[test]
    fn slopes_match_finite_differences() {
        for activation in [Activation::GeluTanh, Activation::GeluExact, Activation::QuickGelu] {
            for i in -60..60 {
                let (x, h) = (i as f64 / 10.0, 1e-5);
                let value = |x| activation.value_and_slope(x).0;
                let numeric = (value(x + h) - value(x - h)) / (2.0 * h);
                assert!((numeric - activation.value_and_slope(x).1).abs() < 1e-8, "{activation:?} at {x}");
            }
        }
    }
}
