//! Kernels of the fused encoders, the loss and the optimizer: slices and sizes only, no graph and no
//! configuration. Every operation takes a [`Cpu`] first, then its outputs, inputs and sizes.
//!
//! - One source for all instruction sets: kernels are written over [`lanes::Lanes`] and compiled for each
//!   [`isa::Isa`]; which one runs is decided when a [`Cpu`] is made.
//! - Two number types: [`element::Element`] is what activations are stored in and products are taken of.
//!   Sums, the residual stream, statistics, the loss and the optimizer are f32.
//! - Results do not depend on the number of threads: a sum is taken in one order, by one thread or in blocks
//!   of a fixed size.
//! - Gradients: parameters `+=`, activations `=`, unless the operation says otherwise.
//! - The same operation in plain double precision is beside each kernel, as its reference.
//!
//! | operation | forward and backward |
//! |---|---|
//! | [`gemm`] | linear layers with bias, activation, residual sum; input and weight gradients |
//! | [`attention`] | short sequences, a whole head in cache |
//! | [`attention_pool`] | one learned query over the tokens of a sequence |
//! | [`layer_norm`], [`activation`] | with what surrounds them fused in |
//! | [`patches`], [`tokens`], [`pool`], [`unit_norm`] | from pixels and ids to unit vectors |
//! | [`transformer`] | a stack of blocks: parameters, saved activations, both passes |
//! | [`contrastive`] | the loss in tiles |
//! | [`global_norm`], [`adamw`] | the update |
//!
//! Most have a module `cuda` with the launcher and the kernel of the same operation for a GPU; see [`cuda`]. What encoders are
//! written over, on either, is a [`backend`].

pub mod activation;
pub mod adamw;
pub mod arena;
pub mod attention;
pub mod attention_pool;
pub mod backend;
pub mod contrastive;
pub mod cuda;
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
pub mod view;

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
