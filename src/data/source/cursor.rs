//! Positions in passes over sources.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most sources that a mix may have.
pub const MAX_MIX_SOURCES: usize = 16;

/// The position of the next sample. Three integers resume a source; a mix adds three for each of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Passes over the source that are complete.
    pub epoch: u64,
    /// Windows of shards of this epoch that are complete.
    pub window: u64,
    /// Samples of this window that are consumed, broken ones included.
    pub position: u64,
    /// Cursors of the sources of a mix.
    #[serde(default, skip_serializing_if = "MixCursors::is_empty")]
    pub parts: MixCursors,
}

impl Cursor {
    /// The first sample of an epoch.
    pub fn epoch(epoch: u64) -> Self {
        Cursor { epoch, ..Cursor::default() }
    }

    /// The further of two places in one order.
    pub fn further(self, other: Cursor) -> Cursor {
        let place = |cursor: &Cursor| (cursor.epoch, cursor.window, cursor.position);
        if place(&other) > place(&self) {
            other
        } else {
            self
        }
    }

    /// The first sample of the epoch after this one, in the sources of a mix too.
    pub fn new_epoch(self) -> Self {
        let mut parts = MixCursors::default();
        for part in 0..self.parts.used() {
            parts = parts.with(part, Cursor::epoch(self.parts.get(part).epoch + 1));
        }
        Cursor { parts, ..Cursor::epoch(self.epoch + 1) }
    }

    /// The first sample of the epoch after this one. The sources of a mix go on where they are: one of them
    /// may be in the middle of a pass of its own.
    pub fn next_epoch(self) -> Self {
        Cursor { epoch: self.epoch + 1, window: 0, position: 0, parts: self.parts }
    }
}

/// Cursors of the sources of a mix, in the order of the recipe; those that are not there are at their first
/// sample. A fixed number, so that a cursor stays a plain value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MixCursors {
    /// (epoch, window, position)
    cursors: [[u64; 3]; MAX_MIX_SOURCES],
}

impl Default for MixCursors {
    fn default() -> Self {
        MixCursors { cursors: [[0; 3]; MAX_MIX_SOURCES] }
    }
}

impl MixCursors {
    /// The cursor of a source; `part` is less than `MAX_MIX_SOURCES`.
    pub fn get(&self, part: usize) -> Cursor {
        let [epoch, window, position] = self.cursors[part];
        Cursor { epoch, window, position, parts: MixCursors::default() }
    }

    /// With the cursor of one source replaced.
    pub fn with(mut self, part: usize, cursor: Cursor) -> Self {
        self.cursors[part] = [cursor.epoch, cursor.window, cursor.position];
        self
    }

    /// True if all are at their first sample.
    pub fn is_empty(&self) -> bool {
        self.used() == 0
    }

    fn used(&self) -> usize {
        self.cursors.iter().rposition(|cursor| *cursor != [0; 3]).map_or(0, |last| last + 1)
    }
}

/// Those that have moved.
impl std::fmt::Debug for MixCursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.cursors[..self.used()]).finish()
    }
}

impl Serialize for MixCursors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.cursors[..self.used()].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MixCursors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Vec::<[u64; 3]>::deserialize(deserializer)?;
        let mut parts = MixCursors::default();
        let places = parts.cursors.get_mut(..given.len()).ok_or_else(|| {
            serde::de::Error::custom(format!("{} cursors; a mix has at most {MAX_MIX_SOURCES}", given.len()))
        })?;
        places.copy_from_slice(&given);
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_without_parts_is_three_integers() {
        let cursor = Cursor { epoch: 1, window: 2, position: 3, ..Cursor::default() };
        let text = serde_json::to_string(&cursor).unwrap();
        assert_eq!(text, r#"{"epoch":1,"window":2,"position":3}"#);
        assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), cursor);
        let parts = cursor.parts.with(1, Cursor { position: 9, ..Cursor::epoch(4) });
        let mixed = Cursor { parts, ..cursor };
        let text = serde_json::to_string(&mixed).unwrap();
        assert_eq!(text, r#"{"epoch":1,"window":2,"position":3,"parts":[[0,0,0],[4,0,9]]}"#);
        assert_eq!(serde_json::from_str::<Cursor>(&text).unwrap(), mixed);
        assert_eq!(mixed.next_epoch().parts.get(1).epoch, 4);
        let many =
            format!(r#"{{"epoch":0,"window":0,"position":0,"parts":[{}[0,0,0]]}}"#, "[0,0,0],".repeat(16));
        assert!(serde_json::from_str::<Cursor>(&many).unwrap_err().to_string().contains("at most 16"));
    }
}
