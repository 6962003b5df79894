//! Sources of image-text pairs, and the order in which they hand out samples.

pub mod cifar;
pub mod clip_benchmark;
mod config;
pub mod counting;
mod cursor;
pub mod exclude;
mod file_list;
mod files;
pub mod filter;
pub mod folder;
pub mod imagenet;
pub mod images;
pub mod karpathy;
mod lane;
mod listing;
pub mod mix;
pub(crate) mod open;
mod opened;
pub mod pattern;
mod permutation;
mod pieces;
pub mod scenes;
mod shard_index;
pub mod table;
mod tar_shards;
pub mod webdataset;
mod windows;

pub use config::{SourceConfig, Weighted};
pub use cursor::{Cursor, MixCursors};
pub use file_list::FileList;
pub use files::Files;
pub use lane::Lane;
pub use open::open_source;
pub use shard_index::{Indexed, IndexedShard, ShardIndex};

pub use windows::Deal;

use std::sync::Arc;

use crate::data::decode::MAX_PIXELS;
use crate::data::storage::{Location, Progress};
use crate::data::{DataError, LoadError, Raw};

/// The order in which a source hands out its samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A permutation per epoch, drawn from this seed: shards shuffled, then samples within each window.
    Shuffled {
        /// The seed.
        seed: u64,
    },
    /// One lane of such a permutation. Shards that are counted are cut where lanes begin; others are dealt out whole, and
    /// single files in turns. Random choices for a sample derive from its shard and number, not from its place in the lane.
    Lane {
        /// The seed.
        seed: u64,
        /// The lane.
        lane: Lane,
    },
    /// As stored.
    Stored,
}

impl Order {
    /// Seed and lane of an order that is drawn.
    pub(crate) fn shuffled(self) -> Option<(u64, Lane)> {
        match self {
            Order::Stored => None,
            Order::Shuffled { seed } => Some((seed, Lane::WHOLE)),
            Order::Lane { seed, lane } => Some((seed, lane)),
        }
    }
}

/// One sample, named but not yet loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Epoch of the sample, from 0.
    pub epoch: u64,
    /// Number that random choices for the sample derive from, with the epoch. It does not repeat within an epoch, unless
    /// shards are drawn with replacement: in a lane of shards it is that of the sample, otherwise its place in the order.
    pub index: u64,
    /// The source's own name for it: (shard, sample in the shard), or (0, sample).
    pub item: (u64, u64),
    /// The cursor just past it.
    pub after: Cursor,
}

/// A source of image-text pairs. The order is decided sequentially and cheaply by `ticket`; the work of
/// `load` runs on many threads.
pub trait Source: Send + Sync {
    /// Samples of one pass, broken ones included; `None` where endless. It may have to read the headers of
    /// every shard the first time.
    fn samples(&self) -> Option<u64>;

    /// The sample at `cursor`; `None` at the end of the cursor's epoch.
    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError>;

    /// True if lanes take turns at the places of one order, so that any number of them goes on from one place.
    fn takes_turns(&self) -> bool {
        true
    }

    /// Says how many more samples a lane will be asked for, so that nothing is brought beforehand that nobody wants.
    fn want(&self, _lane: Lane, _samples: u64) {}

    /// Every file that samples come from, in the order of the source; none where it makes them itself.
    fn files(&self) -> Vec<Location> {
        Vec::new()
    }

    /// The sets of shards that an index can be of: of a mix, those of all sources.
    fn indexed(&self) -> Vec<&dyn Indexed> {
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

    /// Number of this sample among those of the same key in its shard, from 1.
    fn occurrence(&self, _ticket: &Ticket) -> u32 {
        1
    }

    /// An identity of the image, where several samples may be of one: rows of a table that name the same file.
    fn image_of(&self, _ticket: &Ticket, _key: &str) -> Option<u64> {
        None
    }

    /// Images with more pixels than this are skipped before they are decoded.
    fn max_pixels(&self) -> u64 {
        MAX_PIXELS
    }

    /// Reads in progress, where the source can tell.
    fn progress(&self) -> Option<Arc<Progress>> {
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
