//! The non-linearity of the MLP.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use dfdx::prelude::*;

use super::config::Activation;
use super::layer::Matrix;
use crate::parameter::rounded;

impl Activation {
    /// Element by element; recorded where `x` has a tape.
    pub fn forward<E: Dtype, D: Device<E>, T: Tape<E, D>>(
        self,
        x: Matrix<E, D, T>,
    ) -> Result<Matrix<E, D, T>, D::Err> {
        match self {
            Activation::GeluTanh => gelu_tanh(x),
            Activation::GeluExact => gelu_exact(x),
            Activation::QuickGelu => {
                let gate = x.retaped::<T>().try_mul(rounded::<E>(1.702))?.try_sigmoid()?;
                x.try_mul(gate)
            }
        }
    }
}

/// 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x sigmoid(2u): the same function,
/// and on a CPU dfdx's sigmoid takes a fraction of the time of its tanh.
fn gelu_tanh<E: Dtype, D: Device<E>, T: Tape<E, D>>(x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
    let twice_root = 2.0 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let cubic = x.retaped::<T>().try_square()?.try_mul(rounded::<E>(0.044715 * twice_root))?;
    let gate = cubic.try_add(rounded::<E>(twice_root))?.try_mul(x.retaped::<T>())?.try_sigmoid()?;
    x.try_mul(gate)
}

/// x Phi(x), Phi the normal distribution function.
///
/// dfdx's `accurate_gelu` has the right value but, as of 0.13, a backward pass that is off by a factor in
/// the density. So value and slope Phi(x) + x phi(x) are computed off the tape, and what is recorded is the
/// tangent x slope + (value - x slope): the same value, and the right gradient.
fn gelu_exact<E: Dtype, D: Device<E>, T: Tape<E, D>>(x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
    let at = x.retaped::<NoneTape>();
    let value = at.clone().try_accurate_gelu()?;
    // 0/0 where x is 0, and there Phi is one half.
    let distribution = value.clone().try_div(at.clone())?.try_nans_to(0.5)?;
    let inverse_root_two_pi = rounded::<E>(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2);
    let density =
        at.clone().try_square()?.try_mul(rounded::<E>(-0.5))?.try_exp()?.try_mul(inverse_root_two_pi)?;
    let slope = distribution.try_add(density.try_mul(at.clone())?)?;
    let offset = value.try_sub(at.try_mul(slope.clone())?)?;
    x.try_mul(slope)?.try_add(offset)
}
