//! Memory of passes, taken once for a size of batch and used again in every step.

use crate::kernel::cuda::{Machine, MachineError};
use crate::kernel::transformer::Keep;

/// What an arena is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purpose {
    pub batch: usize,
    /// Kept patches or tokens of each.
    pub kept: usize,
    /// Patches along a side of the image; 0 of a caption.
    pub grid: usize,
    /// Whether patches come as floats.
    pub floats: bool,
    pub keep: Keep,
}

/// Arenas that are not in use.
pub(super) struct Arenas<M: Machine> {
    free: Vec<(Purpose, usize, M::Buffer<u8>)>,
    /// Arenas in use, and how many ever were at a time: as many are kept, where a step records several micro-batches
    /// before it goes back.
    out: usize,
    most: usize,
}

/// Arenas kept for later, at least: training and evaluation.
const KEPT: usize = 2;

impl<M: Machine> Arenas<M> {
    pub fn new() -> Self {
        Arenas { free: Vec::new(), out: 0, most: 0 }
    }

    /// Bytes of the arenas that are not in use.
    pub fn bytes(&self) -> usize {
        self.free.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// An arena of as many bytes; what is in it is left over from its last use. Where there is no room for a new one,
    /// those that are not in use make way.
    pub fn take(
        &mut self,
        machine: &M,
        purpose: Purpose,
        bytes: usize,
    ) -> Result<M::Buffer<u8>, MachineError> {
        let found = self.free.iter().position(|(made_for, ..)| *made_for == purpose);
        let memory = match found {
            Some(index) => self.free.swap_remove(index).2,
            None => match machine.zeros(bytes) {
                Err(_) if !self.free.is_empty() => {
                    self.free.clear();
                    machine.zeros(bytes)?
                }
                made => made?,
            },
        };
        self.out += 1;
        self.most = self.most.max(self.out);
        Ok(memory)
    }

    pub fn give_back(&mut self, purpose: Purpose, bytes: usize, memory: M::Buffer<u8>) {
        self.out = self.out.saturating_sub(1);
        if self.free.len() >= self.most.max(KEPT) {
            self.free.remove(0);
        }
        self.free.push((purpose, bytes, memory));
    }
}
