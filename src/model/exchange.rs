//! Weights in and out, as named tensors on the host.

use dfdx::prelude::*;

use super::error::ModelError;
use super::Flip;
use crate::parameter::{Mismatch, NamedTensor, ParameterSpec};

impl<E: Dtype, D: Device<E>> Flip<E, D> {
    /// Every parameter, copied to the host.
    pub fn export(&self) -> Vec<NamedTensor> {
        self.parameters().into_iter().map(|parameter| parameter.to_host()).collect()
    }

    /// Overwrites every parameter with the tensor of its name. Nothing is changed unless the tensors are
    /// exactly the parameters: no name too few or too many, every shape as it should be.
    pub fn import(&mut self, tensors: &[NamedTensor]) -> Result<(), ModelError> {
        let expected: Vec<_> = self.spec().iter().map(ParameterSpec::outline).collect();
        let tensors = Mismatch::pair(&expected, tensors).map_err(ModelError::Weights)?;
        for (parameter, tensor) in self.parameters_mut().into_iter().zip(tensors) {
            parameter.set(&tensor.data);
        }
        Ok(())
    }

    /// As [`import`](Self::import), of tensors of which one is in memory at a time: `there` are their names and shapes,
    /// and `read` gives the values of one by its place there.
    pub fn import_each<'a, F: From<ModelError>>(
        &mut self,
        there: impl Iterator<Item = (&'a str, Vec<usize>)>,
        mut read: impl FnMut(usize, &mut Vec<f32>) -> Result<(), F>,
    ) -> Result<(), F> {
        let expected: Vec<_> = self.spec().iter().map(ParameterSpec::outline).collect();
        let places = Mismatch::places(&expected, there).map_err(ModelError::Weights)?;
        let mut values = Vec::new();
        for (parameter, place) in self.parameters_mut().into_iter().zip(places) {
            read(place, &mut values)?;
            parameter.set(&values);
        }
        Ok(())
    }
}
