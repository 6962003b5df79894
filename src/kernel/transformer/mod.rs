//! A stack of pre-norm transformer blocks, forward and backward, as both encoders use it:
//!
//! ```text
//! x += out(attention(qkv(norm1(x))))
//! x += down(activation(up(norm2(x))))
//! ```
//!
//! `x` is the residual stream, [batch * tokens, width], in f32 and in place. Products are of `E`. What a block
//! saves for its backward pass is listed in [`Activations`]; parameter gradients are `+=`, one
//! slice a parameter in the order of [`Layout`].

mod activations;
mod backward;
pub mod cuda;
mod forward;
mod layout;
pub mod reference;

pub use activations::{Activations, Keep};
pub use layout::{Entry, Layout, Part};

use super::activation::Activation;
use super::attention::Attention;
use super::element::Element;
use super::gemm::weight::Weight;
use super::gemm::Packed;
use super::Cpu;

/// Sizes of a stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width inside the MLP.
    pub hidden: usize,
    pub activation: Activation,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Added to the variance inside the square root of LayerNorm.
    pub norm_eps: f32,
}

impl Shape {
    /// Attention over `batch` sequences of `tokens`.
    pub fn attention(&self, batch: usize, tokens: usize) -> Attention {
        let head = self.width / self.heads;
        Attention { batch, tokens, heads: self.heads, head, causal: self.causal }
    }
}

/// A linear layer as kernels read it.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a, E> {
    /// [in, out].
    pub weight: Weight<'a, E>,
    pub bias: &'a [f32],
}

/// A LayerNorm's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    pub scale: &'a [f32],
    pub shift: &'a [f32],
}

/// The parameters of one block.
#[derive(Debug, Clone, Copy)]
struct Block<'a, E> {
    norm1: Norm<'a>,
    qkv: Linear<'a, E>,
    out: Linear<'a, E>,
    norm2: Norm<'a>,
    up: Linear<'a, E>,
    down: Linear<'a, E>,
}

/// The parameters of all blocks, where they lie.
#[derive(Debug)]
pub struct Stack<'a, E> {
    shape: Shape,
    blocks: Vec<Block<'a, E>>,
}

impl<'a, E: Element> Stack<'a, E> {
    /// `vector` and `weight` say where a part of a block is.
    pub fn new(
        shape: Shape,
        vector: impl Fn(usize, Part) -> &'a [f32],
        weight: impl Fn(usize, Part) -> Weight<'a, E>,
    ) -> Self {
        let linear = |i, of, bias| Linear { weight: weight(i, of), bias: vector(i, bias) };
        let norm = |i, scale, shift| Norm { scale: vector(i, scale), shift: vector(i, shift) };
        let block = |i| Block {
            norm1: norm(i, Part::Norm1Scale, Part::Norm1Shift),
            qkv: linear(i, Part::QkvWeight, Part::QkvBias),
            out: linear(i, Part::OutWeight, Part::OutBias),
            norm2: norm(i, Part::Norm2Scale, Part::Norm2Shift),
            up: linear(i, Part::UpWeight, Part::UpBias),
            down: linear(i, Part::DownWeight, Part::DownBias),
        };
        Stack { blocks: (0..shape.depth).map(block).collect(), shape }
    }

    /// As [`new`](Self::new), of one buffer in which all lie as [`Layout`] says, and of a copy of each weight in order.
    pub fn of(shape: Shape, flat: &'a [f32], packed: &'a [Packed<E>]) -> Self {
        let layout = Layout::new(&shape);
        assert_eq!(flat.len(), layout.len(), "parameters of a stack");
        let weights = Part::ALL.into_iter().filter(|part| part.is_weight());
        let order: Vec<Part> = weights.collect();
        Stack::new(
            shape,
            |i, part| &flat[layout.range(i, part)],
            |i, part| {
                let at = order.iter().position(|&weight| weight == part).unwrap_or_default();
                Weight::packed(&packed[i * order.len() + at])
            },
        )
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// Copies of the weights in a buffer of all parameters, rounded and laid out, in order.
pub fn pack<E: Element>(cpu: &Cpu, shape: &Shape, flat: &[f32]) -> Vec<Packed<E>> {
    let layout = Layout::new(shape);
    let weights = layout.entries().iter().filter(|entry| entry.part.is_weight());
    let copy = |entry: &Entry| {
        let [k, n] = entry.shape;
        let mut packed = Packed::zeroed(cpu, k, n);
        packed.pack(cpu, &flat[entry.range.clone()]);
        packed
    };
    weights.map(copy).collect()
}
