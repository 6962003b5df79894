//! Ranks that `mpirun` or `srun` started, over MPI.
//!
//! Exchanges block; [`Watch`] sees to it that none waits for a rank that is gone. MPI's own errors end the run.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use mpi::{Count, Threading};

use super::watch::Watch;
use super::{Kind, Ranks, RanksError, Traffic};

/// This process among those of `MPI_COMM_WORLD`.
pub struct Mpi {
    world: Shared,
    watch: Watch,
    traffic: Traffic,
    rank: usize,
    count: usize,
    /// Values of a message.
    most: usize,
    /// MPI itself, until the run is over.
    universe: Mutex<Option<Main>>,
}

/// A communicator that threads may share.
struct Shared(SimpleCommunicator);

// SAFETY: MPI was started with MPI_THREAD_MULTIPLE, which lets any thread call it; a communicator is a handle.
unsafe impl Send for Shared {}
// SAFETY: as above; ranks call collective operations one after the other, as `Ranks` asks for.
unsafe impl Sync for Shared {}

/// Ends MPI when it is dropped.
struct Main(#[allow(dead_code)] Universe);

// SAFETY: only kept, and dropped by `finish`, which the thread calls that started MPI.
unsafe impl Send for Main {}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpi({} of {})", self.rank, self.count)
    }
}

impl Mpi {
    /// Starts MPI, and the watch over the other ranks.
    ///
    /// # Errors
    /// The MPI of this machine has no threads.
    pub fn start() -> Result<Mpi, RanksError> {
        let wanted = Threading::Multiple;
        let (universe, offered) = mpi::initialize_with_threading(wanted)
            .ok_or_else(|| RanksError::Threads { offered: "nothing: it was started before".into() })?;
        if offered < wanted {
            return Err(RanksError::Threads { offered: format!("{offered:?}") });
        }
        let world = universe.world();
        let (rank, count) = (world.rank() as usize, world.size() as usize);
        let own = format!("rank {rank} of {count} (host {}, process {})", super::host(), std::process::id());
        let names = gathered(&world, own.as_bytes());
        let names: Vec<String> =
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let watch = Watch::start(world.duplicate(), rank, names);
        let universe = Mutex::new(Some(Main(universe)));
        Ok(Mpi {
            world: Shared(world),
            watch,
            traffic: Traffic::default(),
            rank,
            count,
            most: MOST,
            universe,
        })
    }
}

/// Begin of each of several pieces.
fn offsets(counts: &[Count]) -> Vec<Count> {
    let mut end = 0;
    let begin = |&count: &Count| {
        end += count;
        end - count
    };
    counts.iter().map(begin).collect()
}

/// The bytes of every rank.
fn gathered(world: &SimpleCommunicator, own: &[u8]) -> Vec<Vec<u8>> {
    let mut lengths = vec![0 as Count; world.size() as usize];
    world.all_gather_into(&(own.len() as Count), &mut lengths[..]);
    // Open MPI takes the address 1, which a slice of no bytes may have, for MPI_IN_PLACE.
    let own = if own.is_empty() { &[0u8][..0] } else { own };
    let mut all = vec![0u8; lengths.iter().map(|&length| length as usize).sum::<usize>().max(1)];
    let places = offsets(&lengths);
    let mut into = PartitionMut::new(&mut all[..], &lengths[..], &places[..]);
    world.all_gather_varcount_into(own, &mut into);
    let piece = |(&at, &length): (&Count, &Count)| all[at as usize..][..length as usize].to_vec();
    places.iter().zip(&lengths).map(piece).collect()
}

/// MPI counts in 31 bits: what is longer goes in pieces of so many values.
const MOST: usize = 1 << 30;

impl Mpi {
    /// Sends to a rank and receives from one, at once; the other side has pieces of the same lengths.
    fn trade(&self, on: Option<(usize, &[f32])>, into: Option<(usize, &mut [f32])>) {
        let ((next, on), (before, into)) = (on.unwrap_or((0, &[])), into.unwrap_or((0, &mut [])));
        let next = self.world.0.process_at_rank(next as i32);
        let before = self.world.0.process_at_rank(before as i32);
        let (mut on, mut into) = (on.chunks(self.most), into.chunks_mut(self.most));
        loop {
            let (on, into) = (on.next(), into.next());
            if on.is_none() && into.is_none() {
                return;
            }
            mpi::request::scope(|scope| {
                let receiving = into.map(|into| before.immediate_receive_into(scope, into));
                if let Some(on) = on {
                    next.immediate_send(scope, on).wait();
                }
                if let Some(receiving) = receiving {
                    receiving.wait();
                }
            });
        }
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.count
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let _waiting = self.watch.waiting();
        self.traffic.add(Kind::Gather, (own.len() + size_of::<Count>()) * (self.count - 1));
        Ok(gathered(&self.world.0, own))
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), RanksError> {
        let _waiting = self.watch.waiting();
        for piece in values.chunks_mut(self.most) {
            self.world.0.process_at_rank(from as i32).broadcast_into(piece);
        }
        if from == self.rank {
            self.traffic.add(Kind::Broadcast, size_of_val(values) * (self.count - 1));
        }
        Ok(())
    }

    fn exchange(&self, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError> {
        let (rank, count) = (self.rank, self.count);
        super::keep_own(rank, count, send, receive)?;
        let _waiting = self.watch.waiting();
        // In every turn each rank sends to one and receives from one.
        for turn in 1..count {
            let (next, before) = ((rank + turn) % count, (rank + count - turn) % count);
            self.traffic.add(Kind::Exchange, size_of_val(send[next]));
            self.trade(Some((next, send[next])), Some((before, &mut *receive[before])));
        }
        Ok(())
    }

    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError> {
        let _waiting = self.watch.waiting();
        let (next, before) = ((self.rank + 1) % self.count, (self.rank + self.count - 1) % self.count);
        self.traffic.add(Kind::Ring, on.map_or(0, size_of_val));
        self.trade(on.map(|values| (next, values)), into.map(|values| (before, values)));
        Ok(())
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn mark(&self) {
        self.watch.mark();
    }

    fn expect_marks(&self, within: Duration) {
        self.watch.expect_marks(within);
    }

    fn name(&self) -> String {
        self.watch.name(self.rank).to_owned()
    }

    fn finish(&self) {
        let waiting = self.watch.waiting();
        self.world.0.barrier();
        drop(waiting);
        self.watch.stop();
        self.world.0.barrier();
        drop(self.universe.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    }

    fn end(&self, code: u8) -> ! {
        self.world.0.abort(code.into())
    }
}
