//! The memory of a forward and a backward pass.

use super::Shape;
use crate::kernel::arena::{Arena, ALIGNMENT};
use crate::kernel::backend::{Needs, SavedNorm, Widths};
use crate::kernel::view::{Number, ViewMut};

/// Values that a block leaves for its backward pass.
#[derive(Debug)]
pub(super) struct Saved<'a, E> {
    pub norm1: SavedNorm<'a, E>,
    /// [rows, 3 * width].
    pub qkv: ViewMut<'a, E>,
    /// Statistics of the softmax.
    pub lse: ViewMut<'a, f32>,
    /// [rows, width]: output of attention, where the backend keeps it.
    pub mixed: ViewMut<'a, E>,
    pub norm2: SavedNorm<'a, E>,
    /// [rows, hidden]: before the activation; the backward pass leaves what came after it, and when that has been
    /// read, the gradients of a norm and of attention, and attention's output where it was not kept ([`Free`]).
    pub hidden: ViewMut<'a, E>,
}

/// Values that a forward pass keeps for the backward pass.
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

/// All memory that a stack needs for `batch` sequences of `tokens`.
#[derive(Debug)]
pub struct Activations<'a, E> {
    pub(super) keep: Keep,
    pub(super) batch: usize,
    pub(super) tokens: usize,
    /// The residual stream, [batch * tokens, width]: tokens before the forward pass, output after it.
    pub x: ViewMut<'a, f32>,
    /// Memory for its gradient, where the stream is still needed.
    dx: ViewMut<'a, f32>,
    /// One for each block where everything is kept, else one that all share.
    pub(super) saved: Vec<Saved<'a, E>>,
    /// Inputs of all blocks, where they are kept: [depth, rows, width].
    pub(super) inputs: ViewMut<'a, f32>,
    /// [rows, width]: output of a norm; in a backward pass the gradient of the stream as products take it.
    pub rounded: ViewMut<'a, E>,
    /// [rows, width]: output of a norm, where blocks are computed anew in a backward pass.
    pub(super) normed: ViewMut<'a, E>,
    /// [rows, hidden or 3 * width]: output of attention, then after the activation; then gradients. Before and after a pass it is
    /// free for other use.
    pub wide: ViewMut<'a, E>,
    /// Scratch memory of a backward pass.
    pub scratch: ViewMut<'a, f32>,
}

impl Keep {
    /// Blocks whose activations are in memory at a time.
    fn blocks(self, shape: &Shape) -> usize {
        match self {
            Keep::Everything => shape.depth,
            Keep::Inputs | Keep::Nothing => shape.depth.min(1),
        }
    }

    /// Blocks whose inputs are in memory at a time.
    fn inputs(self, shape: &Shape) -> usize {
        match self {
            Keep::Inputs => shape.depth,
            Keep::Everything | Keep::Nothing => 0,
        }
    }
}

impl<'a, E: Number> Activations<'a, E> {
    /// Takes them from an arena.
    pub fn take(
        arena: &mut Arena<'a>,
        needs: Needs,
        shape: &Shape,
        batch: usize,
        tokens: usize,
        keep: Keep,
    ) -> Self {
        let (rows, width) = (batch * tokens, shape.width);
        let statistics = shape.attention(batch, tokens).saved();
        let widest = shape.hidden.max(3 * width);
        let parts = if needs.keeps_attention { 2 } else { 3 };
        let saved = |arena: &mut Arena<'a>| Saved {
            norm1: SavedNorm::take(arena, rows, width),
            qkv: arena.take(3 * rows * width),
            lse: arena.take(statistics),
            mixed: arena.take(if needs.keeps_attention { rows * width } else { 0 }),
            norm2: SavedNorm::take(arena, rows, width),
            hidden: arena.take((parts * aligned::<E>(rows * width)).max(rows * shape.hidden)),
        };
        let anew = if keep == Keep::Inputs { rows * width } else { 0 };
        let scratch = match keep {
            Keep::Nothing => 0,
            Keep::Everything | Keep::Inputs => (needs.scratch)(Widths { rows, width, widest, statistics }),
        };
        Activations {
            keep,
            batch,
            tokens,
            x: arena.take(rows * width),
            dx: arena.take(anew),
            saved: (0..keep.blocks(shape)).map(|_| saved(arena)).collect(),
            inputs: arena.take(keep.inputs(shape) * rows * width),
            rounded: arena.take(rows * width),
            normed: arena.take(anew),
            wide: arena.take(rows * widest),
            scratch: arena.take(scratch),
        }
    }

    /// Bytes of the arena that [`take`](Self::take) takes.
    pub fn bytes(needs: Needs, shape: &Shape, batch: usize, tokens: usize, keep: Keep) -> usize {
        Arena::measure(|arena| Activations::<E>::take(arena, needs, shape, batch, tokens, keep))
    }

    /// Memory of a backward pass.
    pub fn backward(&mut self) -> Backward<'_, E> {
        let Activations { x, dx, rounded, wide, scratch, .. } = self;
        let dx = if dx.is_empty() { x.reborrow() } else { dx.reborrow() };
        let (rounded, wide, scratch) = (rounded.reborrow(), wide.reborrow(), scratch.reborrow());
        Backward { dx, rounded, wide, scratch }
    }

    /// As [`backward`](Self::backward), with the values that a block saved.
    pub(super) fn block(&mut self, slot: usize) -> (Backward<'_, E>, &mut Saved<'a, E>) {
        let Activations { x, dx, saved, rounded, wide, scratch, .. } = self;
        let dx = if dx.is_empty() { x.reborrow() } else { dx.reborrow() };
        let (rounded, wide, scratch) = (rounded.reborrow(), wide.reborrow(), scratch.reborrow());
        (Backward { dx, rounded, wide, scratch }, &mut saved[slot])
    }
}

/// Elements up to the next that begins as a part of an arena does.
fn aligned<E>(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT / size_of::<E>())
}

/// Memory of a backward pass.
#[derive(Debug)]
pub struct Backward<'a, E> {
    /// The gradient of the residual stream: of the output before the backward pass, of the tokens after it. It lies
    /// where the stream is, unless blocks are computed anew.
    pub dx: ViewMut<'a, f32>,
    /// See [`Activations`].
    pub rounded: ViewMut<'a, E>,
    pub wide: ViewMut<'a, E>,
    pub scratch: ViewMut<'a, f32>,
}

/// The memory of [`Saved::hidden`] when it has been read; all of it [rows, width].
pub(super) struct Free<'a, E> {
    /// The gradient of a norm's output.
    pub dnormed: ViewMut<'a, E>,
    /// The gradient of attention's output.
    pub dmixed: ViewMut<'a, E>,
    /// Attention's output.
    pub mixed: ViewMut<'a, E>,
}

/// Cuts the memory of [`Saved::hidden`]; attention's output is in `kept` where that is not empty. `len` is that of [rows, width].
pub(super) fn free<'p, E: Number>(
    hidden: &'p mut ViewMut<E>,
    kept: &'p mut ViewMut<E>,
    len: usize,
) -> Free<'p, E> {
    let (at, anew) = (aligned::<E>(len), kept.is_empty());
    let starts = [Some(0), Some(at), anew.then_some(2 * at)].into_iter().flatten();
    let cut = hidden.reborrow().into_ranges(starts.map(|at| at..at + len));
    let mut parts = cut.into_iter().chain((!anew).then(|| kept.reborrow()));
    let mut next = || parts.next().unwrap_or_else(|| unreachable!("there are three parts"));
    Free { dnormed: next(), dmixed: next(), mixed: next() }
}
