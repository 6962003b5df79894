//! What rank 0 reads for all: the others need not see the run folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::InterpreterError;
use crate::checkpoint::Snapshot;
use crate::data::tokenizer::Tokenizer;
use crate::parameter::NamedTensor;
use crate::ranks::{from_first, Ranks};

/// A snapshot without its numbers.
#[derive(Serialize, Deserialize)]
struct Outline {
    path: PathBuf,
    name: String,
    state: serde_json::Value,
    /// Name and shape of every tensor of each part.
    parts: BTreeMap<String, Vec<(String, Vec<usize>)>>,
}

/// The snapshot that rank 0 has read, to all.
pub(super) fn snapshot(
    ranks: &dyn Ranks,
    own: Option<Snapshot>,
) -> Result<Option<Snapshot>, InterpreterError> {
    if ranks.count() == 1 {
        return Ok(own);
    }
    let outline = own.as_ref().map(|snapshot| Outline {
        path: snapshot.path.clone(),
        name: snapshot.name.to_string(),
        state: snapshot.state.clone(),
        parts: snapshot.parts.iter().map(|(part, tensors)| (part.clone(), shapes(tensors))).collect(),
    });
    let told = serde_json::to_vec(&outline).map_err(|error| InterpreterError::Shared(error.to_string()))?;
    let told = from_first(ranks, &told)?;
    let outline: Option<Outline> =
        serde_json::from_slice(&told).map_err(|error| InterpreterError::Shared(error.to_string()))?;
    let Some(Outline { path, name, state, parts }) = outline else { return Ok(None) };
    let name = name.parse().map_err(|()| InterpreterError::Shared(format!("a checkpoint named {name}")))?;
    let mut snapshot = own.unwrap_or(Snapshot { path, name, state, parts: BTreeMap::new() });
    for (part, tensors) in parts {
        let empty = |(name, shape): (String, Vec<usize>)| {
            let data = vec![0.0; shape.iter().product()];
            NamedTensor { name, shape, data }
        };
        let there = snapshot.parts.entry(part).or_insert_with(|| tensors.into_iter().map(empty).collect());
        for tensor in there {
            ranks.broadcast(0, &mut tensor.data)?;
        }
    }
    Ok(Some(snapshot))
}

fn shapes(tensors: &[NamedTensor]) -> Vec<(String, Vec<usize>)> {
    tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect()
}

/// The tokenizer of rank 0, to all.
pub(super) fn tokenizer(ranks: &dyn Ranks, own: Option<Tokenizer>) -> Result<Tokenizer, InterpreterError> {
    if ranks.count() == 1 {
        return own.ok_or_else(|| InterpreterError::Shared("no tokenizer".into()));
    }
    let text = own.as_ref().map(Tokenizer::to_json).transpose()?.unwrap_or_default();
    let told = from_first(ranks, text.as_bytes())?;
    Ok(own.map_or_else(|| Tokenizer::from_json(&told), Ok)?)
}
