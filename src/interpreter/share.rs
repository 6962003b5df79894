//! Files that rank 0 reads for all: the others need not see the run folder.

use super::error::InterpreterError;
use crate::data::source::FileList;
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
    if ranks.count() == 1 {
        return Ok(());
    }
    let own = files.hash();
    let all = ranks.gather(own.as_bytes())?;
    if all.iter().all(|hash| *hash == all[0]) {
        return Ok(());
    }
    let unreadable = |error: serde_json::Error| InterpreterError::Shared(error.to_string());
    let first = broadcast_bytes(ranks, &serde_json::to_vec(files).map_err(unreadable)?)?;
    let first: FileList = serde_json::from_slice(&first).map_err(unreadable)?;
    let told = match first.difference(files) {
        Some(difference) => format!(
            "  {} (host {}) has other training data than rank 0: {difference}",
            ranks.name(),
            ranks::host()
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::data::{open_source, SourceConfig, WebDatasetConfig};
    use crate::ranks::Together;

    #[test]
    fn ranks_with_other_shards_are_named_with_the_shard() {
        let there = tempfile::tempdir().unwrap();
        let told = |on_second: &[(&str, usize)]| -> Vec<Result<(), String>> {
            let lists = [&[("0.tar", 512), ("1.tar", 512)][..], on_second].map(|shards| {
                let folder = there.path().join("data");
                let _ = fs::remove_dir_all(&folder);
                fs::create_dir(&folder).unwrap();
                for (name, bytes) in shards {
                    fs::write(folder.join(name), vec![0; *bytes]).unwrap();
                }
                let pattern = folder.join("*.tar").display().to_string();
                let config = SourceConfig::WebDataset(WebDatasetConfig::new(pattern.as_str()));
                FileList::of(&*open_source(&config, 0).unwrap()).unwrap()
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
        assert_eq!(told(&[("0.tar", 512), ("1.tar", 512)]), [Ok(()), Ok(())]);
        for (on_second, expected) in [
            (&[("0.tar", 512), ("1.tar", 100)][..], "1.tar has 100 bytes instead of 512 bytes"),
            (&[("0.tar", 512)], "1.tar (512 bytes) is missing"),
            (&[("0.tar", 512), ("1.tar", 512), ("2.tar", 512)], "2.tar (512 bytes) was added"),
        ] {
            for rank in told(on_second) {
                let said = rank.unwrap_err();
                assert!(said.contains("rank 1 of 2") && said.contains(expected), "{said}");
            }
        }
    }
}
