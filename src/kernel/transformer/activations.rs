//! The memory of a forward and a backward pass.

use super::Shape;
use crate::kernel::element::Element;

/// What a block leaves for its backward pass.
#[derive(Debug, Clone)]
pub(super) struct Saved<E> {
    /// [rows, width], and 1 / deviation of each row.
    pub normal1: Vec<E>,
    pub rstd1: Vec<f32>,
    /// [rows, 3 * width].
    pub qkv: Vec<E>,
    /// Statistics of the softmax.
    pub lse: Vec<f32>,
    pub normal2: Vec<E>,
    pub rstd2: Vec<f32>,
    /// [rows, hidden]: before the activation; the backward pass leaves what came after it, and when that has been
    /// read, the gradients of a norm and of attention, and attention's output: at least [rows, 3 * width].
    pub hidden: Vec<E>,
}

/// What a forward pass keeps for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All that the backward pass needs.
    Everything,
    /// The input of each block; its forward pass runs again before its backward pass, a third more work for
    /// about `depth` times less memory.
    Inputs,
    /// Nothing: no backward pass follows.
    Nothing,
}

/// All memory that a stack needs for `batch` sequences of `tokens`, taken once.
#[derive(Debug, Clone)]
pub struct Activations<E> {
    pub(super) keep: Keep,
    pub(super) batch: usize,
    pub(super) tokens: usize,
    /// The residual stream, [batch * tokens, width]: tokens before the forward pass, output after it.
    pub x: Vec<f32>,
    /// Memory for its gradient, where the stream is still needed.
    pub(super) dx: Vec<f32>,
    /// One for each block where everything is kept, else one that all share.
    pub(super) saved: Vec<Saved<E>>,
    /// Inputs of all blocks, where they are kept: [depth, rows, width].
    pub(super) inputs: Vec<f32>,
    /// [rows, width]: output of a norm; in a backward pass the gradient of the stream as products take it.
    pub(super) rounded: Vec<E>,
    /// [rows, width]: output of a norm, where blocks are computed anew in a backward pass.
    pub(super) normed: Vec<E>,
    /// [rows, hidden or 3 * width]: output of attention, then after the activation; then gradients.
    pub(super) wide: Vec<E>,
}

/// See [`Activations::dx`].
pub(super) fn gradient<'a>(x: &'a mut [f32], dx: &'a mut [f32]) -> &'a mut [f32] {
    if dx.is_empty() {
        x
    } else {
        dx
    }
}

impl Keep {
    /// Blocks whose activations are in memory at a time.
    pub(super) fn blocks(self, shape: &Shape) -> usize {
        match self {
            Keep::Everything => shape.depth,
            Keep::Inputs | Keep::Nothing => shape.depth.min(1),
        }
    }

    /// Blocks whose inputs are in memory at a time.
    pub(super) fn inputs(self, shape: &Shape) -> usize {
        match self {
            Keep::Inputs => shape.depth,
            Keep::Everything | Keep::Nothing => 0,
        }
    }
}

impl<E: Element> Activations<E> {
    pub fn new(shape: &Shape, batch: usize, tokens: usize, keep: Keep) -> Self {
        let rows = batch * tokens;
        let narrow = || vec![E::default(); rows * shape.width];
        let saved = || Saved {
            normal1: narrow(),
            rstd1: vec![0.0; rows],
            qkv: vec![E::default(); 3 * rows * shape.width],
            lse: vec![0.0; shape.attention(batch, tokens).saved()],
            normal2: narrow(),
            rstd2: vec![0.0; rows],
            hidden: vec![E::default(); rows * Self::widest(shape)],
        };
        let anew = if keep == Keep::Inputs { rows * shape.width } else { 0 };
        Activations {
            keep,
            batch,
            tokens,
            x: vec![0.0; rows * shape.width],
            dx: vec![0.0; anew],
            saved: (0..keep.blocks(shape)).map(|_| saved()).collect(),
            inputs: vec![0.0; keep.inputs(shape) * rows * shape.width],
            rounded: narrow(),
            normed: vec![E::default(); anew],
            wide: vec![E::default(); rows * Self::widest(shape)],
        }
    }

    /// Bytes that [`new`](Self::new) takes.
    pub fn bytes(shape: &Shape, batch: usize, tokens: usize, keep: Keep) -> usize {
        let rows = batch * tokens;
        let element = size_of::<E>();
        let of_a_block = rows * (5 * shape.width + Self::widest(shape)) * element
            + (2 * rows + shape.attention(batch, tokens).saved()) * 4;
        let stream = rows * shape.width * 4;
        let narrow = rows * shape.width * element;
        let anew = if keep == Keep::Inputs { stream + narrow } else { 0 };
        let work = narrow + rows * Self::widest(shape) * element;
        keep.blocks(shape) * of_a_block + (1 + keep.inputs(shape)) * stream + work + anew
    }

    /// Numbers a row that [`Saved::hidden`] and `wide` have room for.
    fn widest(shape: &Shape) -> usize {
        shape.hidden.max(3 * shape.width)
    }

    /// The gradient of the residual stream: of the output before the backward pass, of the tokens after it. It lies
    /// where the stream is, unless blocks are computed anew.
    pub fn dx(&mut self) -> &mut [f32] {
        gradient(&mut self.x, &mut self.dx)
    }

    /// The gradient of the tokens after a backward pass, and room for as many numbers that is free then.
    pub fn dx_and_room(&mut self) -> (&mut [f32], &mut [E]) {
        (gradient(&mut self.x, &mut self.dx), &mut self.rounded)
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        let of_a_block = |s: &Saved<E>| {
            let elements = s.normal1.len() + s.qkv.len() + s.normal2.len() + s.hidden.len();
            elements * size_of::<E>() + (s.rstd1.len() + s.lse.len() + s.rstd2.len()) * 4
        };
        let work = self.rounded.len() + self.normed.len() + self.wide.len();
        self.saved.iter().map(of_a_block).sum::<usize>()
            + (self.x.len() + self.dx.len() + self.inputs.len()) * 4
            + work * size_of::<E>()
    }
}
