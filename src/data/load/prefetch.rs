//! The threads behind a loader.
//!
//! One thread walks the order of the source, or several lanes of it in turns, and hands out chunks of tickets, each with a
//! slot for its result; workers fill the slots in any order; one thread empties those of each lane in the order in which
//! they were handed out and stacks batches. Every queue is bounded, so the walk stops when nobody takes batches.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Receiver};

use crate::data::load::collate::{Collator, Delivery};
use crate::data::load::prepare::Preparer;
use crate::data::load::queue::Queues;
use crate::data::load::walk::{Job, Step, Walk, Walker};
use crate::data::load::{LoaderOptions, Skipped};
use crate::data::{DataError, LoadError};

/// Samples that a worker takes at a time.
const CHUNK: usize = 8;
/// Chunks on their way for each worker.
const AHEAD: usize = 3;

/// Time for threads to end when a loader is dropped; they need longer only where a storage does not answer.
const FAREWELL: Duration = Duration::from_secs(3);

/// Running threads; joined when dropped, but for those that wait for a storage that does not answer.
pub(crate) struct Prefetch {
    /// `None` only while being dropped.
    deliveries: Option<Receiver<Delivery>>,
    stopped: Arc<AtomicBool>,
    /// Set when a source does not answer: threads that wait for it cannot be joined.
    stalled: Arc<AtomicBool>,
    steps: Arc<Queues<Step>>,
    threads: Vec<JoinHandle<()>>,
}

impl Prefetch {
    pub fn start(options: LoaderOptions) -> Result<Self, DataError> {
        let options = Arc::new(options);
        let workers = options.workers.max(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let walks = options.walks();
        let rows = options.batch / walks.len();
        let chunk = CHUNK.min(rows);
        let most = (AHEAD * workers * CHUNK).div_ceil(walks.len() * chunk);
        let wanted = options.batches.map_or(u64::MAX, |batches| batches.saturating_mul(rows as u64));
        for (order, _) in &walks {
            if let (Some((_, lane)), true) = (order.shuffled(), options.batches.is_some()) {
                options.source.want(lane, wanted);
            }
        }
        let steps = Arc::new(Queues::new(walks.len(), most, wanted));
        let (jobs_in, jobs) = unbounded::<Job>();
        let (deliveries_in, deliveries) = bounded(1);
        // From here on a failure drops `prefetch`, which joins what has been started.
        let stalled = Arc::new(AtomicBool::new(false));
        let mut prefetch = Prefetch {
            deliveries: Some(deliveries),
            stopped: stopped.clone(),
            stalled: stalled.clone(),
            steps: steps.clone(),
            threads: Vec::new(),
        };
        for _ in 0..workers {
            let (options, jobs, stopped) = (options.clone(), jobs.clone(), stopped.clone());
            prefetch.spawn("flip-decode", move || work(&options, &jobs, &stopped))?;
        }
        drop(jobs);
        let walker = Walker {
            options: options.clone(),
            chunk,
            walks: walks.into_iter().map(Walk::new).collect(),
            steps: steps.clone(),
            jobs: jobs_in,
        };
        prefetch.spawn("flip-order", move || walker.walk())?;
        let collator = Collator::new(options, rows, steps, deliveries_in, stopped, stalled);
        prefetch.spawn("flip-batch", move || collator.collate())?;
        Ok(prefetch)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), DataError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body);
        let thread = thread.map_err(|error| DataError::Invalid(format!("cannot start a thread: {error}")))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for the next delivery.
    pub fn receive(&self) -> Delivery {
        let delivery = self.deliveries.as_ref().and_then(|deliveries| deliveries.recv().ok());
        delivery.unwrap_or_else(|| Delivery {
            outcome: Err(DataError::Invalid("a thread of the loader panicked; see the message above".into())),
            skipped: Skipped::default(),
        })
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whoever waits to hand something on finds its receiver gone.
        self.deliveries = None;
        self.steps.close();
        let farewell = if self.stalled.load(Ordering::Relaxed) { Duration::ZERO } else { FAREWELL };
        let began = Instant::now();
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if began.elapsed() >= farewell {
                // The others end by themselves as soon as the storage answers.
                self.threads.retain(JoinHandle::is_finished);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in self.threads.drain(..) {
            // A panic has been reported by its message, and by `receive`.
            let _ = thread.join();
        }
    }
}

/// Fills slots until there are no more jobs.
fn work(options: &LoaderOptions, jobs: &Receiver<Job>, stopped: &AtomicBool) {
    let mut preparer = Preparer::default();
    for Job { tickets, slot } in jobs {
        let mut rows = Vec::with_capacity(tickets.len());
        let mut failed = None;
        for (number, ticket) in &tickets {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| preparer.prepare(options, *number, ticket))) {
                Ok(Ok(row)) => rows.push(Ok(row)),
                Ok(Err(LoadError::Skip(skip))) => rows.push(Err(skip)),
                Ok(Err(LoadError::Failed(error))) => {
                    failed = Some(error);
                    break;
                }
                Err(panic) => {
                    let what = panic.downcast_ref::<&str>().map(|text| text.to_string());
                    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    failed = Some(DataError::Invalid(format!("preparing {ticket:?} panicked: {what}")));
                    break;
                }
            }
        }
        // Where the receiver is gone, the loader is being dropped.
        let _ = slot.send(failed.map_or(Ok(rows), Err));
    }
}
