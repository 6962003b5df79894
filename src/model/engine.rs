//! Another way to compute the encoders and the loss than operation by operation: whole encoders at a time,
//! each one node on the tape. What they compute is what the composed graph computes.

use std::fmt;

use dfdx::prelude::*;

use super::agenda::Agenda;
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use crate::kernel::cuda::phase::Phase;
use crate::kernel::{adamw, Cpu as Kernels};
use crate::parameter::{Parameter, Role};

/// What a node does on the way back: adds the gradients of its inputs and parameters.
pub(crate) type Back<E, D> =
    Box<dyn FnOnce(&mut Gradients<E, D>) -> Result<(), <D as HasErr>::Err> + 'static>;

/// A node's result, and its way back where one was asked for.
pub(crate) struct Node<S: Shape, E: Dtype, D: Storage<E>> {
    pub value: Tensor<S, E, D>,
    pub back: Option<Back<E, D>>,
}

/// The first and second moments of every parameter.
pub(crate) struct Moments<'a, E: Dtype, D: Storage<E>> {
    pub first: &'a mut Gradients<E, D>,
    pub second: &'a mut Gradients<E, D>,
}

/// Encoders and loss as nodes. Parameters come in the order of the model's walk over the tower.
pub(crate) trait Engine<E: Dtype, D: Storage<E>>: fmt::Debug {
    /// The masters have changed, or are about to.
    fn masters_change(&self);

    /// Whether it computes with copies of the weights, so that their masters may be given up.
    fn copies_weights(&self) -> bool;

    /// Reads the parameters of both encoders anew. `supply` is called for every weight, in the order of the walk, with the
    /// values of its master, or with room for them where that was given up; what it leaves there is read.
    fn load(
        &self,
        images: &[&Parameter<E, D>],
        texts: &[&Parameter<E, D>],
        supply: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), D::Err>;

    /// Takes the gradient of a parameter out of `gradients`: its values, row-major; zeros where it has none.
    fn take_gradient(
        &self,
        parameter: &Parameter<E, D>,
        gradients: &mut Gradients<E, D>,
    ) -> Result<Vec<f32>, D::Err>;

    /// Makes values, row-major, the gradient of a parameter.
    fn put_gradient(
        &self,
        parameter: &Parameter<E, D>,
        gradients: &mut Gradients<E, D>,
        values: Vec<f32>,
    ) -> Result<(), D::Err>;

    /// Shows the values that `held` has for a parameter, row-major; zeros where it has none.
    fn show(
        &self,
        parameter: &Parameter<E, D>,
        held: &mut Gradients<E, D>,
        see: &mut dyn FnMut(&[f32]),
    ) -> Result<(), D::Err>;

    /// What the loss is computed on where its embeddings lie on the host.
    fn kernels(&self) -> &Kernels;

    /// Whether it wants to know of pictures before they are encoded.
    fn listens(&self) -> bool {
        false
    }

    /// The pictures of the coming step and of the one after it.
    fn announce(&self, _agenda: Agenda) {}

    /// Seconds of the phases since the last call, where the device takes them.
    fn lap(&self) -> Result<Vec<(Phase, f64)>, D::Err> {
        Ok(Vec::new())
    }

    /// Bytes held for activations, between two steps.
    fn arena_bytes(&self) -> usize;

    /// Unit embeddings [batch, embed_dim] of a checked input.
    fn images(
        &self,
        parameters: &[&Parameter<E, D>],
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), E, D>, D::Err>;

    /// Unit embeddings [batch, embed_dim] of a checked input.
    fn texts(
        &self,
        parameters: &[&Parameter<E, D>],
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), E, D>, D::Err>;

    /// The sum of the squares of the gradients of all parameters.
    fn square_sum(
        &self,
        parameters: &[&Parameter<E, D>],
        gradients: &mut Gradients<E, D>,
    ) -> Result<f64, D::Err>;

    /// One update of every parameter. The gradients are used up: their memory serves the next step.
    fn adamw(
        &self,
        parameters: Vec<&mut Parameter<E, D>>,
        moments: Moments<'_, E, D>,
        gradients: Gradients<E, D>,
        rule: &dyn Fn(Role) -> adamw::AdamW,
    ) -> Result<(), D::Err>;

    /// The loss of pairs of unit embeddings [n, embed_dim]. `scale` is the logit scale as the forward pass
    /// uses it; its parameter gets a gradient where `learning`.
    fn loss(
        &self,
        images: &Matrix<E, D>,
        texts: &Matrix<E, D>,
        logit_scale: &Parameter<E, D>,
        scale: f64,
        learning: bool,
    ) -> Result<Node<(), E, D>, D::Err>;
}

impl<S: Shape, E: Dtype, D: Storage<E>> Node<S, E, D> {
    /// On a tape of its own, or on none.
    pub fn taped<T: Tape<E, D>>(self) -> Tensor<S, E, D, T> {
        self.on(T::default())
    }

    /// On the tape of its inputs.
    pub fn on<T: Tape<E, D>>(self, mut tape: T) -> Tensor<S, E, D, T> {
        if let Some(back) = self.back {
            tape.add_backward_op(back);
        }
        self.value.put_tape(tape)
    }
}
