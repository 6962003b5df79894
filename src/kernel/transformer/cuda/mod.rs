//! The stack of blocks on a GPU, in [`Bf16`]: what [`super`] says, on the copies of its parameters that a machine holds.
//!
//! As on the CPU the activation is computed anew on the way back, and so are the outputs of the norms, from what they
//! saved; the output of attention is kept, as to compute it anew would be half of attention's forward pass. No pass takes
//! memory: all of it is one [`Room`](crate::kernel::cuda::room::Room).

mod activations;
mod backward;
mod forward;

pub use activations::Activations;

use super::{Part, Shape};
use crate::kernel::attention;
use crate::kernel::cuda::copies::{Copies, Reads};
use crate::kernel::cuda::{Machine, View};
use crate::kernel::element::Bf16;
use crate::kernel::gemm::cuda::Weight;

/// A linear layer whose output has numbers of B.
#[derive(Debug, Clone, Copy)]
struct Linear<'a, B> {
    weight: Weight<'a>,
    bias: View<'a, B>,
}

/// A LayerNorm's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    pub scale: View<'a, f32>,
    pub shift: View<'a, f32>,
}

/// The parameters of one block.
#[derive(Debug, Clone, Copy)]
struct Block<'a> {
    norm1: Norm<'a>,
    qkv: Linear<'a, Bf16>,
    out: Linear<'a, f32>,
    norm2: Norm<'a>,
    up: Linear<'a, Bf16>,
    down: Linear<'a, f32>,
}

/// A stack among the parameters of an encoder.
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    pub shape: Shape,
    /// The number of its first parameter among the copies. They stand in the order of the layout.
    pub first: usize,
}

/// Why a machine has no kernels for blocks of these sizes; `None` where it has.
pub fn lacking(shape: &Shape) -> Option<String> {
    let head = shape.width / shape.heads;
    let heads = attention::cuda::HEADS;
    if !heads.contains(&head) {
        return Some(format!("heads of a width in {heads:?}, not {head} (width / heads)"));
    }
    let even = shape.width.is_multiple_of(8) && shape.hidden.is_multiple_of(8);
    (!even).then(|| format!("widths that 8 divides, not {} and {}", shape.width, shape.hidden))
}

impl Stack {
    /// What is read of each parameter, and its length, in the order of the layout.
    pub fn reads(shape: &Shape) -> Vec<(Reads, usize)> {
        let layout = super::Layout::new(shape);
        let of_each = layout.entries().iter().map(|entry| {
            let reads = match entry.part {
                Part::QkvBias | Part::UpBias => Reads::Half,
                part if part.is_weight() => Reads::Half,
                _ => Reads::Float,
            };
            (reads, entry.range.len())
        });
        of_each.collect()
    }

    fn block<'a, M: Machine>(&self, machine: &M, copies: &'a Copies<M>, block: usize) -> Block<'a> {
        let at = |part: Part| self.first + block * Part::ALL.len() + part as usize;
        let half = |part| copies.half(machine, at(part));
        let float = |part| copies.float(machine, at(part));
        let (width, hidden) = (self.shape.width, self.shape.hidden);
        let weight = |part, k, n| Weight { values: half(part), k, n };
        Block {
            norm1: Norm { scale: float(Part::Norm1Scale), shift: float(Part::Norm1Shift) },
            qkv: Linear { weight: weight(Part::QkvWeight, width, 3 * width), bias: half(Part::QkvBias) },
            out: Linear { weight: weight(Part::OutWeight, width, width), bias: float(Part::OutBias) },
            norm2: Norm { scale: float(Part::Norm2Scale), shift: float(Part::Norm2Shift) },
            up: Linear { weight: weight(Part::UpWeight, width, hidden), bias: half(Part::UpBias) },
            down: Linear { weight: weight(Part::DownWeight, hidden, width), bias: float(Part::DownBias) },
        }
    }
}
