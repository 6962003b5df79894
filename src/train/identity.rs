//! The identity of a run: the run itself, its training data and its tokenizer. Every checkpoint has it, and a run goes on from
//! those checkpoints alone that have its own.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::source::{FileList, ShardIndex};
use crate::ranks::hash_of;
use crate::record::{read_if_there, RecordError, RunFolder};

/// Identity of a run, as its checkpoints have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Drawn when the run began; no other run has it.
    pub run: String,
    /// Hash of the list of files of the training data.
    pub data: String,
    /// Hash of the index of its shards, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// Hash of `tokenizer.json`.
    pub tokenizer: String,
}

/// `identity.json`: the same, and the list itself, from which a difference can be told.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    run: String,
    tokenizer: String,
    data: FileList,
}

/// The training data, as the identity of a run has it.
#[derive(Debug, Clone, Copy)]
pub struct TrainingData<'a> {
    /// Its files.
    pub files: &'a FileList,
    /// The index of its shards, where there is one.
    pub index: Option<&'a ShardIndex>,
}

/// A checkpoint that a run cannot go on from.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It was copied into the folder.
    #[error(
        "{checkpoint} is of another run ({found}) than this folder ({expected}): was it copied here? Move it away, or \
         start a run of its own from it with init: Checkpoint({checkpoint:?})"
    )]
    Run {
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
        /// Run of the checkpoint.
        found: String,
        /// Run of the folder.
        expected: String,
    },
    /// Files of the training data changed.
    #[error(
        "data.train: not the data that the run in this folder was trained on: {difference}. The order of the samples \
         would be another one. Put the files back, or start another run from these weights with --out and init: \
         Checkpoint({checkpoint:?})"
    )]
    Data {
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
        /// The first file that differs, in words.
        difference: String,
    },
    /// The tokenizer changed.
    #[error(
        "{file} is not the tokenizer that {checkpoint} was trained with (its hash is {found}, expected {expected}): its \
         ids mean other tokens. Put the former file back"
    )]
    Tokenizer {
        /// The tokenizer.
        file: PathBuf,
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
        /// Beginning of its hash.
        found: String,
        /// Beginning of the hash in the checkpoint.
        expected: String,
    },
    /// The recipe does not lead there.
    #[error("{checkpoint} is of stage {stage}, step {step}: {problem}")]
    Place {
        /// Folder of the checkpoint.
        checkpoint: PathBuf,
        /// Its stage.
        stage: usize,
        /// Its step.
        step: u64,
        /// In words.
        problem: String,
    },
    /// A file of the folder.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Identity {
    /// Identity of the run in the folder, whose training data and tokenizer are there; written down there. The checkpoint that
    /// it goes on from, given with its folder, has to have the same; one of an earlier version has none.
    ///
    /// # Errors
    /// It has another one, or a file cannot be read or written.
    pub fn settle(
        folder: &RunFolder,
        data: TrainingData<'_>,
        resumed: Option<(&Path, Option<&Identity>)>,
    ) -> Result<Identity, IdentityError> {
        let tokenizer = file_hash(&folder.tokenizer())?;
        let kept = read(folder)?;
        let kept_run = kept.as_ref().map(|kept| kept.run.clone());
        match resumed {
            Some((checkpoint, Some(before))) => same(before, checkpoint, folder, kept, &tokenizer, data)?,
            Some((checkpoint, None)) => tracing::info!(
                target: "flip::checkpoint", checkpoint = %checkpoint.display(),
                "an earlier version wrote it, so it does not say which data it was trained on: not compared"
            ),
            None => {}
        }
        let before = resumed.and_then(|(_, before)| before);
        let run = before.map(|before| before.run.clone()).or(kept_run).unwrap_or_else(new_run);
        let file = IdentityFile {
            run: run.clone(),
            tokenizer: tokenizer.clone(),
            data: data.files.clone().unmarked(),
        };
        let path = folder.identity();
        let mut text = serde_json::to_vec(&file).map_err(|source| content(&path, source))?;
        text.push(b'\n');
        folder.replace(&path, &text).map_err(RecordError::from)?;
        Ok(Identity { run, data: data.files.hash(), index: data.index.map(ShardIndex::hash), tokenizer })
    }
}

/// Holds the identity of a checkpoint against the run, the tokenizer and the data that there are now.
fn same(
    before: &Identity,
    checkpoint: &Path,
    folder: &RunFolder,
    kept: Option<IdentityFile>,
    tokenizer: &str,
    data: TrainingData<'_>,
) -> Result<(), IdentityError> {
    let checkpoint = checkpoint.to_path_buf();
    if let Some(kept) = kept.as_ref().filter(|kept| kept.run != before.run) {
        let (found, expected) = (before.run.clone(), kept.run.clone());
        return Err(IdentityError::Run { checkpoint, found, expected });
    }
    if before.data != data.files.hash() {
        let list = kept.filter(|kept| kept.data.hash() == before.data);
        let difference = list.and_then(|list| list.data.difference(data.files)).unwrap_or_else(|| {
            format!("its list of {} files has another hash, and the former list is lost", data.files.len())
        });
        return Err(IdentityError::Data { checkpoint, difference });
    }
    if let (Some(before), Some(now)) = (&before.index, data.index.map(ShardIndex::hash)) {
        if *before != now {
            let (before, now) = (short(before), short(&now));
            let difference = format!("the index of its shards has the hash {now} instead of {before}");
            return Err(IdentityError::Data { checkpoint, difference });
        }
    }
    if before.tokenizer != tokenizer {
        let (found, expected) = (short(tokenizer), short(&before.tokenizer));
        return Err(IdentityError::Tokenizer { file: folder.tokenizer(), checkpoint, found, expected });
    }
    Ok(())
}

fn read(folder: &RunFolder) -> Result<Option<IdentityFile>, RecordError> {
    let path = folder.identity();
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|source| content(&path, source))
}

fn content(path: &Path, source: serde_json::Error) -> RecordError {
    RecordError::Content {
        path: path.to_path_buf(),
        expected: "identity that a run writes",
        advice: "Delete it: then a checkpoint that is of another run, or of other data, is told apart by its hashes alone",
        source,
    }
}

fn file_hash(path: &Path) -> Result<String, RecordError> {
    let read = || -> io::Result<Sha256> {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path)?, &mut hash)?;
        Ok(hash)
    };
    let hash =
        read().map_err(|source| RecordError::Io { action: "read", path: path.to_path_buf(), source })?;
    Ok(hash_of(hash))
}

fn new_run() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Hashes are known by their beginning.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}
