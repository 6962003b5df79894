//! What a run is of: its training data, its tokenizer, and the run itself. Every checkpoint says it, and a run goes on from
//! those checkpoints alone that say the same.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::source::FileList;
use crate::ranks::hash_of;
use crate::record::RunFolder;

use super::resumed::Resumed;
use super::StageError;

/// What a checkpoint says of its run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Drawn when the run began; no other run has it.
    pub run: String,
    /// Hash of the list of files of the training data.
    pub data: String,
    /// Hash of `tokenizer.json`.
    pub tokenizer: String,
}

/// `identity.json`: the same, and the list itself, from which a difference can be told.
#[derive(Serialize, Deserialize)]
struct Written {
    run: String,
    tokenizer: String,
    data: FileList,
}

/// A checkpoint that a run cannot go on from.
#[derive(Debug, thiserror::Error)]
pub enum NotTheSame {
    #[error(
        "{checkpoint} is of another run ({found}) than this folder ({expected}): was it copied here? Move it away, or \
         start a run of its own from it with init: Checkpoint({checkpoint:?})"
    )]
    Run { checkpoint: PathBuf, found: String, expected: String },
    #[error(
        "data.train: not the data that the run in this folder was trained on: {difference}. The order of the samples \
         would be another one. Put the files back, or start another run from these weights with --out and init: \
         Checkpoint({checkpoint:?})"
    )]
    Data { checkpoint: PathBuf, difference: String },
    #[error(
        "{file} is not the tokenizer that {checkpoint} was trained with (its hash is {found}, expected {expected}): its \
         ids mean other tokens. Put the former file back"
    )]
    Tokenizer { file: PathBuf, checkpoint: PathBuf, found: String, expected: String },
    #[error("{checkpoint} is of stage {stage}, step {step}: {problem}")]
    Place { checkpoint: PathBuf, stage: usize, step: u64, problem: String },
}

impl Identity {
    /// What the run in the folder is of, whose training data and tokenizer are there; written down there. A checkpoint
    /// that it goes on from has to say the same; one of an earlier version says nothing.
    ///
    /// # Errors
    /// It says something else, or a file cannot be read or written.
    pub fn settle(
        folder: &RunFolder,
        data: &FileList,
        resumed: Option<&Resumed>,
    ) -> Result<Identity, StageError> {
        let tokenizer = file_hash(&folder.tokenizer())?;
        let kept = read(folder)?;
        let before = resumed.and_then(|resumed| Some((resumed, resumed.state.identity.as_ref()?)));
        let kept_run = kept.as_ref().map(|kept| kept.run.clone());
        if let Some((Resumed { path, .. }, before)) = before {
            let checkpoint = path.clone();
            if let Some(run) = kept_run.as_ref().filter(|run| **run != before.run) {
                let (found, expected) = (before.run.clone(), run.clone());
                return Err(NotTheSame::Run { checkpoint, found, expected }.into());
            }
            if before.data != data.hash() {
                let list = kept.filter(|kept| kept.data.hash() == before.data);
                let difference = list.and_then(|list| list.data.difference(data)).unwrap_or_else(|| {
                    format!("its list of {} files has another hash, and the former list is lost", data.len())
                });
                return Err(NotTheSame::Data { checkpoint, difference }.into());
            }
            if before.tokenizer != tokenizer {
                let (found, expected) = (short(&tokenizer), short(&before.tokenizer));
                let file = folder.tokenizer();
                return Err(NotTheSame::Tokenizer { file, checkpoint, found, expected }.into());
            }
        } else if let Some(resumed) = resumed {
            let checkpoint = resumed.path.display();
            tracing::info!(
                target: "flip::checkpoint", %checkpoint,
                "an earlier version wrote it, so it does not say which data it was trained on: not compared"
            );
        }
        let run = before.map(|(_, before)| before.run.clone()).or(kept_run).unwrap_or_else(new_run);
        let written = Written { run: run.clone(), tokenizer: tokenizer.clone(), data: data.clone() };
        let path = folder.identity();
        let mut text = serde_json::to_vec(&written)
            .map_err(|source| StageError::Identity { path: path.clone(), source })?;
        text.push(b'\n');
        folder.replace(&path, &text)?;
        Ok(Identity { run, data: data.hash(), tokenizer })
    }
}

/// A checkpoint has to be of a place that the recipe has.
///
/// # Errors
/// It is of none.
pub fn is_a_place_of(resumed: &Resumed, stages: usize) -> Result<(), NotTheSame> {
    let position = &resumed.state.position;
    let refused = |problem: String| {
        let checkpoint = resumed.path.clone();
        Err(NotTheSame::Place { checkpoint, stage: position.stage, step: position.step, problem })
    };
    if resumed.name.is_some_and(|name| name != position.name()) {
        return refused("its folder has the name of another place; it was edited or renamed".into());
    }
    if position.stage >= stages {
        return refused(format!("the recipe has only {stages} stages, counted from 0"));
    }
    Ok(())
}

fn read(folder: &RunFolder) -> Result<Option<Written>, StageError> {
    let path = folder.identity();
    let text = match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| StageError::Io { path: path.clone(), source })?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| StageError::Identity { path, source })
}

fn file_hash(path: &Path) -> Result<String, StageError> {
    let io = |source| StageError::Io { path: path.to_path_buf(), source };
    let mut hash = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path).map_err(io)?, &mut hash).map_err(io)?;
    Ok(hash_of(hash))
}

fn new_run() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Hashes are known by their beginning.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}
