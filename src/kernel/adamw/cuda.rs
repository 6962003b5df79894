//! AdamW on a GPU: parameters, moments and copies of all tensors in one launch, which leaves gradients of zero.

use super::AdamW;
use crate::kernel::cuda::{Gpu, GpuError, Launch, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 256;
/// Values of a piece.
const PIECE: usize = 1 << 14;
/// Words of a piece, as the source declares it.
const WORDS: usize = 7;

/// A parameter with its moments, its gradient and the copy that products read, all of one length.
#[derive(Debug)]
pub struct Tensor<'a> {
    pub p: ViewMut<'a, f32>,
    pub m: ViewMut<'a, f32>,
    pub v: ViewMut<'a, f32>,
    pub g: ViewMut<'a, f32>,
    pub copy: Option<ViewMut<'a, Bf16>>,
    /// The decay of the rule is applied.
    pub decays: bool,
}

/// The table that [`update`] reads: the tensors in pieces, 56 bytes for 16,384 parameters.
pub fn pieces(tensors: &[Tensor]) -> Vec<u64> {
    let mut words = Vec::new();
    for Tensor { p, m, v, g, copy, decays } in tensors {
        let n = g.len();
        assert!(p.len() == n && m.len() == n && v.len() == n, "one gradient a parameter");
        for at in (0..n).step_by(PIECE) {
            let behind = |address: u64, size: usize| address + (at * size) as u64;
            words.extend([p, m, v, g].map(|view| behind(view.address(), size_of::<f32>())));
            words.push(copy.as_ref().map_or(0, |copy| behind(copy.address(), size_of::<Bf16>())));
            words.extend([PIECE.min(n - at) as u64, u64::from(*decays)]);
        }
    }
    words
}

/// Updates all tensors of `pieces`, a table of [`pieces`]: 34 bytes a parameter where there is a half copy.
///
/// # Safety
/// The tensors that the table was made of are alive, and nobody else uses them.
pub unsafe fn update<G: Gpu>(gpu: &G, pieces: View<'_, u64>, rule: &AdamW) -> Result<(), GpuError> {
    let c = rule.constants();
    let launch = Launch::new("adamw", "adamw_update", pieces.len() / WORDS, BLOCK).input(pieces);
    let numbers = [c.gradient, c.keep_m, c.add_m, c.keep_v, c.add_v, c.step, c.root, c.eps, c.decay];
    gpu.launch(numbers.into_iter().fold(launch, Launch::number))
}
