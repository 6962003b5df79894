//! Ranks that `mpirun` or `srun` started, over MPI.
//!
//! Exchanges block; [`Watch`] sees to it that none waits for a rank that is gone. MPI's own errors end the run.

use std::fmt;
use std::sync::Mutex;

use mpi::datatype::{Partition, PartitionMut};
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
        Ok(Mpi { world: Shared(world), watch, traffic: Traffic::default(), rank, count, universe })
    }
}

/// Where each of several pieces begins.
fn offsets(counts: &[Count]) -> Vec<Count> {
    let mut end = 0;
    let begin = |&count: &Count| {
        end += count;
        end - count
    };
    counts.iter().map(begin).collect()
}

/// As MPI counts.
fn counts(lengths: &[usize]) -> Vec<Count> {
    lengths.iter().map(|&length| length as Count).collect()
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

/// MPI counts in 31 bits: longer exchanges go in pieces of so many values.
const MOST: usize = 1 << 30;

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
        for piece in values.chunks_mut(MOST) {
            self.world.0.process_at_rank(from as i32).broadcast_into(piece);
        }
        if from == self.rank {
            self.traffic.add(Kind::Broadcast, size_of_val(values) * (self.count - 1));
        }
        Ok(())
    }

    fn exchange(
        &self,
        send: &[f32],
        sent: &[usize],
        receive: &mut [f32],
        received: &[usize],
    ) -> Result<(), RanksError> {
        let (out, back) = (sent.iter().sum::<usize>(), received.iter().sum::<usize>());
        if (out, back) != (send.len(), receive.len()) || out.max(back) > i32::MAX as usize {
            return Err(RanksError::Size { expected: out * 4, got: send.len() * 4 });
        }
        let _waiting = self.watch.waiting();
        let (sent, received) = (counts(sent), counts(received));
        let (from, to) = (offsets(&sent), offsets(&received));
        self.traffic.add(Kind::Exchange, 4 * (out - sent[self.rank] as usize));
        let send = Partition::new(send, &sent[..], &from[..]);
        let mut receive = PartitionMut::new(receive, &received[..], &to[..]);
        self.world.0.all_to_all_varcount_into(&send, &mut receive);
        Ok(())
    }

    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError> {
        let _waiting = self.watch.waiting();
        let next = self.world.0.process_at_rank(((self.rank + 1) % self.count) as i32);
        let before = self.world.0.process_at_rank(((self.rank + self.count - 1) % self.count) as i32);
        mpi::request::scope(|scope| {
            let receiving = into.map(|into| before.immediate_receive_into(scope, into));
            if let Some(on) = on {
                self.traffic.add(Kind::Ring, size_of_val(on));
                next.immediate_send(scope, on).wait();
            }
            if let Some(receiving) = receiving {
                receiving.wait();
            }
        });
        Ok(())
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn mark(&self) {
        self.watch.mark();
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
