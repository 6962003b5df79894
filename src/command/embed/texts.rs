//! Texts of a file, a line each: plain, or JSON objects.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;

/// Longest line that is read, bytes; the rest of a longer one is passed over without being held.
const LONGEST: usize = 1 << 20;

/// Where a file of texts goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Byte of the file.
    pub byte: u64,
    /// Lines before it.
    pub line: u64,
    /// Of these, lines that were left out.
    pub skipped: u64,
}

/// Which fields of a JSON object are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fields {
    pub text: String,
    /// Names the row; where it is absent, the text does.
    pub key: String,
}

/// A file of texts, read as they are needed.
pub(super) struct Texts {
    path: PathBuf,
    reader: BufReader<File>,
    /// None for plain lines.
    fields: Option<Fields>,
    place: Place,
}

impl Texts {
    /// Opens a file where it goes on. Lines are JSON where its name ends in `.jsonl` or `.ndjson`.
    pub fn open(path: &Path, fields: Fields, place: Place) -> Result<Texts, Failure> {
        let named = |error: io::Error| Failure::Usage(format!("--texts {}: {error}", path.display()));
        let mut file = File::open(path).map_err(named)?;
        file.seek(SeekFrom::Start(place.byte)).map_err(named)?;
        let json = path.extension().is_some_and(|ending| ending == "jsonl" || ending == "ndjson");
        Ok(Texts { path: path.into(), reader: BufReader::new(file), fields: json.then_some(fields), place })
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// Up to `most` texts and the names of their rows; none at the end. A line that cannot be read is left out,
    /// counted and named in the log.
    pub fn next(&mut self, most: usize) -> Result<Vec<(String, String)>, Failure> {
        let mut texts = Vec::with_capacity(most);
        while texts.len() < most {
            let Some(line) = self.line().map_err(|error| {
                Failure::Other(
                    format!("{}: line {}: {error}", self.path.display(), self.place.line + 1).into(),
                )
            })?
            else {
                break;
            };
            self.place.line += 1;
            match line.and_then(|bytes| self.parse(bytes)) {
                Ok(pair) => texts.push(pair),
                Err(reason) => {
                    self.place.skipped += 1;
                    let (path, line) = (self.path.display(), self.place.line);
                    tracing::warn!(target: "flip::data", "{path}: line {line} left out: {reason}");
                }
            }
        }
        Ok(texts)
    }

    /// The next line without its end, or why it is not read; none at the end of the file.
    fn line(&mut self) -> io::Result<Option<Result<Vec<u8>, String>>> {
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            line.extend_from_slice(&part[..part.len().min((LONGEST + 1).saturating_sub(line.len()))]);
            let taken = part.len() + usize::from(end.is_some());
            length += taken as u64;
            self.reader.consume(taken);
            if end.is_some() {
                break;
            }
        }
        self.place.byte += length;
        if length == 0 {
            return Ok(None);
        }
        if line.len() > LONGEST {
            return Ok(Some(Err(format!("more than {LONGEST} bytes"))));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(Ok(line)))
    }

    /// A text and the name of its row.
    fn parse(&self, line: Vec<u8>) -> Result<(String, String), String> {
        let line = String::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"))?;
        let Some(fields) = &self.fields else { return Ok((line.clone(), line)) };
        let value: Value = serde_json::from_str(&line).map_err(|error| format!("not JSON: {error}"))?;
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
    fn objects_have_texts_and_keys() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(LONGEST));
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
