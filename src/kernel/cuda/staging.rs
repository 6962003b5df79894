//! Page-locked memory between the host and a GPU. From ordinary memory the driver copies piece by piece, and keeps the
//! caller until all that was launched before is done; from here it copies by itself, so that the caller can launch what
//! comes next while the GPU still computes.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUstream};

use super::event::Event;

/// Smaller copies are quick from any memory.
pub(super) const WORTH_IT: usize = 64 << 10;
/// Blocks at a time: of two steps, images and what belongs to them.
const BLOCKS: usize = 8;

/// Blocks of page-locked memory, each for one copy at a time.
#[derive(Debug, Default)]
pub(super) struct Staging(Mutex<Vec<Block>>);

#[derive(Debug)]
struct Block {
    at: *mut u8,
    bytes: usize,
    /// Reached when the GPU has read the block.
    read: Event,
}

// SAFETY: the memory belongs to the block alone.
unsafe impl Send for Block {}

impl Block {
    fn new(bytes: usize) -> Result<Self, DriverError> {
        let read = Event::new()?;
        let mut at: *mut c_void = std::ptr::null_mut();
        // SAFETY: the driver writes one pointer.
        unsafe { sys::cuMemAllocHost_v2(&mut at, bytes) }.result()?;
        Ok(Block { at: at.cast(), bytes, read })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // The GPU may still read it.
        let _ = self.read.wait();
        // SAFETY: taken in `new`, and used by nobody else. What cannot be freed is left.
        let _ = unsafe { sys::cuMemFreeHost(self.at.cast()) };
    }
}

impl Staging {
    /// Copies to memory of the GPU, in the order of the stream. The values may change as soon as this is over.
    ///
    /// # Safety
    /// There must be as much memory at `to`, written by nobody else until the copy is done.
    pub unsafe fn copy(&self, to: u64, values: &[u8], stream: CUstream) -> Result<(), DriverError> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let block = match Self::free(&mut blocks, values.len())? {
            Some(block) => block,
            None => {
                if blocks.len() >= BLOCKS {
                    // The one that was used first; it waits for its copy.
                    drop(blocks.remove(0));
                }
                blocks.push(Block::new(values.len().next_power_of_two())?);
                blocks.len() - 1
            }
        };
        let block = &blocks[block];
        std::ptr::copy_nonoverlapping(values.as_ptr(), block.at, values.len());
        let staged = std::slice::from_raw_parts(block.at, values.len());
        result::memcpy_htod_async(to, staged, stream)?;
        block.read.record(stream)
    }

    /// The smallest block that has room and is not being read.
    fn free(blocks: &mut [Block], bytes: usize) -> Result<Option<usize>, DriverError> {
        let mut found: Option<usize> = None;
        for (i, block) in blocks.iter().enumerate() {
            let smaller = found.is_none_or(|found| block.bytes < blocks[found].bytes);
            if block.bytes >= bytes && smaller && block.read.reached()? {
                found = Some(i);
            }
        }
        Ok(found)
    }
}
