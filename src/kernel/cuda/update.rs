//! The norm of all gradients and the update of all parameters, with the memory of their tables.

use crate::kernel::adamw::cuda::{self as adamw, Tensor};
use crate::kernel::adamw::AdamW;
use crate::kernel::cuda::{Gpu, GpuError, View};
use crate::kernel::global_norm::cuda::{sum_of_squares, Pieces};

/// A table that names tensors, as long as it had to be so far. Tensors that stay where they are name themselves once.
struct Table<G: Gpu> {
    there: G::Buffer<u64>,
    words: Vec<u64>,
}

impl<G: Gpu> Table<G> {
    fn new(gpu: &G) -> Result<Self, GpuError> {
        Ok(Table { there: gpu.zeros(0)?, words: Vec::new() })
    }

    /// Has the GPU hold these words.
    fn hold(&mut self, gpu: &G, words: Vec<u64>) -> Result<View<'_, u64>, GpuError> {
        if words != self.words {
            self.words.clear();
            self.there = gpu.upload(&words)?;
            self.words = words;
        }
        Ok(gpu.view(&self.there))
    }
}

/// Tables of both, and scratch memory.
pub struct Update<G: Gpu> {
    gradients: Table<G>,
    parameters: Table<G>,
    partial: G::Buffer<f64>,
    /// Numbers in `partial`.
    len: usize,
    total: G::Buffer<f64>,
}

impl<G: Gpu> Update<G> {
    pub fn new(gpu: &G) -> Result<Self, GpuError> {
        Ok(Update {
            gradients: Table::new(gpu)?,
            parameters: Table::new(gpu)?,
            partial: gpu.zeros(0)?,
            len: 0,
            total: gpu.zeros(1)?,
        })
    }

    /// The sum of the squares of all tensors. Waits for it.
    pub fn sum_of_squares<'a>(
        &mut self,
        gpu: &G,
        tensors: impl IntoIterator<Item = View<'a, f32>>,
    ) -> Result<f64, GpuError> {
        let pieces = Pieces::new(tensors);
        // Two words a piece.
        let len = pieces.words().len() / 2;
        if len == 0 {
            return Ok(0.0);
        }
        if len > self.len {
            self.partial = gpu.zeros(len)?;
            self.len = len;
        }
        let table = self.gradients.hold(gpu, pieces.words().to_vec())?;
        let (to, partial) = (gpu.view_mut(&mut self.total), gpu.view_mut(&mut self.partial));
        // SAFETY: the views say that the tensors are alive.
        unsafe { sum_of_squares(gpu, to, partial, table) }?;
        Ok(gpu.download(&self.total)?.iter().sum())
    }

    /// One update, in one launch; see [`adamw::update`].
    pub fn adamw(&mut self, gpu: &G, tensors: &[Tensor], rule: &AdamW) -> Result<(), GpuError> {
        let table = self.parameters.hold(gpu, adamw::pieces(tensors))?;
        // SAFETY: the views say that the tensors are alive and used by nobody else.
        unsafe { adamw::update(gpu, table, rule) }
    }
}
