//! Pooling on a GPU, of [`Bf16`] tokens.

use crate::kernel::backend::Pool;
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;
use crate::kernel::tokens::Sequences;

const BLOCK: u32 = 128;

/// The place of each sequence, where one token is pooled.
fn places<'a>(pool: Pool<'a>) -> Option<View<'a, u32>> {
    match pool {
        Pool::Mean => None,
        Pool::At(at) => Some(at),
    }
}

fn launch(kernel: &'static str, (batch, width): (usize, usize)) -> Launch {
    Launch::new("pool", kernel, blocks(width, BLOCK), BLOCK).rows(batch)
}

/// out [batch, width] from x [batch, tokens, width].
pub fn forward<G: Gpu>(
    gpu: &G,
    mut out: ViewMut<Bf16>,
    x: View<Bf16>,
    pool: Pool,
    tokens: usize,
    width: usize,
) -> Result<(), GpuError> {
    let batch = out.len() / width;
    assert_eq!(x.len(), out.len() * tokens, "sequences of {tokens} tokens");
    assert!(places(pool).is_none_or(|at| at.len() == batch), "a place for each sequence");
    let launch = launch("pool_forward", (batch, width)).output(&mut out).input(x).optional(places(pool));
    // SAFETY: lengths are checked above; places are the caller's.
    unsafe { gpu.launch(launch.size(tokens).size(width)) }
}

/// dx [batch, tokens, width] = gradient for the gradient `dout` [batch, width] of [`forward`].
pub fn backward<G: Gpu>(
    gpu: &G,
    mut dx: ViewMut<Bf16>,
    dout: View<f32>,
    pool: Pool,
    tokens: usize,
    width: usize,
) -> Result<(), GpuError> {
    let batch = dout.len() / width;
    assert_eq!(dx.len(), dout.len() * tokens, "sequences of {tokens} tokens");
    assert!(places(pool).is_none_or(|at| at.len() == batch), "a place for each sequence");
    let launch = launch("pool_backward", (batch, width)).output(&mut dx).input(dout).optional(places(pool));
    // SAFETY: lengths are checked above; places are the caller's.
    unsafe { gpu.launch(launch.size(tokens).size(width)) }
}

/// out [batch, width] = the mean of the rows of x [batch * (prefix + kept), width] that come from patches.
pub fn patches<G: Gpu>(gpu: &G, mut out: ViewMut<f32>, x: View<f32>, of: Sequences) -> Result<(), GpuError> {
    assert!(out.len() == of.batch * of.width && x.len() == of.rows() * of.width, "tokens of {of:?}");
    let launch = launch("pool_patches_forward", (of.batch, of.width)).output(&mut out).input(x);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.size(of.kept).size(of.prefix).size(of.width)) }
}

/// dx = gradient of [`patches`] for the gradient `dout` of its output.
pub fn patches_backward<G: Gpu>(
    gpu: &G,
    mut dx: ViewMut<f32>,
    dout: View<f32>,
    of: Sequences,
) -> Result<(), GpuError> {
    assert!(dout.len() == of.batch * of.width && dx.len() == of.rows() * of.width, "tokens of {of:?}");
    let launch = launch("pool_patches_backward", (of.batch, of.width)).output(&mut dx).input(dout);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.size(of.kept).size(of.prefix).size(of.width)) }
}
