//! Counting the samples of shards: from what img2dataset wrote beside them, else by their headers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::data::shard::Shard;
use crate::data::source::pieces::Epoch;
use crate::data::source::shard_index::IndexedShard;
use crate::data::storage::{Location, Storage, StorageError};
use crate::data::DataError;

/// Shards that are counted at the same time: a network file system answers several at once.
const COUNTED_AT_ONCE: usize = 8;
/// Longest `*_stats.json`, bytes.
const LONGEST_STATS: u64 = 1 << 20;

/// File that img2dataset writes beside a shard.
#[derive(Deserialize)]
struct Stats {
    successes: u64,
}

/// Counts shards, several at a time. `counted` is called with the number of those that are done.
///
/// # Errors
/// A shard cannot be had.
pub fn count(
    files: &[Location],
    storage: &Storage,
    counted: impl Fn(usize) + Sync,
) -> Result<Vec<IndexedShard>, DataError> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found: Mutex<Vec<Option<IndexedShard>>> = Mutex::new(vec![None; files.len()]);
    let failure: Mutex<Option<DataError>> = Mutex::new(None);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(file) = files.get(number).filter(|_| lock(&failure).is_none()) else { return };
        match count_one(file, storage) {
            Ok(shard) => lock(&found)[number] = Some(shard),
            Err(error) => {
                lock(&failure).get_or_insert(error);
            }
        }
        counted(done.fetch_add(1, Ordering::Relaxed) + 1);
    };
    std::thread::scope(|scope| {
        for _ in 1..files.len().min(COUNTED_AT_ONCE) {
            // Where the system refuses a thread, the others do its work.
            let _ = std::thread::Builder::new().name("flip-index".into()).spawn_scoped(scope, work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect())
        }
    }
}

/// So many shards in the order of the first epoch of a source that is not in a mix.
pub fn first_epoch(seed: u64, shards: usize) -> Vec<usize> {
    Epoch::draw(seed, 0, shards, None).shards().iter().map(|&shard| shard as usize).collect()
}

fn count_one(file: &Location, storage: &Storage) -> Result<IndexedShard, DataError> {
    let url = file.to_string();
    if let (Some(samples), Location::File(path)) = (successes(file, storage), file) {
        let there = std::fs::metadata(path);
        let bytes = there.map_err(|source| DataError::Io { path: path.clone(), source })?.len();
        return Ok(IndexedShard { url, bytes: Some(bytes), samples });
    }
    let shard = Shard::open_at(file, storage)?;
    if let (Some(damage), 0) =
        (shard.damage().filter(|damage| damage.reason == "shard_missing"), shard.bytes())
    {
        return Err(StorageError::Absent { location: file.clone(), detail: damage.detail.clone() }.into());
    }
    Ok(IndexedShard { url, bytes: Some(shard.bytes()), samples: shard.len() as u64 })
}

/// The successes in `00000_stats.json` beside `00000.tar`, where it is there.
fn successes(file: &Location, storage: &Storage) -> Option<u64> {
    let Location::File(path) = file else { return None };
    let stats = path.with_file_name(format!("{}_stats.json", path.file_stem()?.to_str()?));
    let there =
        stats.exists().then(|| storage.read(&Location::File(stats), LONGEST_STATS, || true).ok())??;
    Some(serde_json::from_slice::<Stats>(&there).ok()?.successes)
}

/// Locks; what a panicking thread left is a list of what is done.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
