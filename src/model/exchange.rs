//! Weights in and out, as named tensors on the host.

use dfdx::prelude::*;

use super::error::ModelError;
use super::Flip;
use crate::parameter::{Mismatch, NamedTensor, Parameter, Ranges};

impl<E: Dtype, D: Ranges<E>> Flip<E, D> {
    /// Every parameter, copied to the host.
    ///
    /// # Errors
    /// The device fails.
    pub fn export(&self) -> Result<Vec<NamedTensor>, ModelError> {
        let tensor = |(place, parameter): (usize, &Parameter)| {
            let (name, shape) = parameter.outline();
            let data = self.masters().read_f32(place).map_err(ModelError::device)?;
            Ok(NamedTensor { name, shape, data })
        };
        self.parameters().iter().enumerate().map(tensor).collect()
    }

    /// Overwrites every parameter with the tensor of its name. Nothing is changed unless the tensors are
    /// exactly the parameters: no name too few or too many, every shape as it should be.
    pub fn import(&mut self, tensors: &[NamedTensor]) -> Result<(), ModelError> {
        let expected: Vec<_> = self.parameters().iter().map(Parameter::outline).collect();
        let tensors = Mismatch::pair(&expected, tensors).map_err(ModelError::Weights)?;
        let masters = self.masters_mut();
        let mut written = tensors.into_iter().enumerate();
        written
            .try_for_each(|(place, tensor)| masters.write_f32(place, &tensor.data))
            .map_err(ModelError::device)
    }

    /// As [`import`](Self::import), of tensors of which one is in memory at a time: `there` are their names and shapes,
    /// and `read` gives the values of one by its place there.
    pub fn import_each<'a, F: From<ModelError>>(
        &mut self,
        there: impl Iterator<Item = (&'a str, Vec<usize>)>,
        mut read: impl FnMut(usize, &mut Vec<f32>) -> Result<(), F>,
    ) -> Result<(), F> {
        let expected: Vec<_> = self.parameters().iter().map(Parameter::outline).collect();
        let places = Mismatch::places(&expected, there).map_err(ModelError::Weights)?;
        let mut values = Vec::new();
        for (place, from) in places.into_iter().enumerate() {
            read(from, &mut values)?;
            self.masters_mut().write_f32(place, &values).map_err(ModelError::device)?;
        }
        Ok(())
    }
}
