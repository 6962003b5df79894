//! Gradients of all parameters while a tape is run backward.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfdx::prelude::*;

use super::matrix::Matrix;
use crate::parameter::{Flat, Parameter, Ranges};

/// Gradients that nodes of a tape add to. They are there from [`put`](Self::put) to [`take`](Self::take).
#[derive(Debug)]
pub(crate) struct TapeGradients<E: Dtype, D: Storage<E>>(Arc<Mutex<Option<Flat<E, D>>>>);

impl<E: Dtype, D: Storage<E>> Clone for TapeGradients<E, D> {
    fn clone(&self) -> Self {
        TapeGradients(self.0.clone())
    }
}

impl<E: Dtype, D: Storage<E>> TapeGradients<E, D> {
    /// Nothing to add to yet.
    pub fn empty() -> Self {
        TapeGradients(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Flat<E, D>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, gradients: Flat<E, D>) {
        *self.lock() = Some(gradients);
    }

    pub fn take(&self) -> Flat<E, D> {
        self.lock().take().unwrap_or_else(|| unreachable!("a tape is run backward between put and take"))
    }

    /// Lets a node add its gradients.
    pub fn add<R>(&self, add: impl FnOnce(&mut Flat<E, D>) -> R) -> R {
        match &mut *self.lock() {
            Some(gradients) => add(gradients),
            None => unreachable!("a tape is run backward between put and take"),
        }
    }
}

/// The parameters of a model as tensors of the composed graph. Each is a leaf: when all that uses it has been run backward,
/// its gradient is added to those of all.
pub(super) struct Leaves<'a, E: Dtype, D: Storage<E>, T> {
    parameters: &'a [Parameter],
    masters: &'a Flat<E, D>,
    gradients: Option<&'a TapeGradients<E, D>>,
    /// Begins with the leaves, so that they come last.
    pub tape: T,
}

impl<'a, E: Dtype, D: Ranges<E>, T: Tape<E, D>> Leaves<'a, E, D, T> {
    /// `gradients` are those that are added to, of a tape that records.
    pub fn new(
        parameters: &'a [Parameter],
        masters: &'a Flat<E, D>,
        gradients: Option<&'a TapeGradients<E, D>>,
    ) -> Self {
        Leaves { parameters, masters, gradients, tape: T::default() }
    }

    /// The parameter of a name, where the model has one.
    pub fn find(&mut self, name: &str) -> Result<Option<Matrix<E, D>>, D::Err> {
        let Some(place) = self.parameters.iter().position(|parameter| parameter.name == name) else {
            return Ok(None);
        };
        let leaf = self.masters.tensor(place, self.parameters[place].matrix())?;
        if let Some(gradients) = self.gradients {
            let (gradients, ghost) = (gradients.clone(), leaf.ghost());
            self.tape.add_backward_op(move |entries| {
                let own = entries.get_or_alloc_mut(&ghost)?;
                gradients.add(|all| all.add(place, own))
            });
        }
        Ok(Some(leaf))
    }

    /// The parameter of a name that every model has.
    pub fn take(&mut self, name: &str) -> Result<Matrix<E, D>, D::Err> {
        let found = self.find(name)?;
        Ok(found.unwrap_or_else(|| unreachable!("the list of parameters has no {name}")))
    }
}
