//! What a source is doing right now, so that a stall can be told from slow progress, and named.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads in progress, and a count that grows whenever one of them gets somewhere.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    reads: Mutex<Vec<Read>>,
}

#[derive(Debug)]
struct Read {
    number: u64,
    since: Instant,
    what: Arc<str>,
}

impl Pulse {
    /// Something got somewhere: bytes came in, a shard was indexed.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Changes with every sign of progress.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    /// Notes that something is being read until the answer is dropped.
    pub fn reading(self: &Arc<Self>, what: Arc<str>) -> Reading {
        let mut reads = self.reads();
        let number = reads.last().map_or(0, |last| last.number + 1);
        reads.push(Read { number, since: Instant::now(), what });
        Reading { pulse: self.clone(), number }
    }

    /// What has been read for longest, and for how long.
    pub fn oldest(&self) -> Option<(String, Duration)> {
        // Reads are kept in the order in which they began.
        self.reads().first().map(|read| (read.what.to_string(), read.since.elapsed()))
    }

    fn reads(&self) -> MutexGuard<'_, Vec<Read>> {
        // A list of strings is valid whatever happened to a thread that held it.
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read in progress; it ends when this is dropped.
#[derive(Debug)]
pub struct Reading {
    pulse: Arc<Pulse>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reads = self.pulse.reads();
        if let Some(at) = reads.iter().position(|read| read.number == self.number) {
            reads.remove(at);
        }
        drop(reads);
        self.pulse.beat();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_read_is_named_until_it_ends() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(pulse.oldest(), None);
        let first = pulse.reading("a.tar".into());
        let second = pulse.reading("b.tar".into());
        assert_eq!(pulse.oldest().unwrap().0, "a.tar");
        drop(first);
        assert_eq!(pulse.oldest().unwrap().0, "b.tar");
        let third = pulse.reading("c.tar".into());
        drop(second);
        assert_eq!(pulse.oldest().unwrap().0, "c.tar");
        drop(third);
        assert_eq!((pulse.oldest(), pulse.beats()), (None, 3));
    }
}
