//! Named parameters. dfdx's own module traits need sizes known at compile time; a recipe's are not, so
//! the model is plain structs of these, and a walk over them serves optimizer and checkpoint.

use dfdx::prelude::*;

/// What weight decay and importers need to know of a parameter.
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

/// One trainable tensor. All masters have rank two so that one walk serves them all: a vector of n is
/// stored as [1, n]; `shape` is the logical shape, as checkpoints show it.
#[derive(Debug, Clone)]
pub struct Parameter<E: Dtype, D: Storage<E>> {
    /// Dotted path, for example `image.blocks.3.attention.qkv.weight`.
    pub name: String,
    pub role: Role,
    pub shape: Vec<usize>,
    pub master: Tensor<(usize, usize), E, D>,
}
