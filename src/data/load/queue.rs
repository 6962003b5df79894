//! What the walks of a loader have handed out, on its way to whoever stacks batches: a queue of each, of which none
//! becomes long, whichever of them is emptied faster.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Nothing came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// In time.
    Yet,
    /// And nothing will.
    More,
}

/// A queue for each of several walks.
pub(crate) struct Queues<T> {
    state: Mutex<State<T>>,
    /// Something was taken, or the walks are not wanted any more.
    taken: Condvar,
    /// Something was put in.
    put: Condvar,
    /// Things in a queue.
    most: usize,
}

struct State<T> {
    walks: Vec<Walk<T>>,
    /// The walk that is served next, where several have as much room.
    next: usize,
    /// Nobody takes, or nobody puts in, any more.
    closed: bool,
}

struct Walk<T> {
    queue: VecDeque<T>,
    /// Samples that may yet be handed out.
    wanted: u64,
    ended: bool,
}

impl<T> Queues<T> {
    /// Queues of `most` things, for walks that each hand out `wanted` samples that can be used.
    pub fn new(walks: usize, most: usize, wanted: u64) -> Self {
        let walk = || Walk { queue: VecDeque::new(), wanted, ended: false };
        let walks = (0..walks).map(|_| walk()).collect();
        Queues {
            state: Mutex::new(State { walks, next: 0, closed: false }),
            taken: Condvar::new(),
            put: Condvar::new(),
            most: most.max(1),
        }
    }

    /// Waits for the walk whose queue is shortest to have room: its number, and how many samples it may hand out. `None`
    /// when nothing is wanted any more.
    pub fn room(&self) -> Option<(usize, u64)> {
        let mut state = self.lock();
        loop {
            if state.closed || state.walks.iter().all(|walk| walk.ended) {
                return None;
            }
            let (walks, next) = (state.walks.len(), state.next);
            let open = (0..walks).map(|turn| (next + turn) % walks).filter(|&walk| {
                let Walk { queue, wanted, ended } = &state.walks[walk];
                !ended && *wanted > 0 && queue.len() < self.most
            });
            if let Some(walk) = open.min_by_key(|&walk| state.walks[walk].queue.len()) {
                state.next = (walk + 1) % walks;
                return Some((walk, state.walks[walk].wanted));
            }
            state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts in what a walk handed out, so many samples.
    pub fn put(&self, walk: usize, thing: T, samples: u64) {
        let mut state = self.lock();
        state.walks[walk].wanted = state.walks[walk].wanted.saturating_sub(samples);
        state.walks[walk].queue.push_back(thing);
        self.put.notify_one();
    }

    /// A walk hands out nothing more.
    pub fn end(&self, walk: usize) {
        self.lock().walks[walk].ended = true;
    }

    /// A sample of a walk cannot be used: another is wanted in its place.
    pub fn replace(&self, walk: usize) {
        let wanted = &mut self.lock().walks[walk].wanted;
        *wanted = wanted.saturating_add(1);
        self.taken.notify_one();
    }

    /// The next thing of a walk; waits for it so long.
    pub fn take(&self, walk: usize, within: Duration) -> Result<T, Nothing> {
        let waits = |state: &mut State<T>| state.walks[walk].queue.is_empty() && !state.closed;
        let waited = self.put.wait_timeout_while(self.lock(), within, waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match state.walks[walk].queue.pop_front() {
            Some(thing) => {
                self.taken.notify_one();
                Ok(thing)
            }
            None if state.closed => Err(Nothing::More),
            None => Err(Nothing::Yet),
        }
    }

    /// Nobody takes, or nobody puts in, any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.taken.notify_all();
        self.put.notify_all();
    }

    /// Locks; what a panicking thread left is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_are_served_in_turns_and_none_is_far_ahead() {
        let queues = Queues::new(3, 2, u64::MAX);
        let mut served = Vec::new();
        for _ in 0..6 {
            let (walk, _) = queues.room().unwrap();
            queues.put(walk, (), 1);
            served.push(walk);
        }
        assert_eq!(served, [0, 1, 2, 0, 1, 2]);
        queues.take(1, Duration::ZERO).unwrap();
        assert_eq!(queues.room().unwrap().0, 1);
        queues.close();
        assert_eq!(queues.room(), None);
        assert!(queues.take(1, Duration::ZERO).is_ok(), "what was put in before");
        assert_eq!(queues.take(1, Duration::ZERO), Err(Nothing::More));
    }

    #[test]
    fn as_many_are_handed_out_as_are_wanted_and_one_more_for_each_that_is_broken() {
        let queues = Queues::new(1, 9, 5);
        assert_eq!(queues.room(), Some((0, 5)));
        queues.put(0, (), 5);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| queues.room());
            queues.replace(0);
            assert_eq!(waiting.join().unwrap(), Some((0, 1)));
        });
        queues.end(0);
        assert_eq!(queues.room(), None);
        assert_eq!(queues.take(0, Duration::ZERO), Ok(()));
        assert_eq!(queues.take(0, Duration::from_millis(1)), Err(Nothing::Yet));
    }
}
