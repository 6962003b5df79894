//! The two layers everything is made of. Activations are matrices [rows, width], a row a token.

use dfdx::prelude::*;

use super::gradients::Leaves;
pub use super::matrix::Matrix;
pub(crate) use super::matrix::Sequences;
use crate::parameter::Ranges;

/// y = x W + b, W [inputs, outputs].
#[derive(Debug, Clone)]
pub(crate) struct Linear<E: Dtype, D: Storage<E>> {
    pub weight: Matrix<E, D>,
    pub bias: Option<Matrix<E, D>>,
}

/// Zero mean and unit variance along the width, then a learned scale and shift.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm<E: Dtype, D: Storage<E>> {
    scale: Matrix<E, D>,
    shift: Matrix<E, D>,
    /// Added to the variance inside the square root.
    eps: f64,
}

impl<E: Dtype, D: Ranges<E>> Linear<E, D> {
    pub fn new<T: Tape<E, D>>(leaves: &mut Leaves<E, D, T>, name: &str) -> Result<Self, D::Err> {
        let weight = leaves.take(&format!("{name}.weight"))?;
        Ok(Linear { weight, bias: leaves.find(&format!("{name}.bias"))? })
    }

    /// The projection of a tower that has one.
    pub fn projection<T: Tape<E, D>>(leaves: &mut Leaves<E, D, T>, tower: &str) -> Result<Self, D::Err> {
        let found = Self::find_projection(leaves, tower)?;
        Ok(found.unwrap_or_else(|| unreachable!("the list of parameters has no {tower}.projection")))
    }

    /// The projection of a tower, where it has one.
    pub fn find_projection<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        tower: &str,
    ) -> Result<Option<Self>, D::Err> {
        let Some(weight) = leaves.find(&format!("{tower}.projection"))? else { return Ok(None) };
        Ok(Some(Linear { weight, bias: leaves.find(&format!("{tower}.projection_bias"))? }))
    }

    /// [rows, inputs] -> [rows, outputs].
    pub fn forward<T: Tape<E, D>>(&self, x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
        let y = x.try_matmul(self.weight.clone())?;
        match &self.bias {
            Some(bias) => {
                let bias = rows_of(bias.clone(), y.shape().0)?;
                y.try_add(bias)
            }
            None => Ok(y),
        }
    }
}

impl<E: Dtype, D: Ranges<E>> LayerNorm<E, D> {
    /// The norm of a name, where the model has one.
    pub fn find<T: Tape<E, D>>(
        leaves: &mut Leaves<E, D, T>,
        name: &str,
        eps: f64,
    ) -> Result<Option<Self>, D::Err> {
        let Some(scale) = leaves.find(&format!("{name}.scale"))? else { return Ok(None) };
        Ok(Some(LayerNorm { scale, shift: leaves.take(&format!("{name}.shift"))?, eps }))
    }

    /// The norm of a name that every model has.
    pub fn new<T: Tape<E, D>>(leaves: &mut Leaves<E, D, T>, name: &str, eps: f64) -> Result<Self, D::Err> {
        let found = Self::find(leaves, name, eps)?;
        Ok(found.unwrap_or_else(|| unreachable!("the list of parameters has no {name}")))
    }

    /// [rows, width] -> [rows, width].
    pub fn forward<T: Tape<E, D>>(&self, x: Matrix<E, D, T>) -> Result<Matrix<E, D, T>, D::Err> {
        layer_norm(x, self.scale.clone(), self.shift.clone(), self.eps)
    }
}

/// Rows of `x` [rows, width] brought to zero mean and unit (biased) variance, then scaled and shifted by
/// `scale` and `shift`, both [1, width]. `eps` is added to the variance inside the square root.
pub fn layer_norm<E: Dtype, D: Device<E>, T: Tape<E, D>>(
    x: Matrix<E, D, T>,
    scale: Matrix<E, D>,
    shift: Matrix<E, D>,
    eps: f64,
) -> Result<Matrix<E, D, T>, D::Err> {
    let rows = x.shape().0;
    let (scale, shift) = (rows_of(scale, rows)?, rows_of(shift, rows)?);
    x.try_normalize::<Axis<1>>(eps)?.try_mul(scale)?.try_add(shift)
}

/// The vector [1, columns] seen as `rows` equal rows; nothing is copied.
pub(crate) fn rows_of<E: Dtype, D: Device<E>, T: Tape<E, D>>(
    vector: Matrix<E, D, T>,
    rows: usize,
) -> Result<Matrix<E, D, T>, D::Err> {
    let columns = vector.shape().1;
    vector.try_reshape_like(&(columns,))?.try_broadcast_like::<_, Axis<0>>(&(rows, columns))
}
