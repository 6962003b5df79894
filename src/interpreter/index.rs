//! The index of the training data: from the recipe, from the run folder, or counted as the run begins.

use super::environment::Environment;
use super::error::InterpreterError;
use super::share;
use crate::data::source::counting;
use crate::data::source::{Indexed, IndexedShard, ShardIndex, Source};
use crate::data::storage::{with_stall_timeout, Location};
use crate::data::DataConfig;
use crate::ranks::{broadcast_bytes, Ranks};

use std::sync::Arc;

/// Gives the source the index of its shards, where it has shards that an index can be of and `counts` asks for it. Shards
/// of this machine that nobody counted are counted by all ranks, a share each. The index, of all sets of shards one after
/// the other, is kept in the run folder. `data` comes with the seed of the run.
///
/// # Errors
/// A shard cannot be counted, or a rank has another index than rank 0.
pub(super) fn settle(
    data: (&DataConfig, u64),
    source: &Arc<dyn Source>,
    counts: bool,
    environment: &Environment<'_>,
) -> Result<Option<ShardIndex>, InterpreterError> {
    let ranks = environment.ranks;
    let uncounted: Vec<&dyn Indexed> =
        source.indexed().into_iter().filter(|set| set.index().is_none() && set.is_local()).collect();
    if counts && !uncounted.is_empty() {
        let files: Vec<Location> = uncounted.iter().flat_map(|set| set.files().to_vec()).collect();
        let index = match kept(ranks, environment, &files)? {
            Some(index) => index,
            None => counted(data, ranks, source, files)?,
        };
        let mut shards = index.shards().iter().cloned();
        for set in uncounted {
            set.settle(ShardIndex::new(shards.by_ref().take(set.files().len()).collect()));
        }
        if let Some(folder) = environment.folder {
            let path = folder.index();
            let written = index.write(&path);
            written.map_err(|error| InterpreterError::Index(format!("{}: {error}", path.display())))?;
        }
    }
    let indexes: Vec<&ShardIndex> = source.indexed().into_iter().filter_map(|set| set.index()).collect();
    if indexes.is_empty() {
        return Ok(None);
    }
    let whole: Vec<IndexedShard> = indexes.iter().flat_map(|index| index.shards().to_vec()).collect();
    let whole = ShardIndex::new(whole);
    share::same_index(ranks, &whole)?;
    Ok(Some(whole))
}

/// The index in the run folder, where it is there and that of these files, to all.
fn kept(
    ranks: &dyn Ranks,
    environment: &Environment<'_>,
    files: &[Location],
) -> Result<Option<ShardIndex>, InterpreterError> {
    let path = environment.folder.map(|folder| folder.index()).filter(|path| path.exists());
    let kept = path.and_then(|path| match ShardIndex::read(&path) {
        Ok(index) => index.of_files(files).ok(),
        Err(error) => {
            tracing::warn!(target: "flip::data", "the shards are counted anew: {error}");
            None
        }
    });
    let unreadable = |error: serde_json::Error| InterpreterError::Shared(error.to_string());
    let told = broadcast_bytes(ranks, &serde_json::to_vec(&kept).map_err(unreadable)?)?;
    serde_json::from_slice(&told).map_err(unreadable)
}

/// Counts the shards: each rank those, about, that it trains on first, so that it need not read others.
fn counted(
    (data, seed): (&DataConfig, u64),
    ranks: &dyn Ranks,
    source: &Arc<dyn Source>,
    files: Vec<Location>,
) -> Result<ShardIndex, InterpreterError> {
    let of = |rank: usize| rank * files.len() / ranks.count();
    let order = counting::first_epoch(seed, files.len());
    let own = order[of(ranks.rank())..of(ranks.rank() + 1)]
        .iter()
        .map(|&file| files[file].clone())
        .collect::<Vec<_>>();
    tracing::info!(target: "flip::data", shards = files.len(), "counting the samples of the shards");
    let (counting, progress) = (source.clone(), source.progress());
    let count = move || {
        let sets = counting.indexed();
        let storage = sets.first().map(|set| set.storage());
        storage.map_or(Ok(Vec::new()), |storage| counting::count(&own, storage, |_| ()))
    };
    let timeout = data.storage.stall_timeout();
    let counted = with_stall_timeout(timeout, &source.name(), "counting the samples", progress, count);
    let counted = counted.and_then(|counted| counted).map_err(InterpreterError::Train)?;
    let unreadable = |error: serde_json::Error| InterpreterError::Shared(error.to_string());
    let mut in_order = Vec::with_capacity(files.len());
    for some in ranks.gather(&serde_json::to_vec(&counted).map_err(unreadable)?)? {
        in_order.extend(serde_json::from_slice::<Vec<IndexedShard>>(&some).map_err(unreadable)?);
    }
    let mut all: Vec<(usize, IndexedShard)> = order.into_iter().zip(in_order).collect();
    all.sort_by_key(|(file, _)| *file);
    Ok(ShardIndex::new(all.into_iter().map(|(_, shard)| shard).collect()))
}
