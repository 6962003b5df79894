//! The threads behind a loader.
//!
//! One thread walks the order of the source and hands out chunks of tickets, each with a slot for its result;
//! workers fill the slots in any order; one thread empties them in the order in which they were handed out and
//! stacks batches. Every queue is bounded, so the walk stops when nobody takes batches.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Receiver, RecvTimeoutError, Sender};

use crate::data::load::prepare::{Prepared, Preparer};
use crate::data::load::{LoaderOptions, Passes, Skipped};
use crate::data::source::Ticket;
use crate::data::storage::StallWatch;
use crate::data::{Batch, DataError};
use crate::data::{LoadError, Skip};

/// Samples that a worker takes at a time.
const CHUNK: usize = 8;
/// Chunks on their way for each worker.
const AHEAD: usize = 3;

/// A batch or an end, as the threads hand it to the loader.
pub(crate) struct Delivery {
    pub outcome: Result<Option<Batch>, DataError>,
    /// Left out since the delivery before.
    pub skipped: Skipped,
}

/// A chunk of rows, or what ended it.
type Rows = Result<Vec<Result<Prepared, Skip>>, DataError>;

/// The order of the source, as the walking thread passes it on.
enum Step {
    /// Rows to come.
    Rows(Receiver<Rows>),
    /// The epoch is over; `whole` where it was walked from its first sample.
    EpochEnd {
        whole: bool,
    },
    /// The only pass is over.
    End,
    Failed(DataError),
}

struct Job {
    tickets: Vec<Ticket>,
    slot: Sender<Rows>,
}

/// Time for threads to end when a loader is dropped; they need longer only where a storage does not answer.
const FAREWELL: Duration = Duration::from_secs(3);

/// Running threads; joined when dropped, but for those that wait for a storage that does not answer.
pub(crate) struct Prefetch {
    /// `None` only while being dropped.
    deliveries: Option<Receiver<Delivery>>,
    stopped: Arc<AtomicBool>,
    /// Set when a source does not answer: threads that wait for it cannot be joined.
    stalled: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Prefetch {
    pub fn start(options: LoaderOptions) -> Result<Self, DataError> {
        let options = Arc::new(options);
        let workers = options.workers.max(1);
        let stopped = Arc::new(AtomicBool::new(false));
        let (steps_in, steps) = bounded(AHEAD * workers);
        let (jobs_in, jobs) = unbounded::<Job>();
        let (deliveries_in, deliveries) = bounded(1);
        // From here on a failure drops `prefetch`, which joins what has been started.
        let stalled = Arc::new(AtomicBool::new(false));
        let mut prefetch = Prefetch {
            deliveries: Some(deliveries),
            stopped: stopped.clone(),
            stalled: stalled.clone(),
            threads: Vec::new(),
        };
        for _ in 0..workers {
            let (options, jobs, stopped) = (options.clone(), jobs.clone(), stopped.clone());
            prefetch.spawn("flip-decode", move || work(&options, &jobs, &stopped))?;
        }
        drop(jobs);
        let walked = options.clone();
        prefetch.spawn("flip-order", move || walk(&walked, &steps_in, &jobs_in))?;
        let collator = Collator::new(options, deliveries_in, stopped, stalled);
        prefetch.spawn("flip-batch", move || collator.collate(&steps))?;
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

/// Hands out tickets as the options say; ends when nobody takes them any more.
fn walk(options: &LoaderOptions, steps: &Sender<Step>, jobs: &Sender<Job>) {
    let mut cursor = options.start;
    let mut number = 0;
    loop {
        let whole = (cursor.window, cursor.position) == (0, 0);
        loop {
            let mut tickets = Vec::with_capacity(CHUNK);
            let mut failure = None;
            while tickets.len() < CHUNK {
                match options.source.ticket(cursor, options.order) {
                    Ok(Some(ticket)) => {
                        cursor = ticket.after;
                        if options.share.takes(number) {
                            tickets.push(ticket);
                        }
                        number += 1;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            let last = tickets.len() < CHUNK;
            if !tickets.is_empty() {
                let (slot, rows) = bounded(1);
                if steps.send(Step::Rows(rows)).is_err() || jobs.send(Job { tickets, slot }).is_err() {
                    return;
                }
            }
            if let Some(error) = failure {
                let _ = steps.send(Step::Failed(error));
                return;
            }
            if last {
                break;
            }
        }
        if steps.send(Step::EpochEnd { whole }).is_err() {
            return;
        }
        if options.passes == Passes::Once {
            let _ = steps.send(Step::End);
            return;
        }
        cursor = cursor.next_epoch();
    }
}

/// Fills slots until there are no more jobs.
fn work(options: &LoaderOptions, jobs: &Receiver<Job>, stopped: &AtomicBool) {
    let mut preparer = Preparer::default();
    for Job { tickets, slot } in jobs {
        let mut rows = Vec::with_capacity(tickets.len());
        let mut failed = None;
        for ticket in &tickets {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| preparer.prepare(options, ticket))) {
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

/// Stacks rows to batches.
struct Collator {
    options: Arc<LoaderOptions>,
    deliveries: Sender<Delivery>,
    stopped: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
    batch: Batch,
    /// Since the last delivery.
    skipped: Skipped,
    /// Before that.
    earlier: Skipped,
    /// Samples in the deliveries so far.
    delivered: u64,
    /// Of this epoch.
    usable: u64,
    /// True once a warning said that these are fewer than a batch.
    warned_of_few: bool,
}

/// The loader is gone, or has been told of an error.
struct Stop;

impl Collator {
    fn new(
        options: Arc<LoaderOptions>,
        deliveries: Sender<Delivery>,
        stopped: Arc<AtomicBool>,
        stalled: Arc<AtomicBool>,
    ) -> Self {
        let batch = empty_batch(&options);
        let (skipped, earlier) = (Skipped::default(), Skipped::default());
        Collator {
            options,
            deliveries,
            stopped,
            stalled,
            batch,
            skipped,
            earlier,
            delivered: 0,
            usable: 0,
            warned_of_few: false,
        }
    }

    fn collate(mut self, steps: &Receiver<Step>) {
        while let Ok(()) = self.take_step(steps) {}
    }

    fn take_step(&mut self, steps: &Receiver<Step>) -> Result<(), Stop> {
        match self.wait(steps, "the next shards to be indexed")? {
            Step::Rows(rows) => match self.wait(&rows, "a sample to be read and decoded")? {
                Ok(rows) => rows.into_iter().try_for_each(|row| self.take_row(row)),
                Err(error) => self.fail(error),
            },
            Step::EpochEnd { whole } if whole && self.usable == 0 => {
                // Counted over the whole pass, as nothing has been delivered in it.
                let skipped = self.skipped.to_string();
                self.fail(DataError::NothingUsable { source_name: self.options.source.name(), skipped })
            }
            Step::EpochEnd { whole } => {
                let few = whole
                    && self.options.passes == Passes::Endless
                    && self.usable < self.options.batch as u64;
                if few && !self.warned_of_few {
                    self.warned_of_few = true;
                    tracing::warn!(
                        target: "flip::data",
                        "{}: a whole pass has {} usable samples, and a batch {}: the same pair stands in a batch more \
                         than once, and has itself among its negatives",
                        self.options.source.name(), self.usable, self.options.batch
                    );
                }
                self.usable = 0;
                Ok(())
            }
            Step::End => {
                if self.options.keep_partial && !self.batch.keys.is_empty() {
                    self.deliver_batch()?;
                }
                self.deliver(Ok(None))
            }
            Step::Failed(error) => self.fail(error),
        }
    }

    fn take_row(&mut self, row: Result<Prepared, Skip>) -> Result<(), Stop> {
        match row {
            Err(skip) => {
                let number = self.earlier.broken() + self.skipped.broken() + 1;
                self.skipped.add_and_log(skip, number);
                let broken = self.earlier.broken() + self.skipped.broken();
                let all = self.delivered + self.batch.keys.len() as u64 + broken;
                let name = self.options.source.name();
                let every = || {
                    let mut every = self.earlier.clone();
                    every.merge(self.skipped.clone());
                    every
                };
                match self.options.limits.check_share(broken, all, &name, every) {
                    Ok(()) => Ok(()),
                    Err(error) => self.fail(error),
                }
            }
            Ok(row) => {
                self.usable += 1;
                self.batch.pixels.extend_from_slice(&row.pixels);
                self.batch.patches.extend_from_slice(&row.patches);
                self.batch.tokens.extend_from_slice(&row.tokens);
                self.batch.lengths.push(row.length);
                self.batch.captions.push(row.captions);
                self.batch.labels.push(row.label);
                self.batch.keys.push(row.key);
                self.batch.images.push(row.image);
                self.batch.cursor = row.after;
                if self.batch.keys.len() == self.options.batch {
                    self.deliver_batch()
                } else {
                    Ok(())
                }
            }
        }
    }

    fn deliver_batch(&mut self) -> Result<(), Stop> {
        let batch = std::mem::replace(&mut self.batch, empty_batch(&self.options));
        self.delivered += batch.keys.len() as u64;
        self.deliver(Ok(Some(batch)))
    }

    fn fail(&mut self, error: DataError) -> Result<(), Stop> {
        self.deliver(Err(error)).and(Err(Stop))
    }

    fn deliver(&mut self, outcome: Result<Option<Batch>, DataError>) -> Result<(), Stop> {
        let skipped = std::mem::take(&mut self.skipped);
        self.earlier.merge(skipped.clone());
        self.deliveries.send(Delivery { outcome, skipped }).map_err(|_| Stop)
    }

    /// Receives, within the stall timeout of the options.
    fn wait<T>(&mut self, from: &Receiver<T>, what: &str) -> Result<T, Stop> {
        let options = self.options.clone();
        let (name, progress) = (options.source.name(), options.source.progress());
        let mut watch = StallWatch::start(options.stall_timeout, &name, what, progress.as_deref());
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Stop);
            }
            match from.recv_timeout(watch.interval()) {
                Ok(received) => return Ok(received),
                // The other side ended without a word; the loader reports it when it finds this side gone too.
                Err(RecvTimeoutError::Disconnected) => return Err(Stop),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = watch.check() {
                        self.stalled.store(true, Ordering::Relaxed);
                        self.fail(error)?;
                    }
                }
            }
        }
    }
}

fn empty_batch(options: &LoaderOptions) -> Batch {
    let size = options.transform.size();
    let kept = options.patches.as_ref().map(|patches| patches.kept);
    let image = match &options.patches {
        None => size * size * 3,
        Some(patches) => patches.kept * patches.side * patches.side * 3,
    };
    Batch {
        pixels: Vec::with_capacity(options.batch * image),
        size,
        patches: Vec::with_capacity(options.batch * kept.unwrap_or(0)),
        tokens: Vec::with_capacity(options.batch * options.context),
        lengths: Vec::with_capacity(options.batch),
        captions: Vec::with_capacity(options.batch),
        labels: Vec::with_capacity(options.batch),
        images: Vec::with_capacity(options.batch),
        keys: Vec::with_capacity(options.batch),
        cursor: options.start,
    }
}
