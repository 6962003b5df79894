//! Ranks that are threads of one process: to try out and to test what ranks do, without a launcher.

use std::sync::{Arc, Barrier, Mutex, PoisonError};

use crossbeam_channel::{unbounded, Receiver, Sender};

use super::{Kind, Ranks, RanksError, Traffic};

/// One of several threads that compute together.
#[derive(Debug)]
pub struct Together {
    rank: usize,
    room: Arc<Room>,
    next: Sender<Vec<f32>>,
    before: Receiver<Vec<f32>>,
    traffic: Traffic,
}

/// Memory that they share.
#[derive(Debug)]
struct Room {
    bytes: Mutex<Vec<Vec<u8>>>,
    values: Mutex<Vec<Vec<f32>>>,
    barrier: Barrier,
}

impl Together {
    /// So many ranks; each goes to a thread of its own.
    pub fn of(count: usize) -> Vec<Together> {
        let room = Arc::new(Room {
            bytes: Mutex::new(vec![Vec::new(); count]),
            values: Mutex::new(vec![Vec::new(); count * count]),
            barrier: Barrier::new(count),
        });
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded()).unzip();
        let mut senders: Vec<_> = senders.into_iter().map(Some).collect();
        let ring = receivers.into_iter().enumerate();
        ring.filter_map(|(rank, before)| {
            let next = senders[(rank + 1) % count].take()?;
            Some(Together { rank, room: room.clone(), next, before, traffic: Traffic::default() })
        })
        .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ranks for Together {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        lock(&self.room.bytes).len()
    }

    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        self.traffic.add(Kind::Gather, own.len() * (self.count() - 1));
        lock(&self.room.bytes)[self.rank] = own.to_vec();
        self.room.barrier.wait();
        let all = lock(&self.room.bytes).clone();
        self.room.barrier.wait();
        Ok(all)
    }

    fn broadcast(&self, from: usize, values: &mut [f32]) -> Result<(), RanksError> {
        if from == self.rank {
            self.traffic.add(Kind::Broadcast, size_of_val(values) * (self.count() - 1));
            lock(&self.room.values)[from] = values.to_vec();
        }
        self.room.barrier.wait();
        values.copy_from_slice(&lock(&self.room.values)[from]);
        self.room.barrier.wait();
        Ok(())
    }

    fn exchange(&self, send: &[&[f32]], receive: &mut [&mut [f32]]) -> Result<(), RanksError> {
        let count = self.count();
        super::keep_own(self.rank, count, send, receive)?;
        for (to, piece) in send.iter().enumerate().filter(|(to, _)| *to != self.rank) {
            self.traffic.add(Kind::Exchange, size_of_val(*piece));
            lock(&self.room.values)[self.rank * count + to] = piece.to_vec();
        }
        self.room.barrier.wait();
        for (from, piece) in receive.iter_mut().enumerate().filter(|(from, _)| *from != self.rank) {
            let values = std::mem::take(&mut lock(&self.room.values)[from * count + self.rank]);
            if values.len() != piece.len() {
                return Err(RanksError::Size { expected: 4 * piece.len(), got: 4 * values.len() });
            }
            piece.copy_from_slice(&values);
        }
        self.room.barrier.wait();
        Ok(())
    }

    fn pass(&self, on: Option<&[f32]>, into: Option<&mut [f32]>) -> Result<(), RanksError> {
        let gone = RanksError::Size { expected: 4, got: 0 };
        if let Some(on) = on {
            self.traffic.add(Kind::Ring, size_of_val(on));
            self.next.send(on.to_vec()).map_err(|_| gone.clone())?;
        }
        if let Some(into) = into {
            let values = self.before.recv().map_err(|_| gone)?;
            if values.len() != into.len() {
                return Err(RanksError::Size { expected: 4 * into.len(), got: 4 * values.len() });
            }
            into.copy_from_slice(&values);
        }
        Ok(())
    }

    fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn end(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}
