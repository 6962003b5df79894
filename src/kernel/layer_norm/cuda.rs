//! LayerNorm on a GPU: `y`, `normal` and `dy` are [`Bf16`], the rest is f32; otherwise as [`super`] says. The sum of the
//! residual stream needs no kernel: products add to it.

use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

/// Threads of a block: eight rows.
const BLOCK: u32 = 256;
const ROWS: u32 = BLOCK / 32;
/// Rows that one block sums the gradients of scale and shift over.
pub const PART: usize = 128;

fn rows_of(rstd: usize, width: usize) -> usize {
    assert!(width.is_multiple_of(2), "a LayerNorm of an even width, not {width}");
    rstd
}

/// y, normal, rstd = layer_norm(x).
#[allow(clippy::too_many_arguments)]
pub fn forward<G: Gpu>(
    gpu: &G,
    mut y: ViewMut<Bf16>,
    mut normal: ViewMut<Bf16>,
    mut rstd: ViewMut<f32>,
    x: View<f32>,
    scale: View<f32>,
    shift: View<f32>,
    eps: f32,
) -> Result<(), GpuError> {
    let width = scale.len();
    let rows = rows_of(rstd.len(), width);
    assert!(shift.len() == width && x.len() == rows * width, "a LayerNorm of width {width}");
    assert!(y.len() == x.len() && normal.len() == x.len(), "outputs of a LayerNorm");
    let launch = Launch::new("layer_norm", "layer_norm_forward", blocks(rows, ROWS), BLOCK)
        .output(&mut y)
        .output(&mut normal)
        .output(&mut rstd)
        .input(x)
        .input(scale)
        .input(shift)
        .size(rows)
        .size(width)
        .number(eps);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch) }
}

/// As [`forward`], of which x itself becomes the output, in f32.
pub fn in_place<G: Gpu>(
    gpu: &G,
    mut x: ViewMut<f32>,
    mut normal: ViewMut<Bf16>,
    mut rstd: ViewMut<f32>,
    scale: View<f32>,
    shift: View<f32>,
    eps: f32,
) -> Result<(), GpuError> {
    let width = scale.len();
    let rows = rows_of(rstd.len(), width);
    assert!(shift.len() == width && x.len() == rows * width, "a LayerNorm of width {width}");
    assert_eq!(normal.len(), x.len(), "what a LayerNorm saves");
    let launch = Launch::new("layer_norm", "layer_norm_in_place", blocks(rows, ROWS), BLOCK)
        .output(&mut x)
        .output(&mut normal)
        .output(&mut rstd)
        .input(scale)
        .input(shift)
        .size(rows)
        .size(width)
        .number(eps);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch) }
}

/// y = normal * scale + shift: the output once more, from what was saved.
pub fn again<G: Gpu>(
    gpu: &G,
    mut y: ViewMut<Bf16>,
    normal: View<Bf16>,
    scale: View<f32>,
    shift: View<f32>,
) -> Result<(), GpuError> {
    let width = scale.len();
    let rows = rows_of(normal.len() / width, width);
    assert!(shift.len() == width && y.len() == rows * width, "a LayerNorm of width {width}");
    let launch = Launch::new("layer_norm", "layer_norm_again", rows, BLOCK).output(&mut y).input(normal);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(launch.input(scale).input(shift).size(width)) }
}

/// Numbers of the scratch memory `partial` that [`backward`] asks for.
pub fn partial_len(rows: usize, width: usize) -> usize {
    rows.div_ceil(PART) * 2 * width
}

/// dx, dscale, dshift += gradients for the gradient `dy`; `copy`, where there is one, = dx rounded. `partial` is
/// scratch memory of [`partial_len`].
#[allow(clippy::too_many_arguments)]
pub fn backward<G: Gpu>(
    gpu: &G,
    mut dx: ViewMut<f32>,
    copy: Option<ViewMut<Bf16>>,
    mut dscale: ViewMut<f32>,
    mut dshift: ViewMut<f32>,
    mut partial: ViewMut<f32>,
    dy: View<Bf16>,
    (normal, rstd): (View<Bf16>, View<f32>),
    scale: View<f32>,
) -> Result<(), GpuError> {
    let width = scale.len();
    let rows = rows_of(rstd.len(), width);
    let n = rows * width;
    assert!(dx.len() == n && dy.len() == n && normal.len() == n, "gradients of a LayerNorm");
    assert!(copy.as_ref().is_none_or(|copy| copy.len() == n), "a rounded copy of a gradient");
    assert!(dscale.len() == width && dshift.len() == width, "gradients of scale and shift");
    assert!(partial.len() >= partial_len(rows, width), "scratch memory of a LayerNorm");
    let through = Launch::new("layer_norm", "layer_norm_backward", blocks(rows, ROWS), BLOCK)
        .output(&mut dx)
        .optional(copy.as_ref().map(ViewMut::view))
        .input(dy)
        .input(normal)
        .input(rstd)
        .input(scale)
        .size(rows)
        .size(width);
    let parts = rows.div_ceil(PART);
    let sums = Launch::new("layer_norm", "layer_norm_partial", width.div_ceil(32), BLOCK)
        .rows(parts)
        .output(&mut partial)
        .input(dy)
        .input(normal)
        .size(rows)
        .size(PART)
        .size(width);
    let total = Launch::new("layer_norm", "layer_norm_total", blocks(width, BLOCK), BLOCK)
        .output(&mut dscale)
        .output(&mut dshift)
        .input(partial.view())
        .size(parts)
        .size(width);
    // SAFETY: lengths are checked above.
    unsafe {
        gpu.launch(through)?;
        gpu.launch(sums)?;
        gpu.launch(total)
    }
}
