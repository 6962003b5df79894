//! The memory of a forward and a backward pass on a GPU.

use super::super::{Keep, Shape};
use crate::kernel::cuda::room::Room;
use crate::kernel::cuda::ViewMut;
use crate::kernel::element::Bf16;
use crate::kernel::{gemm, layer_norm};

/// What a block leaves for its backward pass.
#[derive(Debug)]
pub(super) struct Saved<'a> {
    /// [rows, width], and 1 / deviation of each row.
    pub normal1: ViewMut<'a, Bf16>,
    pub rstd1: ViewMut<'a, f32>,
    /// [rows, 3 * width].
    pub qkv: ViewMut<'a, Bf16>,
    /// Statistics of the softmax.
    pub lse: ViewMut<'a, f32>,
    /// [rows, width]: output of attention.
    pub mixed: ViewMut<'a, Bf16>,
    pub normal2: ViewMut<'a, Bf16>,
    pub rstd2: ViewMut<'a, f32>,
    /// [rows, hidden]: before the activation; the backward pass leaves what came after it.
    pub hidden: ViewMut<'a, Bf16>,
}

/// All memory that a stack needs for `batch` sequences of `tokens`.
#[derive(Debug)]
pub struct Activations<'a> {
    pub(super) keep: Keep,
    pub(super) batch: usize,
    pub(super) tokens: usize,
    /// The residual stream, [batch * tokens, width]: tokens before the forward pass, output after it.
    pub x: ViewMut<'a, f32>,
    /// Its gradient: of the output before the backward pass, of the tokens after it.
    pub dx: ViewMut<'a, f32>,
    /// One for each block where everything is kept, else one that all share.
    pub(super) saved: Vec<Saved<'a>>,
    /// Inputs of all blocks, where they are kept: [depth, rows, width].
    pub(super) inputs: ViewMut<'a, f32>,
    /// [rows, width]: output of a norm, or the gradient of it.
    pub normed: ViewMut<'a, Bf16>,
    /// [rows, width]: `dx` as products take it.
    pub rounded: ViewMut<'a, Bf16>,
    /// [rows, width]: output of a norm once more, or the gradient of attention's output.
    pub(super) dmixed: ViewMut<'a, Bf16>,
    /// [rows, hidden or 3 * width]: after the activation; then a gradient. Before and after a pass, for others to use.
    pub wide: ViewMut<'a, Bf16>,
    /// Of attention's backward pass.
    pub(super) dots: ViewMut<'a, f32>,
    /// Sums over parts of the rows.
    pub partial: ViewMut<'a, f32>,
}

impl<'a> Activations<'a> {
    /// Bytes of the arena that [`take`](Self::take) takes.
    pub fn bytes(shape: &Shape, batch: usize, tokens: usize, keep: Keep) -> usize {
        Room::measure(|room| Activations::take(room, shape, batch, tokens, keep))
    }

    /// Takes them from an arena.
    pub fn take(room: &mut Room<'a>, shape: &Shape, batch: usize, tokens: usize, keep: Keep) -> Self {
        let rows = batch * tokens;
        let (width, wide) = (shape.width, shape.hidden.max(3 * shape.width));
        let narrow = rows * width;
        let backward = |len| if keep == Keep::Nothing { 0 } else { len };
        let statistics = shape.attention(batch, tokens).saved();
        let saved = |room: &mut Room<'a>| Saved {
            normal1: room.take(narrow),
            rstd1: room.take(rows),
            qkv: room.take(3 * narrow),
            lse: room.take(statistics),
            mixed: room.take(narrow),
            normal2: room.take(narrow),
            rstd2: room.take(rows),
            hidden: room.take(rows * shape.hidden),
        };
        let partial = layer_norm::cuda::partial_len(rows, width).max(gemm::cuda::partial_len(rows, wide));
        Activations {
            keep,
            batch,
            tokens,
            x: room.take(narrow),
            dx: room.take(backward(narrow)),
            saved: (0..keep.blocks(shape)).map(|_| saved(room)).collect(),
            inputs: room.take(keep.inputs(shape) * narrow),
            normed: room.take(narrow),
            rounded: room.take(backward(narrow)),
            dmixed: room.take(backward(narrow)),
            wide: room.take(rows * wide),
            dots: room.take(backward(statistics)),
            partial: room.take(backward(partial)),
        }
    }
}
