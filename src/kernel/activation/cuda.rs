//! The non-linearity on a GPU, by itself: for products whose epilogue has another one or none.

use super::Activation;
use crate::kernel::cuda::{blocks, Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 256;

/// As the source counts them.
fn kind(activation: Activation) -> usize {
    match activation {
        Activation::GeluTanh => 0,
        Activation::GeluExact => 1,
        Activation::QuickGelu => 2,
    }
}

fn launch(kernel: &'static str, n: usize) -> Launch {
    assert!(n.is_multiple_of(2), "an even number of values, not {n}");
    Launch::new("activation", kernel, blocks(n / 2, BLOCK), BLOCK)
}

/// y = f(x).
pub fn forward<G: Gpu>(
    gpu: &G,
    mut y: ViewMut<Bf16>,
    x: View<Bf16>,
    activation: Activation,
) -> Result<(), GpuError> {
    let n = x.len();
    assert_eq!(y.len(), n, "a value for each");
    let launch = launch("activation_forward", n).output(&mut y).input(x).size(kind(activation)).size(n / 2);
    // SAFETY: both have n elements.
    unsafe { gpu.launch(launch) }
}

/// dx = dy f'(x).
pub fn backward<G: Gpu>(
    gpu: &G,
    mut dx: ViewMut<Bf16>,
    dy: View<Bf16>,
    x: View<Bf16>,
    activation: Activation,
) -> Result<(), GpuError> {
    let n = x.len();
    assert!(dx.len() == n && dy.len() == n, "a gradient for each");
    let launch = launch("activation_backward", n).output(&mut dx).input(dy).input(x);
    // SAFETY: all have n elements.
    unsafe { gpu.launch(launch.size(kind(activation)).size(n / 2)) }
}

/// x = f(x).
pub fn replace<G: Gpu>(gpu: &G, mut x: ViewMut<Bf16>, activation: Activation) -> Result<(), GpuError> {
    let n = x.len();
    let launch = launch("activation_replace", n).output(&mut x).size(kind(activation)).size(n / 2);
    // SAFETY: x has n elements.
    unsafe { gpu.launch(launch) }
}

/// gradient *= f'(x); x = f(x).
pub fn through<G: Gpu>(
    gpu: &G,
    mut gradient: ViewMut<Bf16>,
    mut x: ViewMut<Bf16>,
    activation: Activation,
) -> Result<(), GpuError> {
    let n = x.len();
    assert_eq!(gradient.len(), n, "a gradient for each");
    let launch = launch("activation_through", n).output(&mut gradient).output(&mut x);
    // SAFETY: both have n elements.
    unsafe { gpu.launch(launch.size(kind(activation)).size(n / 2)) }
}
