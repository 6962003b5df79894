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
use super::gemm::weight::{Master, Weight};
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
#[derive(Debug, Clone)]
pub struct Linear<E> {
    /// [in, out].
    pub weight: Weight<E>,
    pub bias: Vec<f32>,
}

/// A LayerNorm's parameters.
#[derive(Debug, Clone)]
pub struct Norm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// The parameters of one block.
#[derive(Debug, Clone)]
struct Block<E> {
    norm1: Norm,
    qkv: Linear<E>,
    out: Linear<E>,
    norm2: Norm,
    up: Linear<E>,
    down: Linear<E>,
}

/// The parameters of all blocks, as products read them.
#[derive(Debug, Clone)]
pub struct Stack<E> {
    shape: Shape,
    layout: Layout,
    blocks: Vec<Block<E>>,
}

impl<E: Element> Stack<E> {
    /// Parameters that have yet to be loaded.
    pub fn new(shape: Shape) -> Self {
        let norm = || Norm { scale: vec![0.0; shape.width], shift: vec![0.0; shape.width] };
        let linear = |k, n| Linear { weight: Weight::new(k, n), bias: vec![0.0; n] };
        let block = || Block {
            norm1: norm(),
            qkv: linear(shape.width, 3 * shape.width),
            out: linear(shape.width, shape.width),
            norm2: norm(),
            up: linear(shape.width, shape.hidden),
            down: linear(shape.hidden, shape.width),
        };
        Stack { shape, layout: Layout::new(&shape), blocks: (0..shape.depth).map(|_| block()).collect() }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where each parameter is in a flat buffer of all.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Reads all parameters from a flat buffer.
    pub fn load(&mut self, cpu: &Cpu, flat: &[f32]) {
        assert_eq!(flat.len(), self.layout.len(), "parameters of a stack");
        for i in 0..self.blocks.len() {
            for part in Part::ALL {
                self.load_part(cpu, i, part, &flat[self.layout.range(i, part)]);
            }
        }
    }

    /// Reads one parameter. Weights are rounded and packed.
    pub fn load_part(&mut self, cpu: &Cpu, block: usize, part: Part, from: &[f32]) {
        let block = &mut self.blocks[block];
        match part {
            Part::Norm1Scale => block.norm1.scale.copy_from_slice(from),
            Part::Norm1Shift => block.norm1.shift.copy_from_slice(from),
            Part::QkvWeight => block.qkv.weight.pack(cpu, from),
            Part::QkvBias => block.qkv.bias.copy_from_slice(from),
            Part::OutWeight => block.out.weight.pack(cpu, from),
            Part::OutBias => block.out.bias.copy_from_slice(from),
            Part::Norm2Scale => block.norm2.scale.copy_from_slice(from),
            Part::Norm2Shift => block.norm2.shift.copy_from_slice(from),
            Part::UpWeight => block.up.weight.pack(cpu, from),
            Part::UpBias => block.up.bias.copy_from_slice(from),
            Part::DownWeight => block.down.weight.pack(cpu, from),
            Part::DownBias => block.down.bias.copy_from_slice(from),
        }
    }

    /// As [`load_part`](Self::load_part) of a weight, which products then read where it is. Of f32 products alone.
    pub fn lend_part(&mut self, block: usize, part: Part, master: Master) {
        match self.blocks[block].weight(part) {
            Some(weight) => weight.lend(master),
            None => unreachable!("{part:?} is no weight"),
        }
    }

    /// Gives back all weights that were lent; they have to be lent anew.
    pub fn release(&mut self) {
        for block in &mut self.blocks {
            Part::ALL.into_iter().for_each(|part| block.weight(part).into_iter().for_each(Weight::release));
        }
    }
}

impl<E> Block<E> {
    fn weight(&mut self, part: Part) -> Option<&mut Weight<E>> {
        match part {
            Part::QkvWeight => Some(&mut self.qkv.weight),
            Part::OutWeight => Some(&mut self.out.weight),
            Part::UpWeight => Some(&mut self.up.weight),
            Part::DownWeight => Some(&mut self.down.weight),
            _ => None,
        }
    }
}
