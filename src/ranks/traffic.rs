//! Counts what a rank sends.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Embeddings on their way round the ring.
    Ring,
    /// Gradients to who adds them up, and sums back.
    Exchange,
    /// From one rank to all.
    Broadcast,
    /// Agreements, positions and scalars.
    Gather,
}

/// Bytes handed to the transport for other ranks; what a rank keeps for itself does not count.
#[derive(Debug, Default)]
pub struct Traffic {
    bytes: [AtomicU64; 4],
}

impl Traffic {
    /// Counts bytes that were sent.
    pub fn add(&self, kind: Kind, bytes: usize) {
        self.bytes[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of this kind so far.
    pub fn sent(&self, kind: Kind) -> u64 {
        self.bytes[kind as usize].load(Ordering::Relaxed)
    }
}
