//! Places in a text as editors count them: lines from 0, and in a line bytes or UTF-16 units.

use std::ops::Range;

use serde_json::{json, Value};

/// Units of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    /// Abilities of every editor.
    Utf16,
}

impl Encoding {
    /// Bytes where the editor offers them.
    pub fn of(offered: &Value) -> Self {
        let is_utf8 = |name: &Value| name == "utf-8";
        match offered.as_array().is_some_and(|names| names.iter().any(is_utf8)) {
            true => Encoding::Utf8,
            false => Encoding::Utf16,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Encoding::Utf8 => "utf-8",
            Encoding::Utf16 => "utf-16",
        }
    }

    /// The byte of a position; the end of the line, or of the text, where there is none such.
    pub fn byte(self, text: &str, position: &Value) -> Option<usize> {
        let (line, unit) = (position["line"].as_u64()? as usize, position["character"].as_u64()? as usize);
        let mut lines = text.split_inclusive('\n');
        let start: usize = lines.by_ref().take(line).map(str::len).sum();
        let line = lines.next().unwrap_or_default().trim_end_matches(['\n', '\r']);
        let mut units = 0;
        let before = line.chars().take_while(|c| {
            units += self.units(*c);
            units <= unit
        });
        Some(start + before.map(char::len_utf8).sum::<usize>())
    }

    pub fn range(self, text: &str, span: &Range<usize>) -> Value {
        json!({ "start": self.position(text, span.start), "end": self.position(text, span.end) })
    }

    fn position(self, text: &str, byte: usize) -> Value {
        let before = &text[..byte.min(text.len())];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let units: usize = before[start..].chars().map(|c| self.units(c)).sum();
        json!({ "line": before.matches('\n').count(), "character": units })
    }

    fn units(self, c: char) -> usize {
        match self {
            Encoding::Utf8 => c.len_utf8(),
            Encoding::Utf16 => c.len_utf16(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_bytes_are_each_others_inverse_in_both_encodings() {
        let text = "a\r\n\u{1f600}ö: x\n";
        for encoding in [Encoding::Utf8, Encoding::Utf16] {
            for (byte, c) in text.char_indices().filter(|(_, c)| *c != '\n' && *c != '\r') {
                assert_eq!(
                    encoding.byte(text, &encoding.position(text, byte)),
                    Some(byte),
                    "{encoding:?} {c}"
                );
            }
        }
        let at = |line: u64, character: u64| {
            Encoding::Utf16.byte(text, &json!({ "line": line, "character": character }))
        };
        assert_eq!((at(1, 2), at(1, 3)), (Some(7), Some(9)));
        // In the middle of a pair, behind a line, behind the text.
        assert_eq!((at(1, 1), at(0, 99), at(9, 9)), (Some(3), Some(1), Some(text.len())));
        assert_eq!(Encoding::of(&json!(["utf-32", "utf-8"])), Encoding::Utf8);
        assert_eq!(Encoding::of(&Value::Null), Encoding::Utf16);
    }
}
