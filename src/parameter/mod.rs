//! The parameters of a model: a list of names, kinds and sizes, and their values, which lie one behind the other in one
//! buffer for each tower. dfdx's own module traits need sizes known at compile time; a recipe's are not.

mod flat;
mod ranges;
mod tensors;

use dfdx::prelude::*;

pub use flat::{Flat, Layout};
pub use ranges::{Ranges, Values};
pub use tensors::{Mismatch, NamedTensor};

/// Kind of a parameter, which weight decay and importers need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A matrix: decayed.
    Weight,
    /// A bias: not decayed.
    Bias,
    /// LayerNorm scale or shift: not decayed.
    Norm,
    /// Learned positions: not decayed.
    Position,
    /// Token embedding and class token: decayed by the official filter.
    Token,
    /// The logit scale: decayed by the official filter (its name is not exactly `scale`).
    LogitScale,
}

impl Role {
    /// The decay filter of the official code: everything but biases, norm parameters and positions.
    pub fn decays(self) -> bool {
        matches!(self, Role::Weight | Role::Token | Role::LogitScale)
    }
}

/// The encoder that a parameter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tower {
    Image,
    Text,
    /// Neither: the logit scale and the logit bias.
    Loss,
}

impl Tower {
    /// All, in the order of the list.
    pub const ALL: [Tower; 3] = [Tower::Image, Tower::Text, Tower::Loss];
}

/// The distribution of a parameter's first values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform from minus `bound` to `bound`.
    Uniform {
        bound: f64,
    },
    /// Normal around zero.
    Normal {
        deviation: f64,
    },
    Constant(f64),
}

/// Name, kind and size of a parameter: an entry of the list that a model is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Dotted path, for example `image.blocks.3.attention.qkv.weight`.
    pub name: String,
    pub tower: Tower,
    pub role: Role,
    pub shape: Vec<usize>,
    pub init: Init,
    /// Kernels that compute in bfloat16 may read it rounded: it is multiplied by, becomes a token, or is added to what is rounded
    /// itself.
    pub rounded: bool,
}

impl Parameter {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        count(&self.shape)
    }

    /// True if it holds no number at all; a checked model has no such parameter.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows and columns; a vector of n is [1, n].
    pub fn matrix(&self) -> (usize, usize) {
        let last = self.shape.last().copied().unwrap_or(1);
        (self.len() / last, last)
    }

    /// Name and shape, by which its tensors are known.
    pub fn outline(&self) -> (String, Vec<usize>) {
        (self.name.clone(), self.shape.clone())
    }
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The nearest `E` to `value`.
pub(crate) fn rounded<E: Dtype>(value: f64) -> E {
    E::from_f64(value).expect("the dtypes with a Device, f32 and f64, convert from every f64")
}

/// `value` in double precision.
pub(crate) fn widened<E: Dtype>(value: E) -> f64 {
    value.to_f64().expect("the dtypes with a Device, f32 and f64, convert to f64")
}

/// A tensor's values on the host, row-major, in single precision.
pub(crate) fn host_f32<S: Shape, E: Dtype, D: Storage<E>>(tensor: &Tensor<S, E, D>) -> Vec<f32> {
    tensor.as_vec().into_iter().map(|x| widened(x) as f32).collect()
}
