//! A parallel for over pieces of work. Which thread takes which piece varies; what a piece computes, and
//! the order of every sum, does not, so results do not depend on the number of threads.

use std::sync::Mutex;

/// The threads that kernels run on: the caller and `count - 1` helpers.
pub struct Threads {
    count: usize,
    helpers: Option<rayon::ThreadPool>,
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Threads({})", self.count)
    }
}

impl Threads {
    /// `count` threads, at least one.
    ///
    /// # Errors
    /// If the system refuses to start them.
    pub fn new(count: usize) -> Result<Self, String> {
        let count = count.max(1);
        let helpers = match count {
            1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(count - 1)
                    .thread_name(|i| format!("kernel-{}", i + 1))
                    .build()
                    .map_err(|error| format!("cannot start {count} kernel threads: {error}"))?,
            ),
        };
        Ok(Threads { count, helpers })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `work(slot, piece)` for every piece; each thread takes the next one when it is free. `slot` is
    /// the number of the thread, below [`count`](Self::count).
    pub fn each<I>(&self, pieces: I, work: impl Fn(usize, I::Item) + Sync)
    where
        I: IntoIterator<IntoIter: ExactSizeIterator + Send>,
        I::Item: Send,
    {
        let mut pieces = pieces.into_iter();
        let helpers = match &self.helpers {
            Some(pool) if pieces.len() > 1 => pool,
            _ => return pieces.for_each(|piece| work(0, piece)),
        };
        let wanted = (self.count - 1).min(pieces.len() - 1);
        let queue = Mutex::new(&mut pieces);
        let take = |slot: usize| loop {
            // A poisoned lock means that another thread panicked between pieces: nothing is left to do.
            let Some(piece) = queue.lock().ok().and_then(|mut queue| queue.next()) else { break };
            work(slot, piece);
        };
        helpers.in_place_scope(|scope| {
            for slot in 1..=wanted {
                let take = &take;
                scope.spawn(move |_| take(slot));
            }
            take(0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for count in [1, 2, 3] {
            let threads = Threads::new(count).unwrap();
            let mut done = vec![0u8; 1000];
            threads.each(done.chunks_mut(7), |slot, piece| {
                assert!(slot < count);
                piece.iter_mut().for_each(|x| *x += 1);
            });
            assert!(done.iter().all(|&x| x == 1));
            threads.each(std::iter::empty::<u8>(), |_, _| unreachable!("no pieces"));
        }
    }
}
