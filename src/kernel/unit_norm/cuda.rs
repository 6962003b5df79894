//! Unit length on a GPU; its kernels are beside those of pooling, whose vectors they finish.

use super::Length;
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};

/// Threads of a block: eight rows.
const BLOCK: u32 = 256;
const ROWS: u32 = BLOCK / 32;

fn launch(kernel: &'static str, rows: usize) -> Launch {
    Launch::new("pool", kernel, blocks(rows, ROWS), BLOCK)
}

fn sized(launch: Launch, rows: usize, width: usize, length: Length) -> Launch {
    let (eps, at_least) = match length {
        Length::Plus(eps) => (eps, 0),
        Length::AtLeast(eps) => (eps, 1),
    };
    launch.size(rows).size(width).number(eps).size(at_least)
}

/// z [rows, width] = x / length; norms `[rows]` = |x|, saved.
pub fn forward<G: Gpu>(
    gpu: &G,
    mut z: ViewMut<f32>,
    mut norms: ViewMut<f32>,
    x: View<f32>,
    length: Length,
) -> Result<(), GpuError> {
    let rows = norms.len();
    let width = x.len() / rows.max(1);
    assert!(z.len() == x.len() && rows * width == x.len(), "rows of one width");
    let launch = launch("unit_norm_forward", rows).output(&mut z).output(&mut norms).input(x);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(sized(launch, rows, width, length)) }
}

/// dx = gradient for the gradient `dz`.
pub fn backward<G: Gpu>(
    gpu: &G,
    mut dx: ViewMut<f32>,
    dz: View<f32>,
    z: View<f32>,
    norms: View<f32>,
    length: Length,
) -> Result<(), GpuError> {
    let rows = norms.len();
    let width = dz.len() / rows.max(1);
    assert!(dx.len() == dz.len() && z.len() == dz.len() && rows * width == dz.len(), "rows of one width");
    let launch = launch("unit_norm_backward", rows).output(&mut dx).input(dz).input(z).input(norms);
    // SAFETY: lengths are checked above.
    unsafe { gpu.launch(sized(launch, rows, width, length)) }
}
