//! Everything that decides what a loader yields.

use std::sync::Arc;

use crate::data::decode::Transform;
use crate::data::load::{LimitsConfig, Share};
use crate::data::source::filter::Filter;
use crate::data::source::{Cursor, Lane, Order, Source};
use crate::data::storage::StallTimeout;
use crate::data::text::Tokenizer;

/// Everything that decides what a loader yields.
#[derive(Clone)]
pub struct LoaderOptions {
    /// The source of samples.
    pub source: Arc<dyn Source>,
    /// The order in which samples are taken.
    pub order: Order,
    /// Number of passes over the source.
    pub passes: Passes,
    /// The samples of the order that are for this process.
    pub share: Share,
    /// The first sample.
    pub start: Cursor,
    /// Lanes of a shuffled order that are for this loader, each with its first sample: a batch has as many samples of
    /// each, one lane after the other. None: the whole order, from `start`.
    pub lanes: Vec<(Lane, Cursor)>,
    /// Batches that will be taken; nothing is read for more of them. None: nobody knows.
    pub batches: Option<u64>,
    /// Pairs in a batch.
    pub batch: usize,
    /// A pass may end with a smaller batch; otherwise its last pairs are left out. Endless passes have
    /// no end: a batch may hold the last pairs of one epoch and the first of the next.
    pub keep_partial: bool,
    /// The transform of images.
    pub transform: Transform,
    /// Patches that a mask keeps, if it is known before images are decoded; nothing else is resized.
    pub patches: Option<Patches>,
    /// The tokenizer of captions.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens of a caption.
    pub context: usize,
    /// Origin of the class labels.
    pub label: LabelFrom,
    /// Good samples that are left out nevertheless; none without.
    pub filter: Option<Arc<Filter>>,
    /// Limits on samples, and on the share of broken ones.
    pub limits: LimitsConfig,
    /// Threads that read, decode and tokenize; at least one. They change the speed and nothing else.
    pub workers: usize,
    /// Longest wait for a source that makes no progress.
    pub stall_timeout: StallTimeout,
    /// Crops and the choice among several captions derive from it.
    pub seed: u64,
}

impl LoaderOptions {
    /// One pass in stored order on one thread, without labels and filters, an incomplete last batch left out: set other
    /// fields for something else. `context` is the number of tokens of a caption, `batch` that of pairs in a batch.
    pub fn new(
        source: Arc<dyn Source>,
        transform: Transform,
        tokenizer: Arc<Tokenizer>,
        context: usize,
        batch: usize,
    ) -> Self {
        LoaderOptions {
            source,
            order: Order::Stored,
            passes: Passes::Once,
            share: Share::WHOLE,
            start: Cursor::default(),
            lanes: Vec::new(),
            batches: None,
            batch,
            keep_partial: false,
            transform,
            patches: None,
            tokenizer,
            context,
            label: LabelFrom::None,
            filter: None,
            limits: LimitsConfig::default(),
            workers: 1,
            stall_timeout: StallTimeout::default(),
            seed: 0,
        }
    }
}

impl LoaderOptions {
    /// The first sample of each lane, or of the whole order.
    pub fn starts(&self) -> Vec<Cursor> {
        self.walks().into_iter().map(|(_, start)| start).collect()
    }

    /// The orders that are walked side by side, each with its first sample.
    pub(super) fn walks(&self) -> Vec<(Order, Cursor)> {
        let of = |&(lane, start): &(Lane, Cursor)| match self.order.shuffled() {
            Some((seed, _)) => (Order::Lane { seed, lane }, start),
            None => (self.order, start),
        };
        match self.lanes.is_empty() {
            true => vec![(self.order, self.start)],
            false => self.lanes.iter().map(of).collect(),
        }
    }
}

/// Patches of images instead of whole ones.
#[derive(Clone)]
pub struct Patches {
    /// Side of a patch, pixels; the size of the images is a multiple of it.
    pub side: usize,
    /// Patches of each image.
    pub kept: usize,
    /// The `kept` patches of the sample that stands at (epoch, index), each less than their number in an image.
    pub keep: Arc<dyn Fn(u64, u64) -> Vec<u32> + Send + Sync>,
}

/// Number of passes over the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Epoch after epoch.
    Endless,
    /// To the end of the epoch of the first sample. The source has to have an end.
    Once,
}

/// Origin of the class of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelFrom {
    /// Samples have no label.
    None,
    /// The source knows it: `.cls` members, folders, scenes.
    Source,
    /// A whole number in the sample's json. Anything else there, or a negative number, is no label.
    JsonField(String),
}
