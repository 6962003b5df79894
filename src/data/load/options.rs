//! Everything that decides what a loader yields.

use std::sync::Arc;

use crate::data::decode::Transform;
use crate::data::load::{LimitsConfig, Share};
use crate::data::source::filter::Filter;
use crate::data::source::{Cursor, Order, Source};
use crate::data::storage::StallTimeout;
use crate::data::text::Tokenizer;

/// Everything that decides what a loader yields.
#[derive(Clone)]
pub struct LoaderOptions {
    pub source: Arc<dyn Source>,
    pub order: Order,
    pub passes: Passes,
    /// Which samples of the order are for this process.
    pub share: Share,
    /// The first sample.
    pub start: Cursor,
    /// Pairs in a batch.
    pub batch: usize,
    /// Whether a pass may end with a smaller batch; otherwise its last pairs are left out. Endless passes have
    /// no end: a batch may hold the last pairs of one epoch and the first of the next.
    pub keep_partial: bool,
    pub transform: Transform,
    /// Where a mask is known before images are decoded: the patches that it keeps, and nothing else is resized.
    pub patches: Option<Patches>,
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens of a caption.
    pub context: usize,
    pub label: LabelFrom,
    /// Good samples that are left out nevertheless; none without.
    pub filter: Option<Arc<Filter>>,
    pub limits: LimitsConfig,
    /// Threads that read, decode and tokenize; at least one. They change the speed and nothing else.
    pub workers: usize,
    /// How long the loader waits for a source that makes no progress.
    pub stall_timeout: StallTimeout,
    /// Crops and the choice among several captions derive from it.
    pub seed: u64,
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

/// How often the source is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Epoch after epoch.
    Endless,
    /// To the end of the epoch of the first sample. The source has to have an end.
    Once,
}

/// Where the class of an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelFrom {
    None,
    /// The source knows it: `.cls` members, folders, scenes.
    Source,
    /// A whole number in the sample's json. Anything else there, or a negative number, is no label.
    JsonField(String),
}
