//! Captions alone, without decoding their pictures: for vocabularies and token frequencies.

use super::source::{Order, Source};
use super::{Cursor, DataError};

/// The first captions of a source in stored order, at most `most`, from one pass; broken samples are
/// passed over.
pub fn first_captions(source: &dyn Source, most: usize) -> Result<Vec<String>, DataError> {
    let mut captions = Vec::new();
    let mut cursor = Cursor::default();
    while captions.len() < most {
        let Some(ticket) = source.ticket(cursor, Order::Stored)? else { break };
        if let Ok(raw) = source.load(&ticket) {
            captions.extend(raw.captions);
        }
        cursor = ticket.after;
    }
    captions.truncate(most);
    Ok(captions)
}
