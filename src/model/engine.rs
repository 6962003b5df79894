//! Another way to compute the encoders and the loss than operation by operation: whole encoders at a time,
//! each one node on the tape. What they compute is what the composed graph computes.

use std::fmt;

use dfdx::prelude::*;

use super::gradients::TapeGradients;
use super::input::{ImageInput, TextInput};
use super::layer::Matrix;
use super::prefetch::Prefetch;
use crate::kernel::cuda::phase::Phase;
use crate::kernel::{adamw, Cpu as Kernels};
use crate::parameter::{Flat, Role};

/// The backward pass of a node: reads the gradient of its result and adds those of its inputs, and of its parameters.
pub(crate) type Back<E, D> =
    Box<dyn FnOnce(&mut Gradients<E, D>, &mut Flat<E, D>) -> Result<(), <D as HasErr>::Err> + 'static>;

/// Embeddings, and features [batch, width] on the host.
pub(crate) type WithFeatures<E, D> = Result<(Matrix<E, D>, Vec<f32>), <D as HasErr>::Err>;

/// A node's result, and its backward pass where one was asked for.
pub(crate) struct Node<S: Shape, E: Dtype, D: Storage<E>> {
    pub value: Tensor<S, E, D>,
    pub back: Option<Back<E, D>>,
}

/// The logit scale as the forward pass uses it, and whether its parameter gets a gradient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogitScale {
    pub value: f64,
    pub learns: bool,
}

/// An update of those parameters whose moments there are.
pub(crate) struct Update<'a, E: Dtype, D: Storage<E>> {
    pub masters: &'a mut Flat<E, D>,
    /// First and second.
    pub moments: &'a mut [Flat<E, D>; 2],
    /// Used up: zeros are left.
    pub gradients: &'a mut Flat<E, D>,
    pub rule: &'a dyn Fn(Role) -> adamw::AdamW,
}

/// Encoders and loss as nodes.
pub(crate) trait Engine<E: Dtype, D: Storage<E>>: fmt::Debug + Send + Sync {
    /// The masters have changed, or are about to.
    fn masters_change(&self);

    /// True if it computes with copies of the weights, so that their masters may be elsewhere.
    fn copies_weights(&self) -> bool;

    /// Copies those masters that are here.
    fn load(&self, masters: &Flat<E, D>) -> Result<(), D::Err>;

    /// Makes values the copy of the weight at a place of the list, whose master is elsewhere.
    fn copy_weight(&self, place: usize, values: &[f32]) -> Result<(), D::Err>;

    /// Kernels of the host, for a loss whose embeddings lie there.
    fn kernels(&self) -> &Kernels;

    /// True if it wants to know of images before they are encoded.
    fn prefetches(&self) -> bool {
        false
    }

    /// The images of the coming step and of the one after it.
    fn prefetch(&self, _agenda: Prefetch) {}

    /// Seconds of the phases since the last call, where the device takes them.
    fn lap(&self) -> Result<Vec<(Phase, f64)>, D::Err> {
        Ok(Vec::new())
    }

    /// Bytes held for activations, between two steps.
    fn arena_bytes(&self) -> usize;

    /// Unit embeddings [batch, embed_dim] of a checked input.
    fn images(
        &self,
        masters: &Flat<E, D>,
        input: &ImageInput,
        record: bool,
    ) -> Result<Node<(usize, usize), E, D>, D::Err>;

    /// Unit embeddings [batch, embed_dim] of a checked input, and what is projected to them, [batch, width], on the host.
    fn image_features(&self, masters: &Flat<E, D>, input: &ImageInput) -> WithFeatures<E, D>;

    /// Unit embeddings [batch, embed_dim] of a checked input.
    fn texts(
        &self,
        masters: &Flat<E, D>,
        input: &TextInput,
        record: bool,
    ) -> Result<Node<(usize, usize), E, D>, D::Err>;

    /// The sum of the squares of the gradients at these places of the list.
    fn square_sum(&self, gradients: &Flat<E, D>, places: &[usize]) -> Result<f64, D::Err>;

    /// One update.
    fn adamw(&self, update: Update<'_, E, D>) -> Result<(), D::Err>;

    /// The loss of pairs of unit embeddings [n, embed_dim].
    fn loss(
        &self,
        images: &Matrix<E, D>,
        texts: &Matrix<E, D>,
        logit_scale: LogitScale,
    ) -> Result<Node<(), E, D>, D::Err>;
}

impl<S: Shape, E: Dtype, D: Storage<E>> Node<S, E, D> {
    /// On the tape of its inputs. Parameters have their gradients added to `gradients`.
    pub fn on<T: Tape<E, D>>(
        self,
        mut tape: T,
        gradients: Option<&TapeGradients<E, D>>,
    ) -> Tensor<S, E, D, T> {
        if let (Some(back), Some(gradients)) = (self.back, gradients.cloned()) {
            tape.add_backward_op(move |entries| gradients.add(|all| back(entries, all)));
        }
        self.value.put_tape(tape)
    }
}
