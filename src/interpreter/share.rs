//! What rank 0 reads for all: the others need not see the run folder.

use super::InterpreterError;
use crate::data::tokenizer::Tokenizer;
use crate::ranks::{from_first, Ranks};

/// The tokenizer of rank 0, to all.
pub(super) fn tokenizer(ranks: &dyn Ranks, own: Option<Tokenizer>) -> Result<Tokenizer, InterpreterError> {
    if ranks.count() == 1 {
        return own.ok_or_else(|| InterpreterError::Shared("no tokenizer".into()));
    }
    let text = own.as_ref().map(Tokenizer::to_json).transpose()?.unwrap_or_default();
    let told = from_first(ranks, text.as_bytes())?;
    Ok(own.map_or_else(|| Tokenizer::from_json(&told), Ok)?)
}
