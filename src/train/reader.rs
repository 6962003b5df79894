//! The data of an evaluation, read once: by rank 0 alone, or by all ranks, each of which reads, decodes and embeds the samples
//! whose number is its own modulo the ranks. Rank 0 puts the rows back into the order of the data.

use std::cell::RefCell;
use std::sync::Arc;

use crate::data::decode::Transform;
use crate::data::load::{LabelFrom, Loader, LoaderOptions, Passes, Share};
use crate::data::source::{Order, Source};
use crate::data::storage::with_stall_timeout;
use crate::data::{Batch, CaptionUse, Cursor, DataError};
use crate::evaluator::{Evaluator, Known};
use crate::log::Bar;
use crate::mask::ImageMask;
use crate::model::GraphDevice;
use crate::ranks::{cut, cut_mut};

use super::embed::{embed_images, leads_alone, tell, Message, Part, EMBED_BATCH};
use super::embedded_rows::{stack, Merge, Row, Told};
use super::error::{ExchangeError, TrainError};
use super::left_out::LeftOut;
use super::run::Run;

/// Rows of all ranks that are on their way to rank 0 at a time, which bounds its memory.
const ROWS_ON_THE_WAY: usize = 4096;

/// The source of a part of an evaluator's data, as this process opened it.
pub(super) struct Opened {
    pub source: Arc<dyn Source>,
    pub label: LabelFrom,
}

/// Opens the data of an evaluator.
///
/// # Errors
/// It cannot be had, or does not have the labels that are asked for.
pub(super) fn open<D: GraphDevice>(
    run: &Run<'_, D>,
    evaluator: &dyn Evaluator,
    part: Part,
) -> Result<Opened, TrainError> {
    let captions = if evaluator.captions() { CaptionUse::Needed } else { CaptionUse::Unused };
    let open = |config| run.config.data.open_for(config, run.config.seed, captions);
    let test = evaluator
        .data()
        .or(run.config.data.validation.as_ref())
        .ok_or_else(|| TrainError::NoEvaluationData { evaluator: evaluator.name().into() })?;
    let source = open(test)?;
    // The labels of both parts are those of the images that it is about.
    let (classes, templates) = (source.classes(), source.templates());
    let label = evaluator.label(Known { classes: &classes, templates: &templates })?;
    let source = match (part, evaluator.train()) {
        (Part::Train, Some(train)) => open(train)?,
        _ => source,
    };
    Ok(Opened { source, label })
}

/// Samples as evaluations see them: whole images, each once.
fn loading<D: GraphDevice>(
    run: &Run<'_, D>,
    Opened { source, label }: &Opened,
    share: Share,
    batch: usize,
) -> LoaderOptions {
    let config = run.config;
    let size = config.model.image.size;
    let resizing = config.model.image.resizing;
    let transform = Transform::Evaluate { size, resizing };
    let tokenizer = run.tokenizer.clone();
    LoaderOptions {
        order: Order::Stored,
        passes: Passes::Once,
        share,
        start: Cursor::default(),
        keep_partial: true,
        label: label.clone(),
        limits: config.data.limits.clone(),
        workers: run.workers(),
        stall_timeout: config.data.storage.stall_timeout(),
        seed: config.seed,
        ..LoaderOptions::new(source.clone(), transform, tokenizer, config.model.text.context, batch)
    }
}

/// The rows of this rank, where all ranks read.
pub(super) struct OwnRows {
    /// Or the reason why there is none.
    loader: Result<Loader, String>,
    mask: ImageMask,
}

impl OwnRows {
    /// Nothing was opened.
    pub fn none() -> OwnRows {
        OwnRows { loader: Err("nothing was opened; this is a bug".into()), mask: ImageMask::Keep }
    }

    /// Opens a part of an evaluator's data on a rank that [serves](super::serve::serve); why that fails is told when rows
    /// are asked for.
    pub fn open<D: GraphDevice>(run: &Run<'_, D>, evaluator: &dyn Evaluator, part: Part) -> OwnRows {
        let opened = open(run, evaluator, part).map_err(|error| error.to_string());
        let loader =
            opened.and_then(|opened| OwnRows::start(run, &opened).map_err(|error| error.to_string()));
        OwnRows { loader, mask: evaluator.image_mask().clone() }
    }

    fn start<D: GraphDevice>(run: &Run<'_, D>, opened: &Opened) -> Result<Loader, DataError> {
        let (rank, ranks) = (run.processes.ranks.rank(), run.processes.ranks.count());
        let share = Share { rank: rank as u64, ranks: ranks as u64 };
        Loader::start(loading(run, opened, share, (ROWS_ON_THE_WAY / ranks).clamp(8, EMBED_BATCH)))
    }

    /// The next rows, embedded, as words for rank 0.
    fn next<D: GraphDevice>(&mut self, run: &Run<'_, D>) -> Result<Vec<f32>, TrainError> {
        let failure = |reason: String| Told { failure: Some(reason), ..Told::default() };
        let words = match &mut self.loader {
            Err(reason) => failure(reason.clone()).into_words(&[], &[]),
            Ok(loader) => match loader.next() {
                Err(error) => failure(error.to_string()).into_words(&[], &[]),
                Ok(None) => {
                    let end = Some(LeftOut::here(loader.skipped()));
                    Told { end, ..Told::default() }.into_words(&[], &[])
                }
                Ok(Some(batch)) => {
                    let embeddings = embed_images(run, &batch.pixels, &self.mask, &batch.numbers)?;
                    Told::rows(&batch).into_words(&batch.pixels, &embeddings)
                }
            },
        };
        words.map_err(TrainError::message)
    }
}

/// The next rows of every rank, on rank 0; nothing on the others. Called by all.
///
/// # Errors
/// The model or an exchange fails.
pub(super) fn advance<D: GraphDevice>(
    run: &Run<'_, D>,
    own: &mut OwnRows,
) -> Result<Vec<(Told, Vec<Row>)>, TrainError> {
    let ranks = run.processes.ranks;
    ranks.mark();
    let words = own.next(run)?;
    let lengths: Vec<usize> = ranks
        .gather(&(words.len() as u64).to_le_bytes())?
        .iter()
        .map(|told| told.iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte)))
        .collect();
    let first = ranks.rank() == 0;
    let to: Vec<usize> = (0..ranks.count()).map(|rank| if rank == 0 { words.len() } else { 0 }).collect();
    let from: Vec<usize> = lengths.iter().map(|&length| if first { length } else { 0 }).collect();
    let mut all = vec![0.0; from.iter().sum()];
    ranks.exchange(&cut(&words, &to), &mut cut_mut(&mut all, &from))?;
    if !first {
        return Ok(Vec::new());
    }
    let dim = run.config.model.embed_dim;
    let told = cut(&all, &from).into_iter().map(|words| Told::from_words(words, dim));
    told.collect::<Option<Vec<_>>>().ok_or_else(|| {
        let unreadable = serde::de::Error::custom("rows of an evaluation are cut short");
        TrainError::message(unreadable)
    })
}

/// The embeddings of the batch that was read last, where they came with it.
#[derive(Debug, Default)]
pub(super) struct Embedded {
    /// Numbers and keys of its rows tell which batch it is.
    of: (Vec<u64>, Vec<String>),
    embeddings: Vec<f32>,
}

impl Embedded {
    /// Those of this batch; `None` if it was not the last.
    pub fn take(&mut self, batch: &Batch) -> Option<Vec<f32>> {
        let same = !batch.keys.is_empty() && self.of.0 == batch.numbers && self.of.1 == batch.keys;
        same.then(|| std::mem::take(self).embeddings)
    }
}

/// Reads a part of an evaluator's data on rank 0, in the order in which it is stored. An interruption ends the data.
pub(super) struct Reader<'r, 'a, D: GraphDevice> {
    run: &'r Run<'a, D>,
    opened: Opened,
    /// Index of the evaluator in its stage, part and mask: what other ranks are told.
    asked: (usize, Part, ImageMask),
    /// Name of the progress bar.
    title: String,
    batch: usize,
    /// From the first batch on.
    begun: Option<Begun>,
    /// From the first batch until the data ends.
    bar: Option<Bar>,
    /// Samples read.
    seen: u64,
    embedded: &'r RefCell<Embedded>,
    /// An error that is none of this rank's data.
    failure: &'r RefCell<Option<TrainError>>,
}

enum Begun {
    Alone(Loader),
    All { own: OwnRows, merge: Merge, left_out: LeftOut },
}

impl<'r, 'a, D: GraphDevice> Reader<'r, 'a, D> {
    /// Nothing is read yet. Embeddings that come with a batch are left in `embedded`, an error of the exchange in `failure`.
    pub fn new(
        run: &'r Run<'a, D>,
        opened: Opened,
        asked: (usize, Part, ImageMask),
        (title, batch): (String, usize),
        (embedded, failure): (&'r RefCell<Embedded>, &'r RefCell<Option<TrainError>>),
    ) -> Self {
        let (begun, bar, seen) = (None, None, 0);
        Reader { run, opened, asked, title, batch, begun, bar, seen, embedded, failure }
    }

    /// The next batch; the first call begins to read.
    pub fn next(&mut self) -> Result<Option<Batch>, DataError> {
        if self.run.processes.interrupted() {
            return Ok(None);
        }
        self.run.processes.ranks.mark();
        if self.begun.is_none() {
            self.begun = Some(self.begin()?);
            self.bar = Some(self.begin_bar()?);
        }
        let batch = match &mut self.begun {
            Some(Begun::Alone(loader)) => loader.next()?,
            _ => self.next_of_all()?,
        };
        match &batch {
            Some(batch) => {
                self.seen += batch.keys.len() as u64;
                if let Some(bar) = &self.bar {
                    bar.update(self.seen, "");
                }
            }
            None => self.end(),
        }
        Ok(batch)
    }

    fn begin(&self) -> Result<Begun, DataError> {
        if leads_alone(self.run) {
            let options = loading(self.run, &self.opened, Share::WHOLE, self.batch);
            return Ok(Begun::Alone(Loader::start(options)?));
        }
        let (evaluator, part, mask) = &self.asked;
        let opened = tell(self.run, &Message::Open { evaluator: *evaluator, part: *part });
        opened.map_err(|error| self.failed(error))?;
        let loader = OwnRows::start(self.run, &self.opened).map_err(|error| error.to_string());
        let own = OwnRows { loader, mask: mask.clone() };
        let merge = Merge::of(self.run.processes.ranks.count());
        Ok(Begun::All { own, merge, left_out: LeftOut::default() })
    }

    /// Leaves an error where the evaluation looks for it.
    fn failed(&self, error: TrainError) -> DataError {
        let told = DataError::Invalid(error.to_string());
        self.failure.replace(Some(error));
        told
    }

    /// The next batch of rows that all ranks have read.
    fn next_of_all(&mut self) -> Result<Option<Batch>, DataError> {
        let mut rows = Vec::with_capacity(self.batch);
        while rows.len() < self.batch {
            if let Err(error) = self.fill() {
                return Err(self.failed(error));
            }
            let Some(Begun::All { merge, .. }) = &mut self.begun else { break };
            let Some(row) = merge.next() else { break };
            rows.push(row);
        }
        if rows.is_empty() {
            return match (&self.begun, self.seen) {
                (Some(Begun::All { left_out, .. }), 0) => Err(DataError::NothingUsable {
                    source_name: self.opened.source.name(),
                    skipped: left_out.to_string(),
                }),
                _ => Ok(None),
            };
        }
        let (batch, embeddings) = stack(rows, self.run.config.model.image.size);
        let of = (batch.numbers.clone(), batch.keys.clone());
        self.embedded.replace(Embedded { of, embeddings });
        Ok(Some(batch))
    }

    /// Asks all ranks for rows until it is known which comes next.
    fn fill(&mut self) -> Result<(), TrainError> {
        let Some(Begun::All { own, merge, left_out }) = &mut self.begun else { return Ok(()) };
        while merge.wants() {
            tell(self.run, &Message::Read { part: self.asked.1 })?;
            for (rank, (told, rows)) in advance(self.run, own)?.into_iter().enumerate() {
                if let Some(reason) = told.failure {
                    return Err(ExchangeError::OtherRank { rank, reason }.into());
                }
                merge.add(rank, rows);
                // A rank that has ended says so again whenever it is asked.
                if let Some(end) = told.end.filter(|_| merge.end(rank)) {
                    left_out.add(end);
                }
            }
        }
        Ok(())
    }

    /// Tells what was left out, once.
    fn end(&mut self) {
        let Some(bar) = self.bar.take() else { return };
        bar.finish();
        let skipped = match &self.begun {
            Some(Begun::Alone(loader)) => LeftOut::here(loader.skipped()),
            Some(Begun::All { left_out, .. }) => left_out.clone(),
            None => LeftOut::default(),
        };
        if !skipped.is_empty() {
            tracing::warn!(target: "flip::data", %skipped, "samples were left out of {}", self.title);
        }
    }

    fn begin_bar(&self) -> Result<Bar, DataError> {
        let source = &self.opened.source;
        let (name, progress, counted) = (source.name(), source.progress(), source.clone());
        let timeout = self.run.config.data.storage.stall_timeout();
        let count = move || counted.samples();
        let samples = with_stall_timeout(timeout, &name, "counting the samples", progress, count)?;
        Ok(self.run.processes.progress.bar(&self.title, samples.unwrap_or(0), "images"))
    }
}
