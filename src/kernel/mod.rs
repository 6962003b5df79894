//! What the encoders, the loss and the optimizer compute, on slices and sizes only.
pub mod activation;
pub mod adamw;
pub mod attention;
pub mod contrastive;
pub mod element;
pub mod gemm;
pub mod global_norm;
pub mod isa;
pub mod lanes;
pub mod layer_norm;
pub mod math;
pub mod patches;
pub mod pool;
pub mod scratch;
pub mod threads;
pub mod tokens;
pub mod transformer;
pub mod unit_norm;

use std::sync::{Mutex, MutexGuard};

use isa::Isa;
use scratch::Scratch;
use threads::Threads;

/// The processor as kernels see it: an instruction set, threads, and scratch memory of each.
#[derive(Debug)]
pub struct Cpu {
    isa: Isa,
    threads: Threads,
    /// One for each thread.
    own: Vec<Mutex<Scratch>>,
    /// Packed operands that all threads read.
    left: Mutex<Scratch>,
    right: Mutex<Scratch>,
}

impl Cpu {
    /// Kernels on an instruction set and a number of threads.
    ///
    /// # Errors
    /// If this processor lacks the instruction set, or threads cannot be started.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, String> {
        if !isa.available() {
            return Err(format!("this processor has no {}", isa.name()));
        }
        let threads = Threads::new(threads)?;
        let own = (0..threads.count()).map(|_| Mutex::default()).collect();
        Ok(Cpu { isa, threads, own, left: Mutex::default(), right: Mutex::default() })
    }

    /// Scratch memory of the thread `slot`.
    fn own(&self, slot: usize) -> MutexGuard<'_, Scratch> {
        // What a panicking thread left is overwritten before it is read.
        self.own[slot].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }
    pub fn threads(&self) -> &Threads {
        &self.threads
    }
}
