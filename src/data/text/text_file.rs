//! Text from files: class names, templates, lists, captions, JSON. One rule holds for all of it.
//!
//! Text is UTF-8. A byte-order mark in front of it is dropped. UTF-16 and UTF-32 are refused, not guessed at, and
//! bytes that are not UTF-8 are named with their line.

use std::fmt;
use std::io::{self, BufRead};
use std::path::Path;

use crate::data::DataError;

const MARK: &[u8] = b"\xef\xbb\xbf";
/// Byte-order marks of encodings that are not read. That of little-endian UTF-32 begins like that of UTF-16.
const FOREIGN: [(&[u8], &str); 3] =
    [(b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\0\0\xfe\xff", "UTF-32")];

/// Reason why bytes are not text. Shown as of a file; [`of_value`](Self::of_value) is for a value in something larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotText {
    /// They begin with the mark of another encoding.
    Encoding(&'static str),
    /// A byte that UTF-8 has not at this place of a line.
    Byte {
        /// The byte.
        byte: u8,
        /// Its line, from 1.
        line: usize,
        /// Bytes before it in the line.
        behind: usize,
    },
    /// A NUL in this line.
    Nul {
        /// Its line, from 1.
        line: usize,
    },
}

impl NotText {
    /// In few words.
    pub fn of_value(&self) -> String {
        match self {
            NotText::Encoding(name) => format!("{name}; expected UTF-8"),
            NotText::Byte { byte, behind, .. } => {
                format!("not UTF-8: the byte 0x{byte:02x} behind {behind} bytes")
            }
            NotText::Nul { .. } => "a NUL inside; is it UTF-16?".into(),
        }
    }
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotText::Encoding(name) => write!(
                f,
                "this is {name}; expected UTF-8. Save it as UTF-8, for example with \
                 `iconv -f {name} -t UTF-8 FILE > NEW`"
            ),
            NotText::Byte { byte, line, behind } => write!(
                f,
                "line {line}: expected UTF-8, got the byte 0x{byte:02x} behind {behind} bytes. Save it as UTF-8, for \
                 example with `iconv -f LATIN1 -t UTF-8 FILE > NEW` where it is Latin-1"
            ),
            NotText::Nul { line } => write!(f, "line {line}: a NUL; is it UTF-16? Save it as UTF-8"),
        }
    }
}

/// Length of the byte-order mark that the first bytes of a text are, 0 where there is none.
///
/// # Errors
/// The mark is that of an encoding that is not read.
pub fn mark(start: &[u8]) -> Result<usize, NotText> {
    match FOREIGN.iter().find(|(mark, _)| start.starts_with(mark)) {
        Some((_, name)) => Err(NotText::Encoding(name)),
        None => Ok(if start.starts_with(MARK) { MARK.len() } else { 0 }),
    }
}

/// The text that these bytes are, without a byte-order mark.
///
/// # Errors
/// They are not UTF-8 text.
pub fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    let bytes = &bytes[mark(bytes)?..];
    let line = |at: usize| bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let begin = bytes[..at].iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        NotText::Byte { byte: bytes[at], line: line(at), behind: at - begin }
    })?;
    match text.find('\0') {
        None => Ok(text),
        Some(at) => Err(NotText::Nul { line: line(at) }),
    }
}

/// The text of bytes that were read from `name`.
///
/// # Errors
/// They are not UTF-8 text.
pub fn text(bytes: &[u8], name: impl fmt::Display) -> Result<String, DataError> {
    decode(bytes).map(str::to_owned).map_err(|what| DataError::Invalid(format!("{name}: {what}")))
}

/// The text of a file.
///
/// # Errors
/// The file cannot be read, or is not UTF-8 text.
pub fn read(path: &Path) -> Result<String, DataError> {
    let bytes = std::fs::read(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    text(&bytes, path.display())
}

/// The lines of a text of any length, one in memory at a time.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    longest: u64,
    byte: u64,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    /// Begins where a text begins. Of lines of more than `longest` bytes no more is held.
    ///
    /// # Errors
    /// The input cannot be read; or, inside, it is not UTF-8.
    pub fn begin(mut input: R, longest: u64) -> io::Result<Result<Self, String>> {
        let length = match mark(input.fill_buf()?) {
            Ok(length) => length,
            Err(what) => return Ok(Err(what.to_string())),
        };
        input.consume(length);
        Ok(Ok(Lines { input, longest, byte: length as u64, line: 0 }))
    }

    /// Goes on where `input` stands, behind so many bytes and lines of the text.
    pub fn behind(input: R, longest: u64, byte: u64, line: u64) -> Self {
        Lines { input, longest, byte, line }
    }

    /// Bytes and lines so far.
    pub fn place(&self) -> (u64, u64) {
        (self.byte, self.line)
    }

    /// The next line without its end, or why it is not text; none at the end.
    ///
    /// # Errors
    /// The input cannot be read.
    #[allow(clippy::should_implement_trait)] // An iterator of results of results would help nobody.
    pub fn next(&mut self) -> io::Result<Option<Result<String, String>>> {
        let mut line = Vec::new();
        let mut length = 0;
        loop {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                available => available?,
            };
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..end.unwrap_or(available.len())];
            let room = (self.longest + 1).saturating_sub(line.len() as u64);
            line.extend_from_slice(&part[..part.len().min(room as usize)]);
            let taken = part.len() + usize::from(end.is_some());
            length += taken as u64;
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if length == 0 {
            return Ok(None);
        }
        self.byte += length;
        self.line += 1;
        if line.len() as u64 > self.longest {
            return Ok(Some(Err(format!("more than {} bytes", self.longest))));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let text = String::from_utf8(line).map_err(|error| format!("not UTF-8: {error}"));
        Ok(Some(text.and_then(|text| match text.contains('\0') {
            true => Err("a NUL; is it UTF-16?".into()),
            false => Ok(text),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_dropped_and_other_encodings_are_refused_by_name() {
        assert_eq!(decode(b"\xef\xbb\xbfa\r\nb"), Ok("a\r\nb"));
        assert_eq!(decode(b"a"), Ok("a"));
        assert_eq!(decode(b""), Ok(""));
        for (bytes, told) in [
            (&b"\xff\xfea\0\n\0"[..], "this is UTF-16; expected UTF-8"),
            (b"\xfe\xff\0a", "this is UTF-16"),
            (b"\xff\xfe\0\0a\0\0\0", "this is UTF-16"),
            (b"\0\0\xfe\xff\0\0\0a", "this is UTF-32"),
            (b"a\n\0b\0", "line 2: a NUL; is it UTF-16?"),
            (b"a\nb\ncaf\xe9\n", "line 3: expected UTF-8, got the byte 0xe9 behind 3 bytes"),
        ] {
            let message = decode(bytes).unwrap_err().to_string();
            assert!(message.starts_with(told), "{message}");
        }
    }

    #[test]
    fn a_value_is_told_in_few_words() {
        let told = |bytes: &[u8]| decode(bytes).unwrap_err().of_value();
        assert_eq!(told(b"caf\xe9"), "not UTF-8: the byte 0xe9 behind 3 bytes");
        assert_eq!(told(b"\xff\xfea\0"), "UTF-16; expected UTF-8");
        assert_eq!(told(b"a\0"), "a NUL inside; is it UTF-16?");
    }

    #[test]
    fn a_file_that_is_no_text_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        std::fs::write(&path, b"\xff\xfec\0").unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains("names.txt: this is UTF-16"), "{message}");
        assert!(matches!(read(&folder.path().join("none")), Err(DataError::Io { .. })));
    }

    #[test]
    fn lines_come_one_by_one_and_go_on_where_they_stood() {
        let bytes = b"\xef\xbb\xbfone\r\n\nbad \xff\nlonger than ten\nlast";
        let mut lines = Lines::begin(&bytes[..], 10).unwrap().unwrap();
        assert_eq!(lines.next().unwrap(), Some(Ok("one".into())));
        assert_eq!(lines.place(), (8, 1));
        assert_eq!(lines.next().unwrap(), Some(Ok(String::new())));
        let (byte, line) = lines.place();
        let mut again = Lines::behind(&bytes[byte as usize..], 10, byte, line);
        assert!(again.next().unwrap().unwrap().unwrap_err().starts_with("not UTF-8"));
        assert_eq!(again.next().unwrap(), Some(Err("more than 10 bytes".into())));
        assert_eq!(again.next().unwrap(), Some(Ok("last".into())));
        assert_eq!(again.place(), (bytes.len() as u64, 5));
        assert_eq!(again.next().unwrap(), None);
        assert!(Lines::begin(&b"\xff\xfea\0"[..], 10).unwrap().unwrap_err().contains("UTF-16"));
    }
}
