//! The norm of all gradients and the update of all parameters, with the memory of their tables.

use crate::kernel::adamw::cuda::{self as adamw, Tensor};
use crate::kernel::adamw::AdamW;
use crate::kernel::cuda::{Machine, MachineError, View};
use crate::kernel::global_norm::cuda::{sum_of_squares, Pieces};

/// A table that names tensors, as long as it had to be so far. Tensors that stay where they are name themselves once.
struct Table<M: Machine> {
    there: M::Buffer<u64>,
    words: Vec<u64>,
}

impl<M: Machine> Table<M> {
    fn new(machine: &M) -> Result<Self, MachineError> {
        Ok(Table { there: machine.zeros(0)?, words: Vec::new() })
    }

    /// Has the machine hold these words.
    fn hold(&mut self, machine: &M, words: Vec<u64>) -> Result<View<'_, u64>, MachineError> {
        if words != self.words {
            self.words.clear();
            self.there = machine.upload(&words)?;
            self.words = words;
        }
        Ok(machine.view(&self.there))
    }
}

/// Tables of both, and scratch memory.
pub struct Update<M: Machine> {
    gradients: Table<M>,
    parameters: Table<M>,
    partial: M::Buffer<f64>,
    /// Numbers in `partial`.
    len: usize,
    total: M::Buffer<f64>,
}

impl<M: Machine> Update<M> {
    pub fn new(machine: &M) -> Result<Self, MachineError> {
        Ok(Update {
            gradients: Table::new(machine)?,
            parameters: Table::new(machine)?,
            partial: machine.zeros(0)?,
            len: 0,
            total: machine.zeros(1)?,
        })
    }

    /// The sum of the squares of all tensors. Waits for it.
    pub fn sum_of_squares<'a>(
        &mut self,
        machine: &M,
        tensors: impl IntoIterator<Item = View<'a, f32>>,
    ) -> Result<f64, MachineError> {
        let pieces = Pieces::new(tensors);
        // Two words a piece.
        let len = pieces.words().len() / 2;
        if len == 0 {
            return Ok(0.0);
        }
        if len > self.len {
            self.partial = machine.zeros(len)?;
            self.len = len;
        }
        let table = self.gradients.hold(machine, pieces.words().to_vec())?;
        let (to, partial) = (machine.view_mut(&mut self.total), machine.view_mut(&mut self.partial));
        // SAFETY: the views say that the tensors are alive.
        unsafe { sum_of_squares(machine, to, partial, table) }?;
        Ok(machine.download(&self.total)?.iter().sum())
    }

    /// One update, in one launch; see [`adamw::update`].
    pub fn adamw(&mut self, machine: &M, tensors: &[Tensor], rule: &AdamW) -> Result<(), MachineError> {
        let table = self.parameters.hold(machine, adamw::pieces(tensors))?;
        // SAFETY: the views say that the tensors are alive and used by nobody else.
        unsafe { adamw::update(machine, table, rule) }
    }
}
