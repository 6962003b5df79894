//! The processes of one run. Each is a rank: it trains on its parts of every batch, and all of them together compute
//! what one would.
//!
//! [`Ranks`] is how they talk: [`Alone`] is a run of one process, `Mpi` one that `mpirun` or `srun` started (feature
//! `mpi`). Only these pass anything on; nothing here opens a connection of its own.
//!
//! **The same numbers.** Floating-point sums depend on their order, so the order is fixed by the recipe and not by who
//! computes: a batch is divided into [`Parts`], each part is computed by itself on one rank, and the parts' gradients are
//! added along one binary tree ([`tree`]). Tiles of embeddings arrive in the order of the batch ([`ring`]). A run with
//! `ranks.parts` set gives the same bits on one rank and on as many as there are parts.

mod agree;
mod alone;
mod config;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(all(feature = "mpi", feature = "cuda"))]
mod nccl;
mod parts;
pub mod ring;
pub mod shard;
mod together;
mod traffic;
pub mod tree;
#[cfg(feature = "mpi")]
mod watch;

use std::fmt;
use std::time::Duration;

pub use agree::{agree, hash, host, Member};
pub use alone::Alone;
pub use config::{RanksConfig, Shard};
pub use launch::{join, Launched};
#[cfg(all(feature = "mpi", feature = "cuda"))]
pub use nccl::Nccl;
pub use parts::Parts;
pub use together::Together;
pub use traffic::{Kind, Traffic};

/// What can go wrong between ranks. A rank that is gone is none of it: then the run ends, see [`Ranks::end`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RanksError {
    #[error(
        "started as rank {rank} of {count}, but this binary was built without the feature `mpi` \
         (cargo build --release --features mpi)"
    )]
    NotBuilt { rank: String, count: String },
    #[error("MPI gives no threads of their own to the exchanges (it offers {offered}); use an MPI with MPI_THREAD_MULTIPLE")]
    Threads { offered: String },
    #[error("the ranks of this run are not alike:\n{0}")]
    NotAlike(String),
    #[error("ranks.parts: {0}")]
    Parts(String),
    #[error("the exchange between GPUs failed: {0}")]
    Gpu(String),
    #[error("an exchange between ranks brought {got} bytes where {expected} were expected; this is a bug")]
    Size { expected: usize, got: usize },
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

    /// `send` holds what goes to rank 0, to rank 1 and so on, `sent` values to each; `receive` will hold what comes from
    /// each, `received` values.
    fn exchange(
        &self,
        send: &[f32],
        sent: &[usize],
        receive: &mut [f32],
        received: &[usize],
    ) -> Result<(), RanksError>;

    /// Sends to the next rank in the ring and receives from the one before, both at once; either may be left out.
    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError>;

    /// What this rank has sent so far.
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

/// Whether the pieces of an [exchange](Ranks::exchange) are as long together as what they are pieces of.
fn check_lengths(
    send: &[f32],
    sent: &[usize],
    receive: &[f32],
    received: &[usize],
) -> Result<(), RanksError> {
    for (pieces, whole) in [(sent, send.len()), (received, receive.len())] {
        let expected = pieces.iter().sum::<usize>();
        if expected != whole {
            return Err(RanksError::Size { expected: 4 * expected, got: 4 * whole });
        }
    }
    Ok(())
}

/// The values of rank 0, one byte string, to all: what the others give is not looked at.
///
/// # Errors
/// The exchange fails.
pub fn from_first(ranks: &dyn Ranks, own: &[u8]) -> Result<Vec<u8>, RanksError> {
    let own = if ranks.rank() == 0 { own } else { &[] };
    Ok(ranks.gather(own)?.swap_remove(0))
}
