//! Weights in and out, as named tensors on the host.

use dfdx::prelude::*;

use super::error::ModelError;
use super::Flip;
use crate::parameter::{Mismatch, NamedTensor};

impl<E: Dtype, D: Device<E>> Flip<E, D> {
    /// Every parameter, copied to the host.
    pub fn export(&self) -> Vec<NamedTensor> {
        self.parameters().into_iter().map(|parameter| parameter.to_host()).collect()
    }

    /// Overwrites every parameter with the tensor of its name. Nothing is changed unless the tensors are
    /// exactly the parameters: no name too few or too many, every shape as it should be.
    pub fn import(&mut self, tensors: &[NamedTensor]) -> Result<(), ModelError> {
        let expected: Vec<(String, Vec<usize>)> =
            self.parameters().into_iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
        let tensors = Mismatch::pair(&expected, tensors).map_err(ModelError::Weights)?;
        for (parameter, tensor) in self.parameters_mut().into_iter().zip(tensors) {
            parameter.set(&tensor.data);
        }
        Ok(())
    }
}
