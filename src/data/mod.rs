//! From a recipe's sources to batches of images and tokens, in an order that depends on the seed alone.
//!
//! A [`source::Source`] names samples by tickets and reads them, from files that [`storage`] opens and from [`shard`]s;
//! [`decode`] and [`text`] turn them into pixels and token ids; a [`load::Loader`] does so ahead of time on several
//! threads and makes batches.
//!
//! # Failures
//!
//! Every failure is one of three, and the third is never taken for one of the others: what a run learns depends on its
//! recipe and its data, not on the state of the machine.
//!
//! 1. **The sample's**: its bytes were read, and they are no image, no caption, no row. It is left out, counted by
//!    reason and named with its shard ([`LoadError::Skip`]). So is an image that a table or a list names and
//!    that does not exist: its folder is there, or its server answers 404 or 410.
//! 2. **The shard's**: its bytes were read, and from some place on they are no archive. What is before counts, and the
//!    damage is counted and named as one more sample ([`shard::Shard::damage`]). What came over a network is fetched
//!    twice before it is called damaged, and not kept in the cache. A shard behind a URL that the server does not have
//!    (404 or 410 at the first time of asking) is a missing one, counted and named likewise.
//! 3. **The machine's or the network's**: everything else. Any error of opening, looking at, reading or mapping a file
//!    that was there when its source was opened, and of unpacking or caching one (ENOSPC, EMFILE, ENFILE, ENOMEM, EIO,
//!    ESTALE, EACCES, ENOENT, ...); a name that cannot be resolved, a connection that is refused, breaks or falls
//!    silent; the answers 401, 403, 408, 425, 429 and 5xx; a page of HTML, or nothing, in place of a file; 404 for a
//!    shard that was there before. It is tried again after growing pauses, `data.storage.attempts` times and within
//!    `data.storage.stall_limit_s`; then the run ends with an error that names file and cause
//!    ([`LoadError::Failed`], [`DataError`]) after a checkpoint of what has been trained. Answers that cannot
//!    change (400, 405, ...) end it at once. With `data.storage.dead_links: Skip` an image of a table is the sample's
//!    even if its server cannot be reached, because on the open web many cannot.
//!
//! A file that is another one than when the run first read it - shorter, with other samples, with another header in
//! front of a sample - ends the run likewise, at once ([`storage::StorageError::Changed`]): the order of an epoch
//! and the place in a checkpoint name samples by their number. What is missing or cannot be looked at before the first
//! step is an error then, but for files of a pattern that do not exist: a warning names those.

#![warn(missing_docs)]

mod config;
pub mod decode;
mod defect;
mod error;
#[cfg(test)]
mod failure_tests;
pub mod load;
mod sample;
pub mod shard;
pub mod source;
pub mod storage;
pub mod text;

pub use config::DataConfig;
pub use decode::AugmentConfig;
pub(crate) use defect::Cause;
pub use defect::{Defect, LoadError, Skip};
pub use error::DataError;
pub use load::Batch;
pub use sample::{Image, Raw};
pub use source::cifar::CifarConfig;
pub use source::clip_benchmark::ClipBenchmarkConfig;
pub use source::folder::FolderConfig;
pub use source::imagenet::ImageNetConfig;
pub use source::karpathy::{KarpathyConfig, KarpathySplit};
pub use source::scenes::{ScenesConfig, ScenesLevel, ScenesSplit};
pub use source::table::TableConfig;
pub use source::webdataset::WebDatasetConfig;
pub use source::{open_source, Cursor, MixCursors, SourceConfig, Weighted};
pub use storage::{DeadLinks, Storage, StorageConfig};
pub use text::{CaptionMember, CaptionUse};
