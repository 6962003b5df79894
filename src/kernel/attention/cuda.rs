//! Attention on a GPU, in [`Bf16`], on tensor cores: one launch forward, three backward. Sequences may have any length;
//! the kernels are made for short ones, which shared memory takes a chunk of 64 tokens at a time. Masked or not, scores
//! never leave the registers.

use super::Attention;
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

/// Tokens of a chunk, and threads of the block that takes it.
const CHUNK: usize = 64;
const BLOCK: u32 = 128;
/// Elements that a row in shared memory is longer than it needs to be.
const GAP: usize = 8;

/// The kernels of a width of a head.
#[derive(Debug, Clone, Copy)]
struct Kernels {
    forward: &'static str,
    backward_queries: &'static str,
    backward_keys: &'static str,
}

macro_rules! of_head {
    ($head:literal) => {
        Some(Kernels {
            forward: concat!("attention_forward_", $head),
            backward_queries: concat!("attention_backward_queries_", $head),
            backward_keys: concat!("attention_backward_keys_", $head),
        })
    };
}

/// The widths of a head that there are kernels for.
pub const HEADS: [usize; 12] = [12, 16, 32, 48, 64, 72, 80, 88, 96, 104, 112, 128];

fn kernels(head: usize) -> Kernels {
    let kernels = match head {
        12 => of_head!(12),
        16 => of_head!(16),
        32 => of_head!(32),
        48 => of_head!(48),
        64 => of_head!(64),
        72 => of_head!(72),
        80 => of_head!(80),
        88 => of_head!(88),
        96 => of_head!(96),
        104 => of_head!(104),
        112 => of_head!(112),
        128 => of_head!(128),
        _ => None,
    };
    kernels.unwrap_or_else(|| panic!("heads of a width in {HEADS:?}, not {head}"))
}

/// Bytes of `along` chunks in rows and `across` of them in columns.
fn shared(of: Attention, along: usize, across: usize) -> usize {
    // Tensor cores take sixteen columns at a time.
    let head = of.head.next_multiple_of(16);
    (along * CHUNK * (head + GAP) + across * head * (CHUNK + GAP)) * size_of::<Bf16>()
}

/// A block for every chunk of every head.
fn launch(kernel: &'static str, of: Attention) -> Launch {
    Launch::new("attention", kernel, of.batch * of.heads, BLOCK).rows(of.tokens.div_ceil(CHUNK))
}

fn sized(launch: Launch, of: Attention) -> Launch {
    launch.size(of.tokens).size(of.heads).number(of.scale()).size(usize::from(of.causal))
}

/// out, lse = attention(qkv).
pub fn forward<G: Gpu>(
    gpu: &G,
    mut out: ViewMut<Bf16>,
    mut lse: ViewMut<f32>,
    qkv: View<Bf16>,
    of: Attention,
) -> Result<(), GpuError> {
    let n = of.batch * of.tokens * of.width();
    assert!(qkv.len() == 3 * n && out.len() == n && lse.len() == of.saved(), "{of:?}");
    let launch = launch(kernels(of.head).forward, of).shared(shared(of, 1, 1));
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(sized(launch.output(&mut out).output(&mut lse).input(qkv), of)) }
}

/// Values of the forward pass that the backward pass reads: its input, its output and its statistics.
#[derive(Debug, Clone, Copy)]
pub struct Saved<'a> {
    pub qkv: View<'a, Bf16>,
    pub out: View<'a, Bf16>,
    pub lse: View<'a, f32>,
}

/// dqkv = gradient of [`forward`] for the gradient `dout` of its output. `dots` is scratch memory, as long as `lse`.
pub fn backward<G: Gpu>(
    gpu: &G,
    mut dqkv: ViewMut<Bf16>,
    mut dots: ViewMut<f32>,
    dout: View<Bf16>,
    saved: Saved,
    of: Attention,
) -> Result<(), GpuError> {
    let (n, Saved { qkv, out, lse }) = (of.batch * of.tokens * of.width(), saved);
    assert!(qkv.len() == 3 * n && dqkv.len() == 3 * n, "queries, keys and values of {of:?}");
    assert!(dout.len() == n && out.len() == n, "outputs of {of:?}");
    assert!(lse.len() == of.saved() && dots.len() == of.saved(), "statistics of {of:?}");
    let Kernels { backward_queries, backward_keys, .. } = kernels(of.head);
    let warps = BLOCK / 32;
    let products = Launch::new("attention", "attention_dots", blocks(of.saved(), warps), BLOCK)
        .output(&mut dots)
        .input(dout)
        .input(out)
        .size(of.saved())
        .size(of.tokens)
        .size(of.heads)
        .size(of.head);
    let mut with = |kernel, along, across| {
        let launch =
            launch(kernel, of).shared(shared(of, along, across)).output(&mut dqkv).input(dout).input(qkv);
        sized(launch.input(lse).input(dots.view()), of)
    };
    let queries = with(backward_queries, 2, 1);
    let keys = with(backward_keys, 4, 2);
    // SAFETY: lengths are checked above; the last two write different parts of dqkv.
    unsafe {
        gpu.launch(products)?;
        gpu.launch(queries)?;
        gpu.launch(keys)
    }
}
