//! Whole encoders on a machine: from pixels and ids to unit embeddings, and back to the gradients of all parameters. They
//! compute what the encoders of the processor do, composed of the operations beside; products are of
//! [`Bf16`](crate::kernel::element::Bf16).
//!
//! An encoder holds [copies](crate::kernel::cuda::copies) of its parameters, in the order in which its own list names
//! them, and arenas. A forward pass takes an arena, which is made in the first step and used again in every other; with
//! the pass that it leaves, the way back is taken. Images that are [sent ahead](incoming) arrive beside what is computed.

mod arena;
mod head;
pub mod image;
pub mod incoming;
pub mod text;
pub mod update;

use super::cuda::Machine;
use super::unit_norm::Length;
use arena::Purpose;

/// What both encoders do after their blocks: final norm, pooling, projection, unit length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSizes {
    pub embed_dim: usize,
    pub norm_eps: f32,
    pub length: Length,
}

/// A forward pass that remembers how to go back.
pub struct Pass<M: Machine> {
    purpose: Purpose,
    memory: M::Buffer<u8>,
    /// Which rows of a table were read, for the way back.
    ids: Vec<u32>,
    places: Vec<u32>,
}
