//! Captions alone, without decoding their images: for vocabularies and token frequencies.

use std::sync::Arc;

use crate::data::load::Skipped;
use crate::data::source::{Order, Source};
use crate::data::storage::{with_stall_timeout, Progress, StallTimeout};
use crate::data::LoadError;
use crate::data::{Cursor, DataError};

/// The first captions of a source in stored order, at most `most`, from one pass; broken samples are
/// passed over.
///
/// # Errors
/// The source cannot be read, or has not one caption; the error says why.
pub fn first_captions(source: &dyn Source, most: usize) -> Result<Vec<String>, DataError> {
    read(source, most, &Progress::default())
}

/// The same from a source that may never answer.
///
/// # Errors
/// The source cannot be read, has not one caption, or makes no progress for too long.
pub fn first_captions_within(
    timeout: StallTimeout,
    source: &Arc<dyn Source>,
    most: usize,
) -> Result<Vec<String>, DataError> {
    let progress = source.progress().unwrap_or_default();
    let (own, steps) = (source.clone(), progress.clone());
    let read = move || read(own.as_ref(), most, &steps);
    with_stall_timeout(timeout, &source.name(), "reading captions", Some(progress), read)?
}

fn read(source: &dyn Source, most: usize, progress: &Progress) -> Result<Vec<String>, DataError> {
    let (mut captions, mut skipped) = (Vec::new(), Skipped::default());
    let mut cursor = Cursor::default();
    while captions.len() < most {
        let Some(ticket) = source.ticket(cursor, Order::Stored)? else { break };
        match source.load(&ticket) {
            Ok(raw) => captions.extend(raw.captions),
            Err(LoadError::Skip(skip)) => skipped.add(skip),
            Err(LoadError::Failed(error)) => return Err(error),
        }
        progress.advance();
        cursor = ticket.after;
    }
    if captions.is_empty() && most > 0 {
        return Err(DataError::NothingUsable { source_name: source.name(), skipped: skipped.to_string() });
    }
    captions.truncate(most);
    Ok(captions)
}
