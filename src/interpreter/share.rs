//! Files that rank 0 reads for all: the others need not see the run folder. And what all ranks must have alike.

use serde::de::DeserializeOwned;
use serde::Serialize;

use super::error::InterpreterError;
use crate::data::source::{FileList, ShardIndex};
use crate::data::text::Tokenizer;
use crate::ranks::{self, broadcast_bytes, Ranks, RanksError};

/// The tokenizer of rank 0, to all.
pub(super) fn tokenizer(ranks: &dyn Ranks, own: Option<Tokenizer>) -> Result<Tokenizer, InterpreterError> {
    if ranks.count() == 1 {
        return own.ok_or_else(|| InterpreterError::Shared("no tokenizer".into()));
    }
    let text = own.as_ref().map(Tokenizer::to_json).transpose()?.unwrap_or_default();
    let told = broadcast_bytes(ranks, text.as_bytes())?;
    Ok(own.map_or_else(|| Tokenizer::from_json(&told), Ok)?)
}

/// Refuses training data of which a rank has other files than rank 0: every one that does is named. The order of the
/// samples follows from the files, so each rank would train on a share of something else.
pub(super) fn same_data(ranks: &dyn Ranks, files: &FileList) -> Result<(), InterpreterError> {
    alike(ranks, "training data", &files.marked_hash(), files, FileList::difference)
}

/// The same of the index of its shards.
pub(super) fn same_index(ranks: &dyn Ranks, index: &ShardIndex) -> Result<(), InterpreterError> {
    alike(ranks, "index of the training data", &index.hash(), index, ShardIndex::difference)
}

/// Compares what each rank has by its hash.
fn alike<T: Serialize + DeserializeOwned>(
    ranks: &dyn Ranks,
    what: &str,
    hash: &str,
    own: &T,
    difference: impl Fn(&T, &T) -> Option<String>,
) -> Result<(), InterpreterError> {
    if ranks.count() == 1 {
        return Ok(());
    }
    let all = ranks.gather(hash.as_bytes())?;
    if all.iter().all(|hash| *hash == all[0]) {
        return Ok(());
    }
    let unreadable = |error: serde_json::Error| InterpreterError::Shared(error.to_string());
    let first = broadcast_bytes(ranks, &serde_json::to_vec(own).map_err(unreadable)?)?;
    let first: T = serde_json::from_slice(&first).map_err(unreadable)?;
    let told = match difference(&first, own) {
        Some(difference) => format!(
            "  {} (host {}) has other {what} than rank 0 (hash {} instead of {}): {difference}",
            ranks.name(),
            ranks::host(),
            short(hash.as_bytes()),
            short(&all[0])
        ),
        None => String::new(),
    };
    let told = ranks.gather(told.as_bytes())?;
    let told: Vec<String> = told
        .iter()
        .filter(|told| !told.is_empty())
        .map(|told| String::from_utf8_lossy(told).into_owned())
        .collect();
    Err(RanksError::NotAlike(told.join("\n")).into())
}

/// Hashes are known by their beginning.
fn short(hash: &[u8]) -> String {
    String::from_utf8_lossy(&hash[..hash.len().min(12)]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::{open_source, SourceConfig, WebDatasetConfig};
    use crate::ranks::Together;

    #[test]
    fn ranks_with_other_shards_are_named_with_the_shard() {
        let there = tempfile::tempdir().unwrap();
        let told = |on_second: &[(&str, usize, u8)]| -> Vec<Result<(), String>> {
            let lists = [&[("0.tar", 512, 0), ("1.tar", 9000, 0)][..], on_second].map(|shards| {
                let folder = there.path().join("data");
                let _ = fs::remove_dir_all(&folder);
                fs::create_dir(&folder).unwrap();
                for (name, bytes, value) in shards {
                    fs::write(folder.join(name), vec![*value; *bytes]).unwrap();
                }
                let pattern = folder.join("*.tar").display().to_string();
                let config = SourceConfig::WebDataset(WebDatasetConfig::new(pattern.as_str()));
                let source = open_source(&config, 0).unwrap();
                FileList::of(&*source).unwrap().marked(&*source).unwrap()
            });
            std::thread::scope(|scope| {
                let ranks = Together::of(2).into_iter().zip(&lists);
                let asked: Vec<_> = ranks
                    .map(|(ranks, files)| {
                        scope.spawn(move || same_data(&ranks, files).map_err(|error| error.to_string()))
                    })
                    .collect();
                asked.into_iter().map(|rank| rank.join().unwrap()).collect()
            })
        };
        assert_eq!(told(&[("0.tar", 512, 0), ("1.tar", 9000, 0)]), [Ok(()), Ok(())]);
        for (on_second, expected) in [
            (&[("0.tar", 512, 0), ("1.tar", 100, 0)][..], "1.tar has 100 bytes instead of 9000 bytes"),
            (&[("0.tar", 512, 0)], "1.tar (9000 bytes) is missing"),
            (&[("0.tar", 512, 0), ("1.tar", 9000, 0), ("2.tar", 512, 0)], "2.tar (512 bytes) was added"),
            (
                &[("0.tar", 512, 0), ("1.tar", 9000, 1)],
                "1.tar has other contents of the same length (checksum ",
            ),
        ] {
            for rank in told(on_second) {
                let said = rank.unwrap_err();
                assert!(said.contains("rank 1 of 2") && said.contains(expected), "{said}");
                assert!(said.contains("training data than rank 0 (hash "), "{said}");
            }
        }
    }
}
