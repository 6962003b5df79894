//! Lanes of the training data: how many there are, which of them a rank has, and where each stands.
//!
//! Their number belongs to what a run computes, like the parts of a batch: it is that of the recipe, else that of the
//! checkpoint, else a lane a part. Whichever ranks walk them, the lanes give the same samples.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::data::source::Lane;
use crate::data::Cursor;

/// Places of all lanes, as a checkpoint has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneCursors {
    /// Parts that a batch is computed in.
    pub parts: usize,
    /// Neighbours that stand at the same place, and how many they are.
    lanes: Vec<(usize, Cursor)>,
}

impl LaneCursors {
    /// The places of lanes, in their order, of batches in so many parts.
    pub fn new(parts: usize, cursors: &[Cursor]) -> LaneCursors {
        let mut lanes: Vec<(usize, Cursor)> = Vec::new();
        for &cursor in cursors {
            match lanes.last_mut() {
                Some((count, last)) if *last == cursor => *count += 1,
                _ => lanes.push((1, cursor)),
            }
        }
        LaneCursors { parts, lanes }
    }

    /// Number of lanes.
    pub fn count(&self) -> usize {
        self.lanes.iter().map(|(count, _)| count).sum()
    }

    /// The place of each lane.
    pub fn cursors(&self) -> Vec<Cursor> {
        self.lanes.iter().flat_map(|&(count, cursor)| std::iter::repeat_n(cursor, count)).collect()
    }

    /// The furthest place.
    pub fn furthest(&self) -> Cursor {
        self.lanes.iter().fold(Cursor::default(), |furthest, &(_, cursor)| furthest.further(cursor))
    }
}

/// Number of lanes of a stage: those of the recipe, else those so far, else one a part.
///
/// # Errors
/// Lanes of the recipe that cannot be dealt to the parts, or do not divide the batch.
pub fn count(
    given: Option<usize>,
    so_far: Option<&LaneCursors>,
    parts: usize,
    batch: usize,
) -> Result<usize, String> {
    let fits = |lanes: &usize| lanes.is_multiple_of(parts) && batch.is_multiple_of(*lanes);
    match given {
        Some(lanes) if fits(&lanes) => Ok(lanes),
        Some(lanes) => Err(format!(
            "data.lanes: {lanes} lanes cannot be dealt to {parts} parts of a batch of {batch}; expected a multiple of the \
             parts that divides the batch"
        )),
        None => Ok(so_far.map(LaneCursors::count).filter(fits).unwrap_or(parts)),
    }
}

/// The places where so many lanes go on. Where there were as many, each goes on exactly. A source whose lanes take turns at
/// one order goes on from the furthest of them; any other begins its next epoch, with a warning.
pub fn places(lanes: usize, so_far: Option<&LaneCursors>, turns: bool) -> Vec<Cursor> {
    let Some(so_far) = so_far else { return vec![Cursor::default(); lanes] };
    if so_far.count() == lanes {
        return so_far.cursors();
    }
    let furthest = so_far.furthest();
    if turns {
        return vec![furthest; lanes];
    }
    let begun = so_far.cursors().iter().any(|cursor| *cursor != Cursor::epoch(furthest.epoch));
    if begun {
        tracing::warn!(
            target: "flip::data",
            "the training data was walked in {} lanes, and goes on in {lanes}: what is left of this epoch is left out. Set \
             data.lanes or ranks.parts to keep their number whatever the number of ranks",
            so_far.count()
        );
    }
    let next = if begun { furthest.new_epoch() } else { furthest };
    vec![next; lanes]
}

/// The lanes of a part of a batch, by their number.
pub fn of_part(part: usize, parts: usize, lanes: usize) -> Range<usize> {
    part * lanes / parts..(part + 1) * lanes / parts
}

/// Lanes of these numbers, each with its place.
pub fn dealt(own: Range<usize>, of: usize, cursors: &[Cursor]) -> Vec<(Lane, Cursor)> {
    own.map(|number| (Lane { number: number as u32, of: of as u32 }, cursors[number])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u64) -> Cursor {
        Cursor { position, ..Cursor::epoch(1) }
    }

    #[test]
    fn equal_places_are_folded_and_found_again() {
        let cursors = [at(8), at(8), at(12), at(8)];
        let lanes = LaneCursors::new(2, &cursors);
        assert_eq!((lanes.count(), lanes.cursors(), lanes.furthest()), (4, cursors.to_vec(), at(12)));
        let text = serde_json::to_string(&LaneCursors::new(4, &[at(8); 512])).unwrap();
        assert_eq!(text, r#"{"parts":4,"lanes":[[512,{"epoch":1,"window":0,"position":8}]]}"#);
        assert_eq!(serde_json::from_str::<LaneCursors>(&text).unwrap().count(), 512);
    }

    #[test]
    fn the_number_of_lanes_stays_where_it_can() {
        let four = LaneCursors::new(4, &[at(8); 4]);
        assert_eq!(count(None, None, 2, 24), Ok(2));
        assert_eq!(count(None, Some(&four), 2, 24), Ok(4));
        assert_eq!(count(None, Some(&four), 8, 24), Ok(8));
        assert_eq!(count(Some(8), Some(&four), 2, 24), Ok(8));
        assert!(count(Some(6), None, 4, 24).unwrap_err().contains("6 lanes cannot be dealt to 4 parts"));
        let dealt: Vec<usize> = (0..2).flat_map(|part| of_part(part, 2, 4)).collect();
        assert_eq!(dealt, [0, 1, 2, 3]);
    }

    #[test]
    fn another_number_of_lanes_goes_on_where_nothing_is_seen_twice() {
        let two = LaneCursors::new(2, &[at(8), at(12)]);
        assert_eq!(places(2, Some(&two), false), [at(8), at(12)]);
        assert_eq!(places(3, Some(&two), true), [at(12); 3]);
        assert_eq!(places(3, Some(&two), false), [Cursor::epoch(2); 3]);
        let begins = LaneCursors::new(2, &[Cursor::epoch(1); 2]);
        assert_eq!(places(3, Some(&begins), false), [Cursor::epoch(1); 3]);
        assert_eq!(places(2, None, false), [Cursor::default(); 2]);
    }
}
