//! The norm of all gradients and the moments of an update, of either encoder, with the memory of their tables.

use crate::kernel::adamw::cuda::{self as adamw, Moments};
use crate::kernel::adamw::AdamW;
use crate::kernel::cuda::{Machine, MachineError, View};
use crate::kernel::global_norm::cuda::{sum_of_squares, Pieces};

/// Tables that name tensors, and scratch memory; as long as they had to be so far.
pub struct Update<M: Machine> {
    words: M::Buffer<u64>,
    len: usize,
    partial: M::Buffer<f64>,
    total: M::Buffer<f64>,
}

impl<M: Machine> Update<M> {
    pub fn new(machine: &M) -> Result<Self, MachineError> {
        Ok(Update { words: machine.zeros(0)?, len: 0, partial: machine.zeros(0)?, total: machine.zeros(1)? })
    }

    fn write(&mut self, machine: &M, words: &[u64]) -> Result<(), MachineError> {
        if words.len() > self.len {
            self.words = machine.zeros(words.len())?;
            // Of the norm, whose pieces have two words, one number a piece.
            self.partial = machine.zeros(words.len().div_ceil(2))?;
            self.len = words.len();
        }
        machine.write(machine.view_mut(&mut self.words).part(0, words.len()), words)
    }

    /// The sum of the squares of all tensors. Waits for it.
    pub fn sum_of_squares<'a>(
        &mut self,
        machine: &M,
        tensors: impl IntoIterator<Item = View<'a, f32>>,
    ) -> Result<f64, MachineError> {
        let pieces = Pieces::new(tensors);
        let len = pieces.words().len();
        if len == 0 {
            return Ok(0.0);
        }
        self.write(machine, pieces.words())?;
        let (to, partial) = (machine.view_mut(&mut self.total), machine.view_mut(&mut self.partial));
        // SAFETY: the views say that the tensors are alive.
        unsafe { sum_of_squares(machine, to, partial, machine.view(&self.words).part(0, len)) }?;
        Ok(machine.download(&self.total)?.iter().sum())
    }

    /// The moments of one update; gradients become steps, see [`adamw::steps`].
    pub fn steps(&mut self, machine: &M, tensors: &[Moments], rule: &AdamW) -> Result<(), MachineError> {
        let words = adamw::pieces(tensors);
        self.write(machine, &words)?;
        // SAFETY: the views say that the tensors are alive and used by nobody else.
        unsafe { adamw::steps(machine, machine.view(&self.words).part(0, words.len()), rule) }
    }
}
