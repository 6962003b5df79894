//! Places of parameters by their names.

use std::collections::HashMap;

use crate::kernel::transformer::Scaled;
use crate::parameter::Parameter;

/// Places of the parameters of a list by their names.
pub(super) struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    pub fn new(parameters: &'a [Parameter]) -> Self {
        Names(parameters.iter().enumerate().map(|(place, parameter)| (&*parameter.name, place)).collect())
    }

    /// The place of a parameter, where the model has it.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    /// The place of a parameter that every model has.
    pub fn place(&self, name: &str) -> usize {
        self.find(name).unwrap_or_else(|| unreachable!("the list of parameters has no {name}"))
    }

    /// The norm of a name that every model has.
    pub fn norm(&self, name: &str) -> Scaled<usize> {
        Scaled { scale: self.place(&format!("{name}.scale")), shift: self.place(&format!("{name}.shift")) }
    }
}
