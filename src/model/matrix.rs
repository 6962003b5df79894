//! Types of the graph's tensors.

use dfdx::prelude::*;

/// Activations or a master: [rows, columns].
pub type Matrix<E, D, T = NoneTape> = Tensor<(usize, usize), E, D, T>;

/// Activations sample by sample: [batch, tokens, width].
pub(crate) type Sequences<E, D, T = NoneTape> = Tensor<(usize, usize, usize), E, D, T>;
