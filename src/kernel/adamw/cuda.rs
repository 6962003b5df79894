//! AdamW on a GPU: the moments of all parameters in one launch. Parameters are somebody else's, so their gradients become
//! the steps that they take.

use super::AdamW;
use crate::kernel::cuda::{Launch, Machine, MachineError, View, ViewMut};

const BLOCK: u32 = 256;
/// Values of a piece.
const PIECE: usize = 1 << 14;
/// Words of a piece, as the source declares it.
const WORDS: usize = 4;

/// The moments and the gradient of a parameter that somebody else keeps, all of one length.
#[derive(Debug)]
pub struct Moments<'a> {
    pub m: ViewMut<'a, f32>,
    pub v: ViewMut<'a, f32>,
    pub g: ViewMut<'a, f32>,
}

/// The table that [`steps`] reads: the tensors in pieces, 32 bytes for 16,384 parameters.
pub fn pieces(tensors: &[Moments]) -> Vec<u64> {
    let mut words = Vec::new();
    for Moments { m, v, g } in tensors {
        let n = g.len();
        assert!(m.len() == n && v.len() == n, "one gradient a moment");
        for at in (0..n).step_by(PIECE) {
            words.extend([m, v, g].map(|view| view.address() + (at * size_of::<f32>()) as u64));
            words.push(PIECE.min(n - at) as u64);
        }
    }
    words
}

/// Updates the moments of all tensors of `pieces`, a table of [`pieces`], and turns their gradients into steps: what
/// parameters lose besides [`decay_of_update`](AdamW::decay_of_update) of themselves.
///
/// # Safety
/// The tensors that the table was made of are alive, and nobody else uses them.
pub unsafe fn steps<M: Machine>(
    machine: &M,
    pieces: View<'_, u64>,
    rule: &AdamW,
) -> Result<(), MachineError> {
    let c = rule.constants();
    let launch = Launch::new("adamw", "adamw_steps", pieces.len() / WORDS, BLOCK).input(pieces);
    let numbers = [c.gradient, c.keep_m, c.add_m, c.keep_v, c.add_v, c.step, c.root, c.eps];
    machine.launch(numbers.into_iter().fold(launch, Launch::number))
}
