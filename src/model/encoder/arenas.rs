//! Memory of passes, taken once for a size of batch and used again in every step.

use crate::kernel::backend::Backend;
use crate::kernel::transformer::Keep;
use crate::parameter::Tower;

/// The use that an arena is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Purpose {
    pub tower: Tower,
    pub batch: usize,
    /// Kept patches or tokens of each.
    pub kept: usize,
    /// Patches along a side of the image; 0 of a caption.
    pub grid: usize,
    /// Patches come as floats.
    pub floats: bool,
    pub keep: Keep,
}

/// A recorded forward pass, for its backward pass.
pub struct Pass<B: Backend> {
    pub(super) purpose: Purpose,
    pub(super) memory: B::Buffer<u8>,
    /// Of the memory.
    pub(super) bytes: usize,
    /// Positions of the kept patches or tokens.
    pub(super) ids: Vec<u32>,
    /// Tokens of captions.
    pub(super) tokens: Vec<u32>,
}

/// Arenas that are not in use.
pub(super) struct Arenas<B: Backend> {
    free: Vec<Free<B>>,
    /// Arenas in use, and how many ever were at a time: as many are kept, where a step records several micro-batches
    /// before it runs them backward.
    out: usize,
    most: usize,
}

struct Free<B: Backend> {
    purpose: Purpose,
    bytes: usize,
    memory: B::Buffer<u8>,
}

/// Arenas kept for later, at least: training and evaluation, of each encoder.
const KEPT: usize = 4;

impl<B: Backend> Arenas<B> {
    pub fn new() -> Self {
        Arenas { free: Vec::new(), out: 0, most: 0 }
    }

    /// Bytes of the arenas that are not in use.
    pub fn bytes(&self) -> usize {
        self.free.iter().map(|free| free.bytes).sum()
    }

    /// An arena of as many bytes, with the contents of its last use. Where the device has no room for a new one, those that are not
    /// in use make way.
    pub fn take(&mut self, backend: &B, purpose: Purpose, bytes: usize) -> Result<B::Buffer<u8>, B::Error> {
        let found = self.free.iter().position(|free| free.purpose == purpose);
        let memory = match found {
            Some(index) => self.free.remove(index).memory,
            None => match backend.zeros(bytes) {
                Err(_) if !self.free.is_empty() => {
                    self.free.clear();
                    backend.zeros(bytes)?
                }
                made => made?,
            },
        };
        self.out += 1;
        self.most = self.most.max(self.out);
        Ok(memory)
    }

    /// The pass, where it is `wanted`; else its arena is free again.
    pub fn keep(&mut self, pass: Pass<B>, wanted: bool) -> Option<Pass<B>> {
        if wanted {
            return Some(pass);
        }
        self.out = self.out.saturating_sub(1);
        if self.free.len() >= self.most.max(KEPT) {
            self.free.remove(0);
        }
        let Pass { purpose, memory, bytes, .. } = pass;
        self.free.push(Free { purpose, bytes, memory });
        None
    }
}
