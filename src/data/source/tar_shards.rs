//! The tar shards of a source, opened on demand and held against their index.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::data::shard::Shard;
use crate::data::source::listing::sizes;
use crate::data::source::opened::ShardSet;
use crate::data::source::shard_index::{Indexed, IndexedShard, ShardIndex};
use crate::data::source::Ticket;
use crate::data::storage::{Location, Storage, StorageError};
use crate::data::{DataError, Defect};

/// The shards, opened on demand.
pub(super) struct Shards {
    pub files: Vec<Location>,
    pub storage: Arc<Storage>,
    /// By which a shard is known when it is opened again; 0 where it never was.
    stamps: Vec<AtomicU64>,
    /// Bytes and samples of each, once they are known.
    index: OnceLock<ShardIndex>,
    /// Samples of each, where there is an index.
    counts: OnceLock<Vec<u32>>,
}

impl Shards {
    pub fn new(files: Vec<Location>, storage: Arc<Storage>) -> Self {
        let stamps = files.iter().map(|_| AtomicU64::new(0)).collect();
        Shards { files, storage, stamps, index: OnceLock::new(), counts: OnceLock::new() }
    }

    /// Takes the index of a file, which has to be that of the shards.
    pub fn hold_against(&self, path: &Path) -> Result<(), DataError> {
        let refused = |what: String| {
            DataError::OtherData(format!(
                "{}: not the index of these shards: {what}. Put the shards back, or make it anew with `flip data index`",
                path.display()
            ))
        };
        let index = ShardIndex::read(path)?.of_files(&self.files).map_err(refused)?;
        let sizes = sizes(&self.files)?;
        for (shard, bytes) in index.shards().iter().zip(sizes) {
            match (shard.bytes, bytes) {
                (Some(expected), Some(found)) if expected != found => {
                    return Err(refused(format!("{} has {found} bytes instead of {expected}", shard.url)));
                }
                _ => {}
            }
        }
        self.settle(index);
        Ok(())
    }

    /// The index says that there is a sample, and its shard ends before it.
    pub fn absent(&self, ticket: &Ticket, shard: &Shard) -> Option<Defect> {
        let indexed = self.index.get()?.shards()[ticket.item.0 as usize].samples;
        let (sample, there) = (ticket.item.1, shard.len() as u64);
        (there <= sample && sample < indexed).then(|| {
            let detail = format!("sample {sample}, counted from 0, of {there}; the index says {indexed}");
            Defect::new("sample_absent", detail)
        })
    }

    /// Warns of a shard that has more samples than the index says, and refuses one of another length.
    fn check_indexed(&self, number: usize, shard: &Shard) -> Result<(), StorageError> {
        let Some(IndexedShard { bytes, samples, .. }) = self.index.get().map(|index| &index.shards()[number])
        else {
            return Ok(());
        };
        let (location, there) = (shard.location(), shard.len() as u64);
        if bytes.is_some_and(|bytes| bytes != shard.bytes()) {
            let (bytes, found) = (bytes.unwrap_or_default(), shard.bytes());
            let problem = match shard.damage() {
                Some(damage) if found == 0 => damage.detail.clone(),
                _ => format!("it has {found} bytes"),
            };
            let detail = format!("{problem}, and the index says {bytes} bytes");
            return Err(StorageError::Changed { location: location.clone(), detail });
        }
        if there > *samples {
            tracing::warn!(
                target: "flip::data",
                "{location}: holds {there} samples, and the index says {samples}; those behind are left out"
            );
        }
        Ok(())
    }

    /// The order of a window names samples by their number, and so does a checkpoint.
    fn check_unchanged(&self, number: usize, shard: &Shard) -> Result<(), StorageError> {
        let stamp = shard.stamp().max(1);
        match self.stamps[number].compare_exchange(0, stamp, Ordering::Relaxed, Ordering::Relaxed) {
            Err(known) if known != stamp => Err(StorageError::Changed {
                location: shard.location().clone(),
                detail: format!(
                    "it has {} bytes and {} samples now, which are not those that it had when it was first opened",
                    shard.bytes(),
                    shard.len()
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl ShardSet for Shards {
    type Shard = Shard;

    fn count(&self) -> usize {
        self.files.len()
    }

    fn counts(&self) -> Option<&[u32]> {
        let index = self.index.get()?;
        let counts = || index.shards().iter().map(|shard| shard.samples as u32).collect();
        Some(self.counts.get_or_init(counts))
    }

    fn open(&self, number: usize) -> Result<Shard, DataError> {
        let opened = Shard::open_at(&self.files[number], &self.storage)?;
        self.check_unchanged(number, &opened)?;
        self.check_indexed(number, &opened)?;
        if let Some(damage) = opened.damage() {
            tracing::warn!(
                target: "flip::data",
                "{}: {}: {}; its first {} samples are used",
                opened.location(),
                damage.reason,
                damage.detail,
                opened.len() - 1
            );
        } else if opened.is_empty() {
            let (shard, bytes) = (opened.location(), opened.bytes());
            tracing::warn!(target: "flip::data", "{shard}: holds no sample; it has {bytes} bytes");
        }
        Ok(opened)
    }

    fn samples(shard: &Shard) -> usize {
        shard.len()
    }
}

impl Indexed for Shards {
    fn files(&self) -> &[Location] {
        &self.files
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn index(&self) -> Option<&ShardIndex> {
        self.index.get()
    }

    fn settle(&self, index: ShardIndex) {
        self.index.get_or_init(|| index);
    }
}
