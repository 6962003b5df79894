//! What every source of pairs has in common.

pub mod cifar;
pub mod clip_benchmark;
mod cursor;
pub mod exclude;
mod file_list;
mod files;
pub mod filter;
pub mod folder;
pub mod imagenet;
pub mod karpathy;
pub mod mix;
pub mod pattern;
mod permutation;
pub mod scenes;
pub mod table;
pub mod webdataset;
mod windows;

pub use cursor::{Cursor, Parts};
pub use file_list::FileList;
pub use files::Files;

use std::sync::Arc;

use crate::data::storage::{Location, Pulse, StorageError};
use crate::data::DataError;

/// The order in which a source hands out its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A permutation per epoch, drawn from this seed: shards shuffled, then samples within each window.
    Shuffled { seed: u64 },
    /// As stored.
    Stored,
}

/// One sample, named but not yet loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub epoch: u64,
    /// Place in the order of the epoch: it grows along the order and never repeats within an epoch, but a
    /// source may leave gaps. Random choices for the sample derive from it.
    pub index: u64,
    /// The source's own name for it: (shard, sample in the shard), or (0, sample).
    pub item: (u64, u64),
    /// The cursor just past it.
    pub after: Cursor,
}

/// An image as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A file: JPEG, PNG, WebP, GIF or BMP, told by content.
    Encoded(Vec<u8>),
    /// [height, width, 3] bytes.
    Rgb { width: u32, height: u32, pixels: Vec<u8> },
}

/// A sample as a source has it, before cropping and tokenizing.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub key: String,
    pub image: Image,
    /// At least one, where they are needed.
    pub captions: Vec<String>,
    /// The sample's json, where it has one; or why it cannot be read, for who asks for it.
    pub meta: Result<Option<serde_json::Value>, Defect>,
    /// The class, where the source itself knows it (folders, scenes, `.cls` members).
    pub label: Option<i64>,
}

/// Why a sample was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// What is counted: `image_decode`, `caption_missing`, `shard_truncated`, ...
    pub reason: &'static str,
    /// Shard and key, for messages.
    pub sample: String,
    pub detail: String,
}

/// What is wrong with a sample, before it is known which one it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// What is counted.
    pub reason: &'static str,
    pub detail: String,
}

impl Defect {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Defect { reason, detail: detail.into() }
    }

    /// The defect of this sample.
    pub fn of(self, sample: impl Into<String>) -> Skip {
        Skip { reason: self.reason, sample: sample.into(), detail: self.detail }
    }
}

/// Why a sample does not load.
#[derive(Debug)]
pub enum LoadError {
    /// It is broken, or its shard is: it is left out and counted.
    Skip(Skip),
    /// The machine or the network failed, or the file is another one by now: that ends the run.
    Failed(DataError),
}

impl LoadError {
    /// The broken sample.
    pub fn skip(self) -> Option<Skip> {
        match self {
            LoadError::Skip(skip) => Some(skip),
            LoadError::Failed(_) => None,
        }
    }
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Skip(skip) => write!(f, "{}: {}", skip.sample, skip.detail),
            LoadError::Failed(error) => error.fmt(f),
        }
    }
}

impl From<Skip> for LoadError {
    fn from(skip: Skip) -> Self {
        LoadError::Skip(skip)
    }
}

impl From<DataError> for LoadError {
    fn from(error: DataError) -> Self {
        LoadError::Failed(error)
    }
}

/// The same before it is known which sample it is.
#[derive(Debug)]
pub(crate) enum Cause {
    Defect(Defect),
    Failed(DataError),
}

impl Cause {
    /// That of a sample of this name.
    pub fn of(self, sample: impl FnOnce() -> String) -> LoadError {
        match self {
            Cause::Defect(defect) => LoadError::Skip(defect.of(sample())),
            Cause::Failed(error) => LoadError::Failed(error),
        }
    }
}

impl From<Defect> for Cause {
    fn from(defect: Defect) -> Self {
        Cause::Defect(defect)
    }
}

impl From<DataError> for Cause {
    fn from(error: DataError) -> Self {
        Cause::Failed(error)
    }
}

impl From<StorageError> for Cause {
    fn from(error: StorageError) -> Self {
        Cause::Failed(error.into())
    }
}

/// Longest image that is read, bytes.
pub(crate) const LONGEST_IMAGE: u64 = 256 << 20;
/// Images with more pixels than this are skipped where a source does not say otherwise.
pub const MAX_PIXELS: u64 = 89_478_485;

/// A source of image-text pairs. The order is decided sequentially and cheaply by `ticket`; the work of
/// `load` runs on many threads.
pub trait Source: Send + Sync {
    /// Samples of one pass, broken ones included; `None` where endless. It may have to read the headers of
    /// every shard the first time.
    fn samples(&self) -> Option<u64>;

    /// The sample at `cursor`; `None` at the end of the cursor's epoch.
    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError>;

    /// Every file that samples come from, in the order of the source; none where it makes them itself.
    fn files(&self) -> Vec<Location> {
        Vec::new()
    }

    /// Reads one sample.
    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError>;

    /// Names the source in messages.
    fn name(&self) -> String {
        "the source".into()
    }

    /// Names a sample in messages: where it is, and its key.
    fn sample_name(&self, _ticket: &Ticket, key: &str) -> String {
        key.to_owned()
    }

    /// The shards, as [`shard_of`](Self::shard_of) names them; empty where there are none.
    fn shards(&self) -> Vec<String> {
        Vec::new()
    }

    /// The shard that a sample is in.
    fn shard_of(&self, _ticket: &Ticket) -> Option<String> {
        None
    }

    /// Which of the samples of its key in its shard it is, from 1.
    fn occurrence(&self, _ticket: &Ticket) -> u32 {
        1
    }

    /// Which image it is, where several samples may be of one: rows of a table that name the same file.
    fn image_of(&self, _ticket: &Ticket, _key: &str) -> Option<u64> {
        None
    }

    /// Images with more pixels than this are skipped before they are decoded.
    fn max_pixels(&self) -> u64 {
        MAX_PIXELS
    }

    /// What it is reading at this moment, where it can tell.
    fn pulse(&self) -> Option<Arc<Pulse>> {
        None
    }

    /// Names of the classes that `Raw::label` counts, where the source knows them.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Prompt templates that come with the classes, `{}` where the class name goes.
    fn templates(&self) -> Vec<String> {
        Vec::new()
    }
}
