//! The length of the gradient over all parameters together, and its limit.

use dfdx::prelude::*;

use crate::parameter::{blend, widened, Parameter};

/// The Euclidean norm of all gradients together. Squares are summed row by row on the device and then in
/// double precision.
pub fn global_norm<E: Dtype, D: Device<E>>(
    parameters: &[&Parameter<E, D>],
    gradients: &mut Gradients<E, D>,
) -> Result<f64, D::Err> {
    let mut sum = 0.0;
    for parameter in parameters {
        gradients.try_alloc_for(&parameter.master)?;
        let squares = gradients.get(&parameter.master).try_square()?.try_sum::<(usize,), Axis<1>>()?;
        sum += squares.as_vec().into_iter().map(widened).sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// Scales gradients of global norm `norm` down to `max`, where `norm` is larger.
pub fn clip_global_norm<E: Dtype, D: Device<E>>(
    parameters: &[&Parameter<E, D>],
    gradients: &mut Gradients<E, D>,
    norm: f64,
    max: f64,
) -> Result<(), D::Err> {
    if norm <= max {
        return Ok(());
    }
    for parameter in parameters {
        let nothing = parameter.master.device().try_zeros_like(&parameter.master)?;
        blend(gradients, parameter, max / norm, nothing)?;
    }
    Ok(())
}
