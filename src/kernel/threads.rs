//! A parallel for over pieces of work. The thread that takes a piece varies; what a piece computes, and
//! the order of every sum, does not, so results do not depend on the number of threads.
//!
//! A training step is some hundred such loops, many of about a millisecond. Between two of them helpers spin for a while
//! before they park, as those of OpenMP do. On a machine with more runnable threads than cores that would cost more than it
//! gains, so a loop never waits for a helper that has not begun, and where helpers that had begun were descheduled in the
//! middle of a piece, the next loops run without them (`crowding`).

mod crowding;

use std::any::Any;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crowding::Crowding;

/// The threads that kernels run on: the caller and `count - 1` helpers.
pub struct Threads {
    count: usize,
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held by the caller that the helpers work for.
    turn: Mutex<Crowding>,
}

/// State of the caller and its helpers.
struct Shared {
    /// Number of the current call, whether it is closed, and the helpers at work on it: see [`State`].
    state: AtomicU64,
    job: Mutex<Option<Job>>,
    parked: Vec<AtomicBool>,
    /// The caller, while it is parked until the last helper is done.
    caller: Mutex<Option<Thread>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// True while helpers park at once instead of spinning.
    crowded: AtomicBool,
    /// True once the helpers are to end.
    ending: AtomicBool,
}

/// A call as one number, so that joining and closing exclude each other: the helpers at work (16 bits), whether more may
/// join (1 bit), and the number of the call.
#[derive(Clone, Copy)]
struct State(u64);

impl State {
    const CLOSED: u64 = 1 << 16;
    const CALL: u64 = 1 << 17;

    fn call(self) -> u64 {
        self.0 / Self::CALL
    }

    fn is_closed(self) -> bool {
        self.0 & Self::CLOSED != 0
    }

    fn at_work(self) -> u64 {
        self.0 % Self::CLOSED
    }
}

/// The function that a helper calls with its slot.
#[derive(Clone, Copy)]
struct Job(&'static (dyn Fn(usize) + Sync));

/// Time for which a thread spins before it parks.
const SPIN: Duration = Duration::from_micros(300);
/// The same where other programs want the cores.
const CROWDED_SPIN: Duration = Duration::from_micros(5);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        let shared = Arc::new(Shared {
            state: AtomicU64::new(State::CLOSED),
            job: Mutex::new(None),
            parked: (1..count).map(|_| AtomicBool::new(false)).collect(),
            caller: Mutex::new(None),
            panic: Mutex::new(None),
            crowded: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        let mut threads = Threads { count, shared, helpers: Vec::new(), turn: Mutex::default() };
        for slot in 1..count {
            let shared = threads.shared.clone();
            let helper = std::thread::Builder::new()
                .name(format!("kernel-{slot}"))
                .spawn(move || shared.help(slot))
                .map_err(|error| format!("cannot start {count} kernel threads: {error}"))?;
            threads.helpers.push(helper);
        }
        Ok(threads)
    }

    /// Number of threads, the caller's included.
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
        let mut turn = lock(&self.turn);
        if turn.is_alone() {
            // The slots of helpers are free: nobody else can be in a call.
            return pieces.for_each(|piece| work(0, piece));
        }
        let (all, count) = (pieces.len(), self.count);
        let runs: Vec<Mutex<std::vec::IntoIter<I::Item>>> = (0..count)
            .map(|slot| {
                pieces.by_ref().take((slot + 1) * all / count - slot * all / count).collect::<Vec<_>>()
            })
            .map(|run| Mutex::new(run.into_iter()))
            .collect();
        let own = AtomicUsize::new(0);
        let outcome = self.call(&|slot| {
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
                    if slot == 0 {
                        own.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        match outcome {
            Ok(Times { working, waiting }) => turn.note((own.into_inner(), all), working, waiting),
            Err(panic) => {
                drop(turn);
                resume_unwind(panic)
            }
        }
        self.shared.crowded.store(turn.is_crowded(), Ordering::Relaxed);
    }

    /// Calls `job` on this thread and on every helper that comes before this thread is done; returns when all that came
    /// have returned.
    fn call(&self, job: &(dyn Fn(usize) + Sync)) -> Result<Times, Box<dyn Any + Send>> {
        let start = Instant::now();
        // SAFETY: helpers use it between here and `wait`, which this function calls whatever happens.
        let job_for_helpers = Job(unsafe { longer(job) });
        self.begin(job_for_helpers);
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let working = start.elapsed();
        self.wait();
        let waiting = start.elapsed() - working;
        let helper = lock(&self.shared.panic).take();
        match own.err().or(helper) {
            Some(panic) => Err(panic),
            None => Ok(Times { working, waiting }),
        }
    }

    /// Opens a call for helpers, and wakes those that are parked.
    fn begin(&self, job: Job) {
        *lock(&self.shared.job) = Some(job);
        // A helper says that it parks and then looks at the state; here it is the other way round, so one of both sees the
        // other. Nobody is at work, so closed and the count are known: the next call is open with none.
        let last = State(self.shared.state.load(Ordering::SeqCst));
        self.shared.state.store((last.call() + 1) * State::CALL, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        for (helper, parked) in self.helpers.iter().zip(&self.shared.parked) {
            if parked.load(Ordering::SeqCst) {
                helper.thread().unpark();
            }
        }
    }

    /// Closes the call, and returns when no helper works on it any more.
    fn wait(&self) {
        let shared = &self.shared;
        shared.state.fetch_or(State::CLOSED, Ordering::SeqCst);
        let done = || State(shared.state.load(Ordering::SeqCst)).at_work() == 0;
        if !shared.spin(done) {
            *lock(&shared.caller) = Some(std::thread::current());
            while !done() {
                std::thread::park();
            }
            *lock(&shared.caller) = None;
        }
    }
}

/// Wall clock time of a caller in a call: in its own pieces, and in waiting for helpers after that.
struct Times {
    working: Duration,
    waiting: Duration,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.wake();
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper's panic was handed to the caller already.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// Joins calls until the end.
    fn help(&self, slot: usize) {
        let mut seen = 0;
        loop {
            let news = || {
                State(self.state.load(Ordering::SeqCst)).call() != seen || self.ending.load(Ordering::SeqCst)
            };
            if !self.spin(news) {
                let parked = &self.parked[slot - 1];
                parked.store(true, Ordering::SeqCst);
                while !news() {
                    std::thread::park();
                }
                parked.store(false, Ordering::SeqCst);
            }
            if self.ending.load(Ordering::SeqCst) {
                break;
            }
            seen = State(self.state.load(Ordering::SeqCst)).call();
            if self.join(seen) {
                self.work(slot);
            }
        }
    }

    /// Counts this helper among those at work on a call; false if the call is over or closed.
    fn join(&self, call: u64) -> bool {
        let joined = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
            (State(state).call() == call && !State(state).is_closed()).then_some(state + 1)
        });
        joined.is_ok()
    }

    /// Does the job of the call that this helper has joined.
    fn work(&self, slot: usize) {
        let job = *lock(&self.job);
        if let Some(Job(job)) = job {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(slot))) {
                *lock(&self.panic) = Some(panic);
            }
        }
        if State(self.state.fetch_sub(1, Ordering::SeqCst)).at_work() == 1 {
            if let Some(caller) = &*lock(&self.caller) {
                caller.unpark();
            }
        }
    }

    /// Spins a while for `ready`; false if it did not come.
    fn spin(&self, ready: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        let limit = if self.crowded.load(Ordering::Relaxed) { CROWDED_SPIN } else { SPIN };
        loop {
            for _ in 0..64 {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > limit {
                return false;
            }
        }
    }
}

/// # Safety
/// The result must not be used after `job` ends.
unsafe fn longer<'a>(job: &'a (dyn Fn(usize) + Sync + 'a)) -> &'static (dyn Fn(usize) + Sync) {
    // SAFETY: a reference is the same whatever its lifetime; the caller keeps to the shorter one.
    unsafe { std::mem::transmute(job) }
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
                std::thread::sleep(2 * SPIN);
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
