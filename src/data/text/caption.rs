//! Captions of samples: where they are, who needs them, and what is one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::text::text_file;
use crate::data::Defect;

/// Longest caption that is read, bytes.
pub(crate) const LONGEST_CAPTION: u64 = 64 << 10;
/// Fields of a json that a message names where one is missing.
const SHOWN_FIELDS: usize = 6;

/// The member of a shard that holds the captions of a sample.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum CaptionMember {
    /// In the `txt` member, one.
    #[default]
    Txt,
    /// In this field of the `json` member: a string, a list of strings, or a list of lists that each end in one, as
    /// MetaCLIP's `texts`. Training draws one of several.
    Json(String),
}

/// Need for captions: embedding images, for example, needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptionUse {
    /// A sample without one is broken.
    Needed,
    /// A sample without one has none.
    Optional,
    /// None is read.
    Unused,
}

/// A caption as stored, without byte-order mark and final line break.
///
/// # Errors
/// It is not UTF-8, or empty.
pub fn read(bytes: &[u8]) -> Result<String, Defect> {
    let text = text_file::decode(bytes).map_err(|what| Defect::new("caption_encoding", what.of_value()))?;
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(Defect::new("caption_empty", "nothing but white space"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).replace("\r\n", "\n"))
}

/// The captions in a field of a json; none where there is no text.
pub(crate) fn in_field(field: &str, meta: &Option<Value>) -> Option<Result<Vec<String>, Defect>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => list.last()?.as_str().map(str::to_owned),
        _ => None,
    };
    let texts = match meta.as_ref()?.get(field)? {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().filter_map(text).collect(),
        _ => return None,
    };
    let too_long = texts.iter().any(|text| text.len() as u64 > LONGEST_CAPTION);
    let captions = texts.iter().map(|text| match too_long {
        true => Err(Defect::new("caption_too_long", format!("over {LONGEST_CAPTION} bytes"))),
        false => read(text.as_bytes()),
    });
    (!texts.is_empty()).then(|| captions.collect())
}

/// The defect of a sample whose json has no text in a field, with the fields that it has.
pub(crate) fn no_field(field: &str, meta: Option<&Value>) -> Defect {
    let fields = meta.and_then(Value::as_object).map(|object| {
        let some: Vec<String> = object.keys().take(SHOWN_FIELDS).map(|name| format!("{name:.40?}")).collect();
        format!(
            "; its fields are {}{}",
            some.join(", "),
            if object.len() > SHOWN_FIELDS { ", ..." } else { "" }
        )
    });
    let fields = fields.unwrap_or_else(|| "; it is no object".into());
    Defect::new("caption_missing", format!("no text in the field {field:?} of its json{fields}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_text_or_say_why_not() {
        let reason = |bytes: &[u8]| read(bytes).map_err(|defect| defect.reason);
        assert_eq!(reason(b"\xef\xbb\xbfa cat\r\n"), Ok("a cat".into()));
        assert_eq!(reason(b" two\r\nlines \n"), Ok(" two\nlines ".into()));
        assert_eq!(reason(b"\xff\xfea\0"), Err("caption_encoding"));
        assert_eq!(reason(b"a\0b"), Err("caption_encoding"));
        assert_eq!(reason(b" \r\n\t"), Err("caption_empty"));
        assert_eq!(reason(b"\x01\x02"), Err("caption_empty"));
        assert_eq!(reason(b""), Err("caption_empty"));
    }
}
