//! The processes of one run. Each is a rank: it trains on its parts of every batch, and all of them together compute
//! what one would.
//!
//! [`Ranks`] is how they talk: [`Alone`] is a run of one process, `Mpi` one that `mpirun` or `srun` started (feature
//! `mpi`). Only these pass anything on; nothing here opens a connection of its own.
//!
//! **The same numbers.** Floating-point sums depend on their order, so the order is fixed by the recipe and not by who
//! computes: a batch is divided into [`Parts`], each part is computed by itself on one rank, and the parts' gradients are
//! summed along one binary [`tree`] ([`reduce`]). Tiles of embeddings arrive in the order of the batch ([`ring`]). A run with
//! `ranks.parts` set gives the same bits on one rank and on as many as there are parts.

#![warn(missing_docs)]

mod agree;
mod alone;
mod config;
mod cores;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(all(feature = "mpi", feature = "cuda"))]
mod nccl;
mod parts;
pub mod reduce;
pub mod ring;
mod row;
mod shard;
mod together;
mod traffic;
pub mod tree;
#[cfg(feature = "mpi")]
mod watch;

use std::fmt;
use std::time::Duration;

pub use agree::{agree, hash, hash_of, host, Member};
pub use alone::Alone;
pub use config::{RanksConfig, Shard};
pub use launch::{join, Launched};
#[cfg(all(feature = "mpi", feature = "cuda"))]
pub use nccl::Nccl;
pub use parts::Parts;
pub use shard::Owners;
pub use together::Together;
pub use traffic::{Kind, Traffic};

/// Failures between ranks. A rank that is gone is none of them: then the run ends, see [`Ranks::end`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RanksError {
    /// A launcher started this process, and the binary cannot talk to the others.
    #[error(
        "started as rank {rank} of {count}, but this binary was built without the feature `mpi` \
         (cargo build --release --features mpi)"
    )]
    NotBuilt {
        /// Rank of this process, as the launcher says it.
        rank: String,
        /// Number of processes.
        count: String,
    },
    /// Slurm started this process without PMI.
    #[error(
        "Slurm started this as one of {count} tasks of a step and tells none of them how to meet: srun without PMI. Start it \
         with srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list shows what there is), or with --ntasks=1; where the tasks are \
         meant to be runs of their own, unset SLURM_STEP_NUM_TASKS"
    )]
    NoPmi {
        /// Number of tasks.
        count: String,
    },
    /// An MPI without threads.
    #[error("MPI gives no threads of their own to the exchanges (it offers {offered}); use an MPI with MPI_THREAD_MULTIPLE")]
    Threads {
        /// Level of threading that MPI offers.
        offered: String,
    },
    /// Ranks that would not compute the same run.
    #[error("the ranks of this run are not alike:\n{0}")]
    NotAlike(String),
    /// A batch that cannot be divided.
    #[error("ranks.parts: {0}")]
    Parts(String),
    /// NCCL, or the GPU.
    #[error("the exchange between GPUs failed: {0}")]
    Gpu(String),
    /// A message of another length than expected.
    #[error("an exchange between ranks brought {got} bytes where {expected} were expected; this is a bug")]
    Size {
        /// Bytes.
        expected: usize,
        /// Bytes.
        got: usize,
    },
}

/// A process among those of the run. Every operation but [`end`](Ranks::end) and [`mark`](Ranks::mark) is called by all
/// ranks in the same order, and waits for the others as far as it needs them.
pub trait Ranks: fmt::Debug + Send + Sync {
    /// From 0. Rank 0 writes the run folder and speaks on the terminal.
    fn rank(&self) -> usize;

    /// At least one.
    fn count(&self) -> usize;

    /// Every rank's bytes, in the order of ranks.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError>;

    /// The values of rank `from`, to all.
    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), RanksError>;

    /// `send[r]` goes to rank r, and what comes from rank r fills `receive[r]`, from and to wherever they lie. What a rank
    /// has for itself is copied.
    fn exchange(&self, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError>;

    /// Sends to the next rank in the ring and receives from the one before, both at once; either may be left out.
    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError>;

    /// Bytes that this rank has sent so far.
    fn traffic(&self) -> &Traffic;

    /// Says that this rank gets on, in work that takes long without an exchange.
    fn mark(&self) {}

    /// Says how long this rank may go without an exchange or a [`mark`](Ranks::mark) from the first mark on.
    fn expect_marks(&self, _within: Duration) {}

    /// Names this rank in messages.
    fn name(&self) -> String {
        format!("rank {} of {}", self.rank(), self.count())
    }

    /// Says goodbye at the end of a run that went well; waits for all.
    fn finish(&self) {}

    /// Ends the run on all ranks, without waiting for any, with this exit code.
    fn end(&self, code: u8) -> !;
}

/// Copies what rank `own` has for itself in an [exchange](Ranks::exchange) of `count` ranks.
fn keep_own(own: usize, count: usize, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError> {
    for given in [send.len(), receive.len()] {
        if given != count {
            return Err(RanksError::Size { expected: 4 * count, got: 4 * given });
        }
    }
    let (from, to) = (send[own], &mut *receive[own]);
    if from.len() != to.len() {
        return Err(RanksError::Size { expected: size_of_val(to), got: size_of_val(from) });
    }
    to.copy_from_slice(from);
    Ok(())
}

/// Cuts values that lie one after the other into pieces of these lengths, for an [exchange](Ranks::exchange).
pub fn cut<'a>(mut values: &'a [f32], lengths: &[usize]) -> Vec<&'a [f32]> {
    let next = |&length: &usize| {
        let (piece, rest) = values.split_at(length);
        values = rest;
        piece
    };
    lengths.iter().map(next).collect()
}

/// As [`cut`], to be written.
pub fn cut_mut<'a>(mut values: &'a mut [f32], lengths: &[usize]) -> Vec<&'a mut [f32]> {
    let next = |&length: &usize| {
        let (piece, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        piece
    };
    lengths.iter().map(next).collect()
}

/// Sends the values of one rank to another one, in place; called by all ranks.
///
/// # Errors
/// The exchange fails.
pub fn send(ranks: &dyn Ranks, from: usize, to: usize, values: &mut [f32]) -> Result<(), RanksError> {
    let mut send: Vec<&[f32]> = vec![&[]; ranks.count()];
    let mut receive: Vec<&mut [f32]> = (0..ranks.count()).map(|_| &mut [][..]).collect();
    match ranks.rank() {
        rank if rank == from => send[to] = values,
        rank if rank == to => receive[from] = values,
        _ => {}
    }
    ranks.exchange(&send, &mut receive)
}

/// Gives the bytes of rank 0 to all; those of the others are not looked at.
///
/// # Errors
/// The exchange fails.
pub fn broadcast_bytes(ranks: &dyn Ranks, own: &[u8]) -> Result<Vec<u8>, RanksError> {
    let own = if ranks.rank() == 0 { own } else { &[] };
    Ok(ranks.gather(own)?.swap_remove(0))
}
