//! Texts of a file, a line each: plain, or JSON objects.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;
use crate::data::text::json;
use crate::data::text::text_file::Lines;

/// Longest line that is read, bytes; the rest of a longer one is passed over without being held.
const LONGEST: u64 = 1 << 20;

/// Place where a file of texts goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Byte of the file.
    pub byte: u64,
    /// Lines before it.
    pub line: u64,
    /// Of these, lines that were left out.
    pub skipped: u64,
}

/// Fields of a JSON object that are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fields {
    pub text: String,
    /// Names the row; where it is absent, the text does.
    pub key: String,
}

/// A file of texts, read as they are needed.
pub(super) struct Texts {
    path: PathBuf,
    lines: Lines<BufReader<File>>,
    /// None for plain lines.
    fields: Option<Fields>,
    skipped: u64,
}

impl Texts {
    /// Opens a file where it goes on. Lines are JSON where its name ends in `.jsonl` or `.ndjson`.
    pub fn open(path: &Path, fields: Fields, place: Place) -> Result<Texts, Failure> {
        let told = |what: &dyn Display| Failure::Usage(format!("--texts {}: {what}", path.display()));
        let mut file = File::open(path).map_err(|error| told(&error))?;
        let lines = if place.byte == 0 {
            Lines::begin(BufReader::new(file), LONGEST)
                .map_err(|error| told(&error))?
                .map_err(|what| told(&what))?
        } else {
            file.seek(SeekFrom::Start(place.byte)).map_err(|error| told(&error))?;
            Lines::behind(BufReader::new(file), LONGEST, place.byte, place.line)
        };
        let json = path.extension().is_some_and(|ending| ending == "jsonl" || ending == "ndjson");
        Ok(Texts { path: path.into(), lines, fields: json.then_some(fields), skipped: place.skipped })
    }

    pub fn place(&self) -> Place {
        let (byte, line) = self.lines.place();
        Place { byte, line, skipped: self.skipped }
    }

    /// Up to `most` texts and the names of their rows; none at the end. A line that cannot be read is left out,
    /// counted and named in the log.
    pub fn next(&mut self, most: usize) -> Result<Vec<(String, String)>, Failure> {
        let mut texts = Vec::with_capacity(most);
        while texts.len() < most {
            let Some(line) = self.lines.next().map_err(|error| {
                let line = self.lines.place().1 + 1;
                Failure::Other(format!("{}: line {line}: {error}", self.path.display()).into())
            })?
            else {
                break;
            };
            match line.and_then(|line| self.parse(line)) {
                Ok(pair) => texts.push(pair),
                Err(reason) => {
                    self.skipped += 1;
                    let (path, line) = (self.path.display(), self.lines.place().1);
                    tracing::warn!(target: "flip::data", "{path}: line {line} left out: {reason}");
                }
            }
        }
        Ok(texts)
    }

    /// A text and the name of its row.
    fn parse(&self, line: String) -> Result<(String, String), String> {
        let Some(fields) = &self.fields else { return Ok((line.clone(), line)) };
        let value: Value = json::parse(line.as_bytes()).map_err(|error| format!("not JSON: {error}"))?;
        if let Value::String(text) = value {
            return Ok((text.clone(), text));
        }
        let Some(text) = value[&fields.text].as_str() else {
            return Err(format!("no text in a field {:?}; --text-field names another", fields.text));
        };
        let key = match &value[&fields.key] {
            Value::String(key) => key.clone(),
            Value::Number(key) => key.to_string(),
            _ => text.to_owned(),
        };
        Ok((text.to_owned(), key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields { text: "text".into(), key: "key".into() }
    }

    #[test]
    fn plain_lines_are_rows_and_a_place_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.txt");
        std::fs::write(&path, b"one\r\n\nthr\xc3\xa9e\nbad \xff\nlast").unwrap();
        let mut texts = Texts::open(&path, fields(), Place::default()).unwrap();
        let first: Vec<String> = texts.next(2).unwrap().into_iter().map(|(text, _)| text).collect();
        assert_eq!(first, ["one", ""]);
        let mut again = Texts::open(&path, fields(), texts.place()).unwrap();
        let rest = again.next(9).unwrap();
        assert_eq!(rest, [("thrée".into(), "thrée".into()), ("last".into(), "last".into())]);
        assert_eq!(again.place(), Place { byte: 23, line: 5, skipped: 1 });
        assert!(again.next(9).unwrap().is_empty());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_text_and_utf_16_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let all = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let mut texts = match Texts::open(&path, fields(), Place::default()) {
                Err(Failure::Usage(message)) => return Err(message),
                opened => opened.unwrap(),
            };
            let pairs = texts.next(9).unwrap();
            assert_eq!(texts.place().skipped, 0);
            Ok::<_, String>(pairs.into_iter().map(|(text, _)| text).collect::<Vec<_>>())
        };
        let cats = ["a cat".to_owned(), "a cat".to_owned()].to_vec();
        assert_eq!(all("t.txt", b"\xef\xbb\xbfa cat\na cat\n"), Ok(cats.clone()));
        let objects = b"\xef\xbb\xbf{\"text\": \"a cat\", \"score\": NaN}\n{\"text\": \"a cat\"}\n";
        assert_eq!(all("t.jsonl", objects), Ok(cats));
        let message = all("u.txt", b"\xff\xfea\0 \0").unwrap_err();
        assert!(message.contains("u.txt: this is UTF-16; expected UTF-8"), "{message}");
    }

    #[test]
    fn objects_have_texts_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(LONGEST as usize));
        let lines = [
            "{\"text\": \"a\", \"key\": 7}",
            "\"b\"",
            "{\"caption\": \"c\"}",
            "{",
            &long,
            "{\"text\": \"d\"}",
        ];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut texts = Texts::open(&path, fields(), Place::default()).unwrap();
        let pairs = texts.next(9).unwrap();
        let expected = [("a", "7"), ("b", "b"), ("d", "d")].map(|(text, key)| (text.into(), key.into()));
        assert_eq!(pairs, expected);
        assert_eq!(texts.place().skipped, 3);
    }
}
