//! Images on their way to a machine: those of the next step travel while this one is computed.
//!
//! There is one piece of memory for them. The first kernel of a forward pass reads it, and then it is free for the next
//! images, which are sent beside what is computed. Two points keep the two apart: a copy waits until the kernel that read
//! the memory last is over, and what reads it next waits until the copy is.

use std::sync::Arc;

use crate::kernel::cuda::{Machine, MachineError, View};

/// Bytes that stay as they are for as long as somebody has them.
pub type HeldBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Memory of a machine for the images of a micro-batch.
pub(super) struct Incoming<M: Machine> {
    memory: M::Buffer<u8>,
    len: usize,
    /// Behind all that uses the memory so far.
    free: M::Point,
    coming: Option<Coming<M>>,
}

/// Bytes that were sent and that nobody has read yet. They are held, so no others can be where they are.
struct Coming<M: Machine> {
    bytes: HeldBytes,
    arrived: M::Point,
}

impl<M: Machine> Incoming<M> {
    pub fn new(machine: &M) -> Result<Self, MachineError> {
        Ok(Incoming { memory: machine.zeros(0)?, len: 0, free: machine.point()?, coming: None })
    }

    /// Bytes of the memory.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Makes room; what is there is given up.
    fn room(&mut self, machine: &M, len: usize) -> Result<(), MachineError> {
        if len > self.len {
            self.memory = machine.zeros(len)?;
            self.len = len;
            self.free = machine.point()?;
        }
        Ok(())
    }

    /// Sends bytes that [`read`](Self::read) will be asked for. Nothing is done while others are on their way.
    pub fn send(&mut self, machine: &M, bytes: HeldBytes) -> Result<(), MachineError> {
        if self.coming.is_some() {
            return Ok(());
        }
        let values = (*bytes).as_ref();
        self.room(machine, values.len())?;
        let mut all = machine.view_mut(&mut self.memory);
        // SAFETY: `free` is behind all that uses the memory, and `read` waits before anything else does.
        let arrived = unsafe { machine.write_beside(all.part(0, values.len()), values, &self.free) }?;
        self.coming = Some(Coming { bytes, arrived });
        Ok(())
    }

    /// Launches what reads `bytes` in the memory of the machine: those that were sent, or any others.
    pub fn read(
        &mut self,
        machine: &M,
        bytes: &[u8],
        launch: impl FnOnce(View<u8>) -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        let mut there = false;
        if let Some(Coming { bytes: sent, arrived }) = self.coming.take() {
            // Others than those that were sent may not be written before these are there, either.
            machine.wait_for(&arrived)?;
            there = std::ptr::eq((*sent).as_ref(), bytes);
        }
        if !there {
            self.room(machine, bytes.len())?;
            machine.write(machine.view_mut(&mut self.memory).part(0, bytes.len()), bytes)?;
        }
        launch(machine.view(&self.memory).part(0, bytes.len()))?;
        self.free = machine.point()?;
        Ok(())
    }
}
