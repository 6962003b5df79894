//! Rows as workers made them, stacked to batches.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};

use crate::data::load::prepare::Prepared;
use crate::data::load::queue::{Nothing, Queues};
use crate::data::load::walk::Step;
use crate::data::load::{LoaderOptions, Passes, Share, Skipped};
use crate::data::storage::StallWatch;
use crate::data::{Batch, DataError, Skip};

/// Samples left out by lanes that have found none that is usable, from which on one pass over the data tells that there is none.
const SMALL_SET: u64 = 10_000;
/// Passes over less than that before it is believed.
const PASSES_OVER_A_SMALL_SET: u64 = 64;

/// A batch or an end, as the threads hand it to the loader.
pub(crate) struct Delivery {
    pub outcome: Result<Option<Batch>, DataError>,
    /// Left out since the delivery before.
    pub skipped: Skipped,
}

/// Stacks rows to batches: of each walk as many, one walk after the other.
pub(crate) struct Collator {
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
    pub fn new(
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

    pub fn collate(mut self) {
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
        // The share of one rank in an evaluation of few samples may have none.
        let may_be_empty = self.options.share != Share::WHOLE && self.options.passes == Passes::Once;
        if usable == 0 && !may_be_empty {
            self.walks[walk].empty += 1;
            // By then a lane has been through about as many samples as there are. Of a small set chance may give it none of
            // the usable ones in several epochs.
            let lanes = self.options.lanes.first().map_or(1, |(lane, _)| u64::from(lane.of));
            let seen = self.earlier.total() + self.skipped.total();
            let passes = if lanes == 1 || seen >= SMALL_SET { 1 } else { PASSES_OVER_A_SMALL_SET };
            if self.walks[walk].empty >= passes * lanes {
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
        batch.label_sets.push(row.label_set);
        batch.keys.push(row.key);
        batch.images.push(row.image);
        batch.numbers.push(row.number);
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
        label_sets: Vec::with_capacity(options.batch),
        images: Vec::with_capacity(options.batch),
        keys: Vec::with_capacity(options.batch),
        numbers: Vec::with_capacity(options.batch),
        cursor: starts[0],
        cursors: starts,
    }
}
