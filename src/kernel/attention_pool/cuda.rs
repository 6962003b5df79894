//! The attention pool on a GPU, of [`Bf16`] keys and values.

use super::AttentionPool;
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 128;
/// Heads that a block computes, a warp each.
const WARPS: u32 = BLOCK / 32;
/// Widest head that there are registers for.
const WIDEST: usize = 128;

fn launch(kernel: &'static str, of: AttentionPool) -> Launch {
    assert!(of.head <= WIDEST, "heads of at most {WIDEST}, not {}", of.head);
    Launch::new("attention_pool", kernel, blocks(of.batch * of.heads, WARPS), BLOCK)
}

fn sized(launch: Launch, of: AttentionPool) -> Launch {
    launch.size(of.batch * of.heads).size(of.tokens).size(of.heads).size(of.head).number(of.scale())
}

/// out, lse = attention of the query.
pub fn forward<G: Gpu>(
    gpu: &G,
    mut out: ViewMut<Bf16>,
    mut lse: ViewMut<f32>,
    query: View<f32>,
    kv: View<Bf16>,
    of: AttentionPool,
) -> Result<(), GpuError> {
    of.check(query.len(), kv.len(), out.len(), lse.len());
    let launch =
        launch("attention_pool_forward", of).output(&mut out).output(&mut lse).input(query).input(kv);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(sized(launch, of)) }
}

/// Values that the backward pass reads.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    pub query: View<'a, f32>,
    pub kv: View<'a, Bf16>,
    pub lse: View<'a, f32>,
}

/// dkv = and dquery += gradients of [`forward`] for the gradient `dout` of its output. `dqueries` [batch, width] is scratch
/// memory.
pub fn backward<G: Gpu>(
    gpu: &G,
    (mut dkv, mut dquery): (ViewMut<Bf16>, ViewMut<f32>),
    mut dqueries: ViewMut<f32>,
    dout: View<Bf16>,
    Saved { query, kv, lse }: Saved,
    of: AttentionPool,
) -> Result<(), GpuError> {
    of.check(query.len(), kv.len(), dout.len(), lse.len());
    assert!(dkv.len() == kv.len() && dquery.len() == of.width(), "gradients of {of:?}");
    assert_eq!(dqueries.len(), dout.len(), "a part of every sequence");
    let parts = launch("attention_pool_backward", of).output(&mut dkv).output(&mut dqueries).input(dout);
    let parts = sized(parts.input(query).input(kv).input(lse), of);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(parts) }?;
    let sum = Launch::new("attention_pool", "attention_pool_sum", blocks(of.width(), BLOCK), BLOCK);
    let sum = sum.output(&mut dquery).input(dqueries.view()).size(of.batch).size(of.width());
    // SAFETY: as above.
    unsafe { gpu.launch(sum) }
}
