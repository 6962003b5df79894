//! The threads behind a loader.
//!
//! One thread walks the order of the source, or several lanes of it in turns, and hands out chunks of tickets, each with a
//! slot for its result; workers fill the slots in any order; one thread empties those of each lane in the order in which
//! they were handed out and stacks batches. Every queue is bounded, so the walk stops when nobody takes batches.

use std::collections::VecDeque;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded, Receiver, RecvTimeoutError, Sender};

use crate::data::load::prepare::{Prepared, Preparer};
use crate::data::load::queue::{Nothing, Queues};
use crate::data::load::{LoaderOptions, Passes, Skipped};
use crate::data::source::{Order, Ticket};
use crate::data::storage::StallWatch;
use crate::data::{Batch, Cursor, DataError};
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

/// What a walk has come to, as the walking thread passes it on.
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

/// A walk along the order, or a lane of it.
struct Walk {
    order: Order,
    cursor: Cursor,
    /// Of the next sample, counted from the start of the loader.
    number: u64,
    /// True if the epoch is walked from its first sample.
    whole: bool,
}

impl Walk {
    fn new((order, cursor): (Order, Cursor)) -> Walk {
        Walk { order, cursor, number: 0, whole: (cursor.window, cursor.position) == (0, 0) }
    }
}

/// Hands out tickets as the options say; ends when nobody takes them any more.
struct Walker {
    options: Arc<LoaderOptions>,
    /// Samples of a job.
    chunk: usize,
    walks: Vec<Walk>,
    steps: Arc<Queues<Step>>,
    jobs: Sender<Job>,
}

impl Walker {
    fn walk(mut self) {
        // However this thread ends, whoever waits for it is told.
        struct Closing(Arc<Queues<Step>>);
        impl Drop for Closing {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        let _closing = Closing(self.steps.clone());
        while let Some((walk, wanted)) = self.steps.room() {
            if self.advance(walk, wanted).is_none() {
                return;
            }
        }
    }

    /// Hands out the next chunk of a walk, and the end of its epoch where that comes; none where nobody wants it.
    fn advance(&mut self, number: usize, wanted: u64) -> Option<()> {
        let Walker { options, walks, steps, .. } = self;
        let walk = &mut walks[number];
        let most = self.chunk.min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let mut tickets = Vec::with_capacity(most);
        let (mut ended, mut failure) = (false, None);
        while tickets.len() < most {
            match options.source.ticket(walk.cursor, walk.order) {
                Ok(Some(ticket)) => {
                    walk.cursor = ticket.after;
                    if options.share.takes(walk.number) {
                        tickets.push(ticket);
                    }
                    walk.number += 1;
                }
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if !tickets.is_empty() {
            let (samples, (slot, rows)) = (tickets.len() as u64, bounded(1));
            steps.put(number, Step::Rows(rows), samples);
            self.jobs.send(Job { tickets, slot }).ok()?;
        }
        if let Some(error) = failure {
            steps.put(number, Step::Failed(error), 0);
            steps.end(number);
        } else if ended {
            steps.put(number, Step::EpochEnd { whole: walk.whole }, 0);
            if options.passes == Passes::Once {
                steps.put(number, Step::End, 0);
                steps.end(number);
            }
            walk.cursor = walk.cursor.next_epoch();
            walk.whole = true;
        }
        Some(())
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

/// Stacks rows to batches: of each walk as many, one walk after the other.
struct Collator {
    options: Arc<LoaderOptions>,
    /// Rows of each walk in a batch.
    rows: usize,
    steps: Arc<Queues<Step>>,
    deliveries: Sender<Delivery>,
    stopped: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
    batch: Batch,
    walks: Vec<Collated>,
    /// Since the last delivery.
    skipped: Skipped,
    /// Before that.
    earlier: Skipped,
    /// Samples in the deliveries so far.
    delivered: u64,
    /// True once a warning said that an epoch has fewer than a batch.
    warned_of_few: bool,
}

/// The rows of a walk.
#[derive(Default)]
struct Collated {
    /// Those that wait for the other walks; a walk that is the only one goes into the batch at once.
    waiting: VecDeque<Prepared>,
    /// Usable samples of this epoch.
    usable: u64,
    /// Whole epochs in a row without one.
    empty: u64,
}

/// The loader is gone, or has been told of an error.
struct Stop;

impl Collator {
    fn new(
        options: Arc<LoaderOptions>,
        rows: usize,
        steps: Arc<Queues<Step>>,
        deliveries: Sender<Delivery>,
        stopped: Arc<AtomicBool>,
        stalled: Arc<AtomicBool>,
    ) -> Self {
        let batch = empty_batch(&options);
        let walks = batch.cursors.iter().map(|_| Collated::default()).collect();
        let (skipped, earlier) = (Skipped::default(), Skipped::default());
        let (delivered, warned_of_few) = (0, false);
        Collator {
            options,
            rows,
            steps,
            deliveries,
            stopped,
            stalled,
            batch,
            walks,
            skipped,
            earlier,
            delivered,
            warned_of_few,
        }
    }

    fn collate(mut self) {
        let steps = self.steps.clone();
        while let Ok(()) = (0..self.walks.len()).try_for_each(|walk| self.advance(walk)) {}
        steps.close();
    }

    /// Takes the next step of a walk, unless the batch has all of its rows.
    fn advance(&mut self, walk: usize) -> Result<(), Stop> {
        if self.walks.len() > 1 && self.walks[walk].waiting.len() >= self.rows {
            return Ok(());
        }
        self.take_step(walk)?;
        match self.walks.len() > 1 && self.walks.iter().all(|walk| walk.waiting.len() >= self.rows) {
            true => self.stack(),
            false => Ok(()),
        }
    }

    /// Makes a batch of rows that waited.
    fn stack(&mut self) -> Result<(), Stop> {
        for walk in 0..self.walks.len() {
            for _ in 0..self.rows {
                if let Some(row) = self.walks[walk].waiting.pop_front() {
                    self.push(walk, row);
                }
            }
        }
        self.deliver_batch()
    }

    fn take_step(&mut self, walk: usize) -> Result<(), Stop> {
        let steps = self.steps.clone();
        let step = self.wait("the next shards to be indexed", |within| steps.take(walk, within))?;
        match step {
            Step::Rows(rows) => {
                let receive = |within| {
                    rows.recv_timeout(within).map_err(|error| match error {
                        RecvTimeoutError::Timeout => Nothing::Yet,
                        RecvTimeoutError::Disconnected => Nothing::More,
                    })
                };
                match self.wait("a sample to be read and decoded", receive)? {
                    Ok(rows) => rows.into_iter().try_for_each(|row| self.take_row(walk, row)),
                    Err(error) => self.fail(error),
                }
            }
            Step::EpochEnd { whole } => self.end_epoch(walk, whole),
            Step::End => {
                if self.options.keep_partial && !self.batch.keys.is_empty() {
                    self.deliver_batch()?;
                }
                self.deliver(Ok(None))
            }
            Step::Failed(error) => self.fail(error),
        }
    }

    fn end_epoch(&mut self, walk: usize, whole: bool) -> Result<(), Stop> {
        let usable = std::mem::take(&mut self.walks[walk].usable);
        if !whole {
            return Ok(());
        }
        let name = self.options.source.name();
        if usable == 0 {
            self.walks[walk].empty += 1;
            // By then a lane has been through about as many samples as there are.
            let lanes = self.options.lanes.first().map_or(1, |(lane, _)| u64::from(lane.of));
            if self.walks[walk].empty >= lanes {
                // Counted over the whole pass, as nothing has been delivered in it.
                let skipped = self.skipped.to_string();
                return self.fail(DataError::NothingUsable { source_name: name, skipped });
            }
        }
        let few = self.options.passes == Passes::Endless && usable < self.rows as u64;
        if few && !self.warned_of_few {
            self.warned_of_few = true;
            let lane = if self.walks.len() > 1 { " of a lane" } else { "" };
            tracing::warn!(
                target: "flip::data",
                "{name}: a whole pass{lane} has {usable} usable samples, and a batch {}: the same pair stands in a batch \
                 more than once, and has itself among its negatives",
                self.rows
            );
        }
        Ok(())
    }

    fn take_row(&mut self, walk: usize, row: Result<Prepared, Skip>) -> Result<(), Stop> {
        match row {
            Err(skip) => {
                self.steps.replace(walk);
                let number = self.earlier.broken() + self.skipped.broken() + 1;
                self.skipped.add_and_log(skip, number);
                let broken = self.earlier.broken() + self.skipped.broken();
                let waiting: usize = self.walks.iter().map(|walk| walk.waiting.len()).sum();
                let all = self.delivered + (self.batch.keys.len() + waiting) as u64 + broken;
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
                let own = &mut self.walks[walk];
                own.usable += 1;
                own.empty = 0;
                if self.walks.len() > 1 {
                    self.walks[walk].waiting.push_back(row);
                    return Ok(());
                }
                self.push(walk, row);
                match self.batch.keys.len() == self.options.batch {
                    true => self.deliver_batch(),
                    false => Ok(()),
                }
            }
        }
    }

    /// Adds a row to the batch.
    fn push(&mut self, walk: usize, row: Prepared) {
        let batch = &mut self.batch;
        batch.pixels.extend_from_slice(&row.pixels);
        batch.patches.extend_from_slice(&row.patches);
        batch.tokens.extend_from_slice(&row.tokens);
        batch.lengths.push(row.length);
        batch.captions.push(row.captions);
        batch.labels.push(row.label);
        batch.keys.push(row.key);
        batch.images.push(row.image);
        batch.cursors[walk] = row.after;
        batch.cursor = batch.cursors[0];
    }

    fn deliver_batch(&mut self) -> Result<(), Stop> {
        let mut next = empty_batch(&self.options);
        (next.cursor, next.cursors) = (self.batch.cursor, self.batch.cursors.clone());
        let batch = std::mem::replace(&mut self.batch, next);
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
    fn wait<T>(&mut self, what: &str, receive: impl Fn(Duration) -> Result<T, Nothing>) -> Result<T, Stop> {
        let options = self.options.clone();
        let (name, progress) = (options.source.name(), options.source.progress());
        let mut watch = StallWatch::start(options.stall_timeout, &name, what, progress.as_deref());
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Err(Stop);
            }
            match receive(watch.interval()) {
                Ok(received) => return Ok(received),
                // The other side ended without a word; the loader reports it when it finds this side gone too.
                Err(Nothing::More) => return Err(Stop),
                Err(Nothing::Yet) => {
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
    let starts = options.starts();
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
        cursor: starts[0],
        cursors: starts,
    }
}
