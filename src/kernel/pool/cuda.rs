//! Pooling on a GPU, of [`Bf16`] tokens.

use crate::kernel::cuda::{blocks, Launch, Machine, MachineError, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 128;

/// Which tokens of a sequence make its vector, in the memory of a machine.
#[derive(Debug, Clone, Copy)]
pub enum Pool<'a> {
    /// The mean of all.
    Mean,
    /// One: position `at[b]` of sequence b, which the caller has checked.
    At(View<'a, u32>),
}

impl<'a> Pool<'a> {
    fn places(self) -> Option<View<'a, u32>> {
        match self {
            Pool::Mean => None,
            Pool::At(at) => Some(at),
        }
    }
}

fn launch(kernel: &'static str, (batch, width): (usize, usize)) -> Launch {
    Launch::new("pool", kernel, blocks(width, BLOCK), BLOCK).rows(batch)
}

/// out [batch, width] from x [batch, tokens, width].
pub fn forward<M: Machine>(
    machine: &M,
    mut out: ViewMut<Bf16>,
    x: View<Bf16>,
    pool: Pool,
    tokens: usize,
    width: usize,
) -> Result<(), MachineError> {
    let batch = out.len() / width;
    assert_eq!(x.len(), out.len() * tokens, "sequences of {tokens} tokens");
    assert!(pool.places().is_none_or(|at| at.len() == batch), "a place for each sequence");
    let launch = launch("pool_forward", (batch, width)).output(&mut out).input(x).optional(pool.places());
    // SAFETY: lengths are checked above; places are the caller's.
    unsafe { machine.launch(launch.size(tokens).size(width)) }
}

/// dx [batch, tokens, width] = gradient for the gradient `dout` [batch, width] of [`forward`].
pub fn backward<M: Machine>(
    machine: &M,
    mut dx: ViewMut<Bf16>,
    dout: View<f32>,
    pool: Pool,
    tokens: usize,
    width: usize,
) -> Result<(), MachineError> {
    let batch = dout.len() / width;
    assert_eq!(dx.len(), dout.len() * tokens, "sequences of {tokens} tokens");
    assert!(pool.places().is_none_or(|at| at.len() == batch), "a place for each sequence");
    let launch = launch("pool_backward", (batch, width)).output(&mut dx).input(dout).optional(pool.places());
    // SAFETY: lengths are checked above; places are the caller's.
    unsafe { machine.launch(launch.size(tokens).size(width)) }
}
