//! AdamW on a GPU: one launch for all parameters, which also writes the [`Bf16`] copies that products read.

use super::AdamW;
use crate::kernel::cuda::{Launch, Machine, MachineError, View, ViewMut};
use crate::kernel::element::Bf16;

const BLOCK: u32 = 256;
/// Values of a piece.
const PIECE: usize = 1 << 14;
/// Words of a piece, as the source declares it.
const WORDS: usize = 6;

/// A parameter with what belongs to it, all of one length.
#[derive(Debug)]
pub struct Tensor<'a> {
    pub p: ViewMut<'a, f32>,
    pub m: ViewMut<'a, f32>,
    pub v: ViewMut<'a, f32>,
    pub g: ViewMut<'a, f32>,
    pub copy: Option<ViewMut<'a, Bf16>>,
    /// Whether weight decay applies.
    pub decays: bool,
}

/// The moments and the gradient of a parameter that somebody else keeps, all of one length.
#[derive(Debug)]
pub struct Moments<'a> {
    pub m: ViewMut<'a, f32>,
    pub v: ViewMut<'a, f32>,
    pub g: ViewMut<'a, f32>,
}

/// As [`pieces`], of parameters that somebody else keeps: [`update`] turns their gradients into steps, what they lose
/// besides [`decay_of_update`](AdamW::decay_of_update) of themselves.
pub fn step_pieces(tensors: &[Moments]) -> Vec<u64> {
    let mut words = Vec::new();
    for Moments { m, v, g } in tensors {
        let n = g.len();
        assert!(m.len() == n && v.len() == n, "one gradient a moment");
        for at in (0..n).step_by(PIECE) {
            words.push(0);
            words.extend([m, v, g].map(|view| view.address() + (at * size_of::<f32>()) as u64));
            words.extend([0, PIECE.min(n - at) as u64]);
        }
    }
    words
}

/// The table of one update that [`update`] reads: the tensors in pieces. It holds the shrinking of this update's
/// learning rate, so it is made anew for each; 48 bytes for 16,384 parameters.
pub fn pieces(tensors: &[Tensor], rule: &AdamW) -> Vec<u64> {
    let mut words = Vec::new();
    for Tensor { p, m, v, g, copy, decays } in tensors {
        let n = p.len();
        assert!(m.len() == n && v.len() == n && g.len() == n, "one gradient a parameter");
        assert!(copy.as_ref().is_none_or(|copy| copy.len() == n), "a copy of every parameter");
        let decay = if *decays { rule.decay } else { 0.0 };
        let shrink = (1.0 - AdamW { decay, ..*rule }.decay_of_update()) as f32;
        for at in (0..n).step_by(PIECE) {
            let place = |address: u64, bytes: usize| address + (at * bytes) as u64;
            let some = PIECE.min(n - at) as u64;
            words.extend([p, m, v, g].map(|view| place(view.address(), size_of::<f32>())));
            words.push(copy.as_ref().map_or(0, |copy| place(copy.address(), size_of::<Bf16>())));
            words.push(some | u64::from(shrink.to_bits()) << 32);
        }
    }
    words
}

/// One update of all tensors of `pieces`, a table of [`pieces`] for the same rule.
///
/// # Safety
/// The tensors that the table was made of are alive, and nobody else uses them.
pub unsafe fn update<M: Machine>(
    machine: &M,
    pieces: View<'_, u64>,
    rule: &AdamW,
) -> Result<(), MachineError> {
    let c = rule.constants();
    let launch = Launch::new("adamw", "adamw_update", pieces.len() / WORDS, BLOCK).input(pieces);
    let numbers = [c.gradient, c.keep_m, c.add_m, c.keep_v, c.add_v, c.step, c.root, c.eps];
    machine.launch(numbers.into_iter().fold(launch, Launch::number))
}
