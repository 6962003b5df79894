//! JSON as Python writes it: RFC 8259, and `NaN`, `Infinity` and `-Infinity` for numbers that are none.
//!
//! `serde_json` reads the first only, and readers of JSON5 would let through much that no writer of metadata means.

use serde_json::Value;

use crate::data::text::text_file;

/// The words for numbers that are not finite; a longer one before what it ends in.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads a value. A number that is not finite becomes its word as a string: neither absent nor a number.
///
/// # Errors
/// It is not JSON in UTF-8; the message says why and where.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = text_file::decode(bytes).map_err(|what| what.of_value())?;
    serde_json::from_str(text).or_else(|error| match in_quotes(text) {
        Some(quoted) => serde_json::from_str(&quoted).map_err(|_| error.to_string()),
        None => Err(error.to_string()),
    })
}

/// A number as a value, as [`parse`] gives it.
pub fn number(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

/// A whole number: one that is written as a float too, as Pandas does where some are missing.
pub fn whole(value: &Value) -> Option<i64> {
    let float = || value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
    value.as_i64().or_else(|| float().map(|float| float as i64))
}

/// The text with the words outside of strings put into quotes; none where there is no such word.
fn in_quotes(text: &str) -> Option<String> {
    let mut quoted = String::with_capacity(text.len() + 8);
    let (mut rest, mut found) = (text, false);
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().find(|word| rest.starts_with(**word));
        let length = match (first, word) {
            ('"', _) => string_length(rest),
            (_, Some(word)) => {
                found = true;
                quoted.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            _ => first.len_utf8(),
        };
        quoted.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    found.then_some(quoted)
}

/// Bytes of the string that `text` begins with, its quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn python_s_numbers_that_are_not_finite_leave_the_other_fields_alone() {
        let text =
            r#"{"a": 0.31, "b": NaN, "c": [-Infinity, Infinity], "d": "NaN, \"Infinity\" \\", "é": 1}"#;
        let expected = json!({
            "a": 0.31, "b": "NaN", "c": ["-Infinity", "Infinity"], "d": "NaN, \"Infinity\" \\", "é": 1
        });
        assert_eq!(parse(text.as_bytes()), Ok(expected));
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": NaN}"), Ok(json!({"a": "NaN"})));
        assert_eq!(parse(b"NaN"), Ok(json!("NaN")));
        assert_eq!(number(f64::NAN), json!("NaN"));
        assert_eq!((number(f64::NEG_INFINITY), number(0.5)), (json!("-Infinity"), json!(0.5)));
        assert_eq!(
            [json!(3), json!(3.0), json!(3.5), json!("3")].each_ref().map(whole),
            [Some(3), Some(3), None, None]
        );
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_stops_being_it() {
        for (bytes, told) in [
            (&b"{\"a\": nan}"[..], "line 1 column 8"),
            (b"{\"a\": NaNs}", "line 1 column 7"),
            (b"{\"NaN\": 1", "EOF while parsing"),
            (b"{'a': NaN}", "line 1 column 2"),
            (b"\"open", "EOF while parsing"),
            (b"", "EOF while parsing"),
            (b"\xff\xfe{\0}\0", "UTF-16; expected UTF-8"),
            (b"{\"a\": \"\xe9\"}", "not UTF-8: the byte 0xe9"),
        ] {
            let message = parse(bytes).unwrap_err();
            assert!(message.contains(told), "{message}");
        }
        let deep = "[".repeat(100_000) + "NaN";
        assert!(parse(deep.as_bytes()).unwrap_err().contains("recursion limit"));
    }
}
