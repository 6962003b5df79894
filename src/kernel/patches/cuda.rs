//! [`from_bytes`](super::from_bytes) and [`from_floats`](super::from_floats) on a GPU, to [`Bf16`].

use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 256;
/// Values of a thread.
const TOGETHER: usize = 4;

fn launch(kernel: &'static str, n: usize) -> Launch {
    Launch::new("patches", kernel, blocks(n.div_ceil(TOGETHER), BLOCK), BLOCK)
}

/// out = (bytes / 255 - mean) / deviation of each channel; channels are the innermost of three.
pub fn from_bytes<G: Gpu>(
    gpu: &G,
    mut out: ViewMut<Bf16>,
    bytes: View<u8>,
    mean: [f32; 3],
    deviation: [f32; 3],
) -> Result<(), GpuError> {
    let n = bytes.len();
    assert!(out.len() == n && n.is_multiple_of(3), "pixels of three channels");
    let factor = deviation.map(|deviation| 1.0 / (255.0 * deviation));
    let offset = [0, 1, 2].map(|c| -mean[c] / deviation[c]);
    let launch = launch("patches_from_bytes", n).output(&mut out).input(bytes).size(n);
    let launch = factor.into_iter().chain(offset).fold(launch, Launch::number);
    // SAFETY: both have n elements.
    unsafe { gpu.launch(launch) }
}

/// out = floats, rounded.
pub fn from_floats<G: Gpu>(gpu: &G, mut out: ViewMut<Bf16>, floats: View<f32>) -> Result<(), GpuError> {
    let n = floats.len();
    assert_eq!(out.len(), n, "values to convert");
    // SAFETY: both have n elements.
    unsafe { gpu.launch(launch("patches_from_floats", n).output(&mut out).input(floats).size(n)) }
}
