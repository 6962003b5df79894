//! Images on their way to a GPU: those of the next step travel while this one is computed.
//!
//! There is one piece of memory for them. The first kernel of a forward pass reads it, and then it is free for the next
//! images, which are sent beside what is computed. Two points keep the two apart: a copy waits until the kernel that read
//! the memory last is over, and what reads it next waits until the copy is.

use crate::kernel::backend::HeldBytes;
use crate::kernel::cuda::{Gpu, GpuError, View};

/// Memory of a GPU for the images of a micro-batch.
pub struct Incoming<G: Gpu> {
    memory: G::Buffer<u8>,
    len: usize,
    /// Behind all that uses the memory so far.
    free: G::Point,
    coming: Option<Coming<G>>,
}

/// Bytes that were sent and that nobody has read yet. They are held, so no others can be where they are.
struct Coming<G: Gpu> {
    bytes: HeldBytes,
    arrived: G::Point,
}

impl<G: Gpu> Incoming<G> {
    pub fn new(gpu: &G) -> Result<Self, GpuError> {
        Ok(Incoming { memory: gpu.zeros(0)?, len: 0, free: gpu.point()?, coming: None })
    }

    /// Bytes of the memory.
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Makes room; what is there is given up.
    fn room(&mut self, gpu: &G, len: usize) -> Result<(), GpuError> {
        if len > self.len {
            self.memory = gpu.zeros(len)?;
            self.len = len;
            self.free = gpu.point()?;
        }
        Ok(())
    }

    /// Sends bytes that [`read`](Self::read) will be asked for. Nothing is done while others are on their way.
    pub fn send(&mut self, gpu: &G, bytes: HeldBytes) -> Result<(), GpuError> {
        if self.coming.is_some() {
            return Ok(());
        }
        let values = (*bytes).as_ref();
        self.room(gpu, values.len())?;
        let mut all = gpu.view_mut(&mut self.memory);
        // SAFETY: `free` is behind all that uses the memory, and `read` waits before anything else does.
        let arrived = unsafe { gpu.write_beside(all.part(0, values.len()), values, &self.free) }?;
        self.coming = Some(Coming { bytes, arrived });
        Ok(())
    }

    /// Launches what reads `bytes` in the memory of the GPU: those that were sent, or any others.
    pub fn read(
        &mut self,
        gpu: &G,
        bytes: &[u8],
        launch: impl FnOnce(View<u8>) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let mut there = false;
        if let Some(Coming { bytes: sent, arrived }) = self.coming.take() {
            // Others than those that were sent may not be written before these are there, either.
            gpu.wait_for(&arrived)?;
            there = std::ptr::eq((*sent).as_ref(), bytes);
        }
        if !there {
            self.room(gpu, bytes.len())?;
            gpu.write(gpu.view_mut(&mut self.memory).part(0, bytes.len()), bytes)?;
        }
        launch(gpu.view(&self.memory).part(0, bytes.len()))?;
        self.free = gpu.point()?;
        Ok(())
    }
}
