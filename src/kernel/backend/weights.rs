//! Parameters at the time of a pass, as a backend's kernels read them.

use super::sizes::Size;
use super::{Backend, Norm};
use crate::kernel::transformer::Scaled;
use crate::kernel::view::View;

/// Parameters by their places in the list of all.
#[derive(Debug)]
pub struct Weights<'a, B: Backend> {
    pub backend: &'a B,
    pub sizes: &'a [Size],
    /// None of those whose masters are elsewhere: weights alone, of which there are copies.
    pub masters: Vec<Option<View<'a, f32>>>,
    /// Of those that have one.
    pub copies: &'a [Option<B::Copy>],
}

impl<'a, B: Backend> Weights<'a, B> {
    /// The master of the parameter at a place.
    pub fn vector(&self, place: usize) -> View<'a, f32> {
        self.masters[place].unwrap_or_else(|| unreachable!("the master of parameter {place} is elsewhere"))
    }

    /// The weight at a place.
    pub fn weight(&self, place: usize) -> B::Weight<'a> {
        self.backend.weight(self.copies[place].as_ref(), self.masters[place], self.sizes[place])
    }

    /// The parameter at a place, rounded.
    pub fn rounded(&self, place: usize) -> B::Rounded<'a> {
        self.backend.rounded(self.copies[place].as_ref(), self.vector(place))
    }

    /// The norm whose parameters are at these places.
    pub fn norm(&self, places: Scaled<usize>, eps: f32) -> Norm<'a> {
        Norm { scale: self.vector(places.scale), shift: self.vector(places.shift), eps }
    }
}
