//! Reads in progress, so that a stall can be told from a slow source, and named.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Reads in progress, and a count that grows whenever one of them gets somewhere.
#[derive(Debug, Default)]
pub struct Progress {
    steps: AtomicU64,
    reads: Mutex<Vec<Read>>,
}

#[derive(Debug)]
struct Read {
    number: u64,
    since: Instant,
    what: Arc<str>,
}

impl Progress {
    /// Counts a step: bytes came in, a shard was indexed.
    pub fn advance(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Steps so far; another number than before is progress.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Notes that `what` is being read until the guard is dropped.
    pub fn reading(self: &Arc<Self>, what: Arc<str>) -> Reading {
        let mut reads = self.reads();
        let number = reads.last().map_or(0, |last| last.number + 1);
        reads.push(Read { number, since: Instant::now(), what });
        Reading { progress: self.clone(), number }
    }

    /// The read that began first of those in progress, and how long ago.
    pub fn oldest_read(&self) -> Option<(String, Duration)> {
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
    progress: Arc<Progress>,
    number: u64,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut reads = self.progress.reads();
        if let Some(at) = reads.iter().position(|read| read.number == self.number) {
            reads.remove(at);
        }
        drop(reads);
        self.progress.advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_read_is_named_until_it_ends() {
        let progress = Arc::new(Progress::default());
        assert_eq!(progress.oldest_read(), None);
        let first = progress.reading("a.tar".into());
        let second = progress.reading("b.tar".into());
        assert_eq!(progress.oldest_read().unwrap().0, "a.tar");
        drop(first);
        assert_eq!(progress.oldest_read().unwrap().0, "b.tar");
        let third = progress.reading("c.tar".into());
        drop(second);
        assert_eq!(progress.oldest_read().unwrap().0, "c.tar");
        drop(third);
        assert_eq!((progress.oldest_read(), progress.steps()), (None, 3));
    }
}
