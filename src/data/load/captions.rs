//! Captions alone, without decoding their images: for vocabularies and token frequencies.

use std::sync::Arc;

use crate::data::load::Skipped;
use crate::data::source::{LoadError, Order, Source};
use crate::data::storage::{patiently, Patience, Pulse};
use crate::data::{Cursor, DataError};

/// The first captions of a source in stored order, at most `most`, from one pass; broken samples are
/// passed over.
///
/// # Errors
/// The source cannot be read, or has not one caption; the error says why.
pub fn first_captions(source: &dyn Source, most: usize) -> Result<Vec<String>, DataError> {
    read(source, most, &Pulse::default())
}

/// The same from a source that may never answer.
///
/// # Errors
/// The source cannot be read, has not one caption, or makes no progress for too long.
pub fn first_captions_within(
    patience: Patience,
    source: &Arc<dyn Source>,
    most: usize,
) -> Result<Vec<String>, DataError> {
    let pulse = source.pulse().unwrap_or_default();
    let (own, beating) = (source.clone(), pulse.clone());
    let read = move || read(own.as_ref(), most, &beating);
    patiently(patience, &source.name(), "reading captions", Some(pulse), read)?
}

fn read(source: &dyn Source, most: usize, pulse: &Pulse) -> Result<Vec<String>, DataError> {
    let (mut captions, mut skipped) = (Vec::new(), Skipped::default());
    let mut cursor = Cursor::default();
    while captions.len() < most {
        let Some(ticket) = source.ticket(cursor, Order::Stored)? else { break };
        match source.load(&ticket) {
            Ok(raw) => captions.extend(raw.captions),
            Err(LoadError::Skip(skip)) => skipped.add(skip),
            Err(LoadError::Failed(error)) => return Err(error),
        }
        pulse.beat();
        cursor = ticket.after;
    }
    if captions.is_empty() && most > 0 {
        return Err(DataError::NothingUsable { source_name: source.name(), skipped: skipped.to_string() });
    }
    captions.truncate(most);
    Ok(captions)
}
