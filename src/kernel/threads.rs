//! A parallel for over pieces of work. Which thread takes which piece varies; what a piece computes, and
//! the order of every sum, does not, so results do not depend on the number of threads.
//!
//! A training step is some hundred such loops, many of about a millisecond, between which a thread would have to be
//! woken. So helpers that have nothing to do look for work a while before they sleep, as those
//! of OpenMP do, and let others run meanwhile.

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The threads that kernels run on: the caller and `count - 1` helpers.
pub struct Threads {
    count: usize,
    calls: Arc<Calls>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by whoever has the helpers work for it.
    turn: Mutex<()>,
}

/// What helpers are asked to do.
struct Calls {
    /// Goes up by one for every call, and once more to end.
    number: AtomicUsize,
    job: Mutex<Option<Job>>,
    /// Helpers that have not finished the last call.
    busy: AtomicUsize,
    asleep: Vec<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What each helper calls, with its slot; nothing means to end.
#[derive(Clone, Copy)]
struct Job(&'static (dyn Fn(usize) + Sync));

/// How long a helper without work looks for some before it sleeps.
const PATIENCE: Duration = Duration::from_micros(300);
/// How long a caller whose helpers are late sleeps before it looks again.
const NAP: Duration = Duration::from_micros(50);

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
        let calls = Arc::new(Calls {
            number: AtomicUsize::new(0),
            job: Mutex::new(None),
            busy: AtomicUsize::new(0),
            asleep: (1..count).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let mut threads = Threads { count, calls, helpers: Vec::new(), turn: Mutex::new(()) };
        for slot in 1..count {
            let calls = threads.calls.clone();
            let helper = std::thread::Builder::new()
                .name(format!("kernel-{slot}"))
                .spawn(move || calls.help(slot))
                .map_err(|error| format!("cannot start {count} kernel threads: {error}"))?;
            threads.helpers.push(helper);
        }
        Ok(threads)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Calls `work(slot, piece)` for every piece. `slot` is the number of the thread, below
    /// [`count`](Self::count). Each thread has a run of neighbouring pieces and takes from the ends of others' when
    /// it is done: loops over the same rows, one after the other, then find them in the cache of the same core.
    /// `work` must not call this again.
    pub fn each<I>(&self, pieces: I, work: impl Fn(usize, I::Item) + Sync)
    where
        I: IntoIterator<IntoIter: ExactSizeIterator + Send>,
        I::Item: Send,
    {
        let mut pieces = pieces.into_iter();
        if self.helpers.is_empty() || pieces.len() <= 1 {
            return pieces.for_each(|piece| work(0, piece));
        }
        let (all, count) = (pieces.len(), self.count);
        let runs: Vec<Mutex<std::vec::IntoIter<I::Item>>> = (0..count)
            .map(|slot| {
                pieces.by_ref().take((slot + 1) * all / count - slot * all / count).collect::<Vec<_>>()
            })
            .map(|run| Mutex::new(run.into_iter()))
            .collect();
        self.call(&|slot| {
            for other in 0..count {
                let run = &runs[(slot + other) % count];
                // A poisoned lock means that another thread panicked between pieces: nothing is left to do.
                let next = || {
                    let mut run = run.lock().ok()?;
                    if other == 0 {
                        run.next()
                    } else {
                        run.next_back()
                    }
                };
                while let Some(piece) = next() {
                    work(slot, piece);
                }
            }
        });
    }

    /// Calls `job` on every thread, with its slot, and returns when all have returned.
    fn call(&self, job: &(dyn Fn(usize) + Sync)) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: helpers use it between here and `wait`, which this function calls whatever happens.
        let lent = Job(unsafe { longer(job) });
        self.calls.busy.store(self.helpers.len(), Ordering::Release);
        self.announce(Some(lent));
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        self.wait();
        let helper = self.calls.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(turn);
        if let Some(panic) = own.err().or(helper) {
            resume_unwind(panic);
        }
    }

    /// Gives every helper a job, or none to end, and wakes those that sleep.
    fn announce(&self, job: Option<Job>) {
        *self.calls.job.lock().unwrap_or_else(PoisonError::into_inner) = job;
        // A helper says that it sleeps and then looks at the number; here it is the other way round, so one
        // of both sees the other.
        self.calls.number.fetch_add(1, Ordering::SeqCst);
        for (helper, asleep) in self.helpers.iter().zip(&self.calls.asleep) {
            if asleep.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
    }

    /// Returns when no helper works on the last call any more.
    fn wait(&self) {
        let done = || self.calls.busy.load(Ordering::Acquire) == 0;
        while !look(done) {
            std::thread::sleep(NAP);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.announce(None);
        for helper in self.helpers.drain(..) {
            // What a helper panicked with was handed to the caller already.
            let _ = helper.join();
        }
    }
}

impl Calls {
    /// What a helper does all its life.
    fn help(&self, slot: usize) {
        let mut seen = 0;
        loop {
            let new = || self.number.load(Ordering::SeqCst) != seen;
            if !look(new) {
                let asleep = &self.asleep[slot - 1];
                asleep.store(true, Ordering::SeqCst);
                while !new() {
                    std::thread::park();
                }
                asleep.store(false, Ordering::SeqCst);
            }
            // The next call comes after this one is done everywhere, so none is missed.
            seen += 1;
            let Some(Job(job)) = *self.job.lock().unwrap_or_else(PoisonError::into_inner) else { break };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(slot))) {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Waits a while for `ready`; says whether it came.
fn look(ready: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
}

/// # Safety
/// The result must not be used after `job` ends.
unsafe fn longer<'a>(job: &'a (dyn Fn(usize) + Sync + 'a)) -> &'static (dyn Fn(usize) + Sync) {
    std::mem::transmute(job)
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

    #[test]
    fn calls_that_follow_each_other_at_any_distance_are_all_done() {
        let threads = Threads::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        for call in 0..2_000 {
            if call % 100 == 0 {
                std::thread::sleep(2 * PATIENCE);
            }
            threads.each(0..5, |_, x| {
                sum.fetch_add(x, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 2_000 * 10);
    }

    #[test]
    fn callers_take_turns() {
        let (threads, sum) = (Threads::new(2).unwrap(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..200).for_each(|_| {
                        threads.each(0..3, |_, x| {
                            sum.fetch_add(x, Ordering::Relaxed);
                        })
                    })
                });
            }
        });
        assert_eq!(sum.into_inner(), 4 * 200 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_go_on() {
        let threads = Threads::new(2).unwrap();
        for broken in 0..8 {
            let call = || threads.each(0..8, |_, piece| assert!(piece != broken, "piece {piece}"));
            let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("piece {broken}")));
        }
        let done = AtomicUsize::new(0);
        threads.each(0..100, |_, _| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 100);
    }
}
