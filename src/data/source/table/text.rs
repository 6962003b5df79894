//! Tables as text: CSV, TSV, JSON Lines.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::block::{Access, Place, Row, BLOCK_BYTES, MOST_ROWS};
use super::column::Columns;
use super::config::Dialect;
use crate::data::storage::disk::OpenFile;
use crate::data::storage::Progress;
use crate::data::text::text_file::Lines;
use crate::data::text::{json, text_file};
use crate::data::Defect;

/// Longest row that is read, bytes; more is a quote that was never closed, or no text at all.
const LONGEST_ROW: u64 = 256 << 20;

/// A fault of a table, to be put behind its name: `:7: a row ...`.
pub(super) type Fault = String;

fn reader<R: Read>(input: R, dialect: Dialect) -> Reader<R> {
    ReaderBuilder::new()
        .delimiter(dialect.delimiter)
        .quoting(dialect.quoted)
        .has_headers(false)
        // A row with too many columns is a broken sample, not the end of the table.
        .flexible(true)
        .buffer_capacity(1 << 18)
        .from_reader(input)
}

/// Columns and blocks of a CSV or TSV file.
pub(super) struct Counted {
    pub names: Vec<String>,
    pub places: Vec<Place>,
    /// Rows that a quote holds together which may have been meant for a character.
    pub fused: Fused,
}

/// Names of the columns of a CSV or TSV file.
pub(super) fn header(file: &OpenFile, dialect: Dialect) -> Result<Vec<String>, Fault> {
    refuse_other_encodings(file)?;
    let mut reader = reader(Section::of(file).map_err(|error| format!(": {error}"))?, dialect);
    let mut record = ByteRecord::new();
    reader.read_byte_record(&mut record).map_err(|error| format!(":1: {error}"))?;
    Ok(names(&record, dialect))
}

fn names(first: &ByteRecord, dialect: Dialect) -> Vec<String> {
    let name = |(i, field): (usize, &[u8])| match dialect.header {
        true => String::from_utf8_lossy(field.strip_prefix(b"\xef\xbb\xbf").unwrap_or(field)).into_owned(),
        false => i.to_string(),
    };
    first.iter().enumerate().map(name).collect()
}

/// Counts a CSV or TSV file.
pub(super) fn count_csv(file: &OpenFile, dialect: Dialect, progress: &Progress) -> Result<Counted, Fault> {
    let whole = Section::of(file).map_err(|error| format!(": {error}"))?;
    refuse_other_encodings(file)?;
    let mut reader = reader(whole, dialect);
    let mut record = ByteRecord::new();
    let mut names = Vec::new();
    let mut blocks = Blocks::default();
    let mut fused = Fused::default();
    // Where lines end in \r\n the reader stops between the two, a line too early.
    let mut between = 0;
    loop {
        let line = reader.position().line();
        let more = reader.read_byte_record(&mut record).map_err(|error| format!(":{line}: {error}"))?;
        if !more {
            break;
        }
        // The reader passes over empty lines before it comes to the row.
        let (start, line) = record.position().map_or((0, line), |place| (place.byte(), place.line()));
        let end = reader.position().byte();
        if end - start > LONGEST_ROW {
            let rows = format!(":{line}: a row of {} bytes; is a quote never closed?", end - start);
            return Err(rows);
        }
        if names.is_empty() {
            let mut next = [0];
            between = u64::from(file.read_at(&mut next, end).is_ok_and(|bytes| bytes == 1 && next == *b"\n"));
            names = self::names(&record, dialect);
            if dialect.header {
                continue;
            }
        }
        // The first row of a file without a header begins where the file does.
        let line = if start == 0 { line } else { line + between };
        fused.look(&record, line, names.len(), dialect);
        blocks.add(start, end, line, progress);
    }
    Ok(Counted { names, places: blocks.done, fused })
}

fn refuse_other_encodings(file: &OpenFile) -> Result<(), Fault> {
    let mut start = [0; 4];
    let bytes = file.read_at(&mut start, 0).map_err(|error| format!(": {error}"))?;
    text_file::mark(&start[..bytes]).map(drop).map_err(|what| format!(": {what}"))
}

/// Rows of several lines that look as if a quote at the beginning of a value was meant for a character: a line
/// inside of the value would be a row of its own, or there are many lines.
#[derive(Debug, Default)]
pub(super) struct Fused {
    pub rows: u64,
    /// Line of the first of them.
    pub first: u64,
}

/// A value of more lines than this is an unusual caption.
const MANY_LINES: usize = 10;

impl Fused {
    fn look(&mut self, row: &ByteRecord, line: u64, columns: usize, dialect: Dialect) {
        if !dialect.quoted || columns < 2 || !row.as_slice().contains(&b'\n') {
            return;
        }
        let delimiters = |line: &[u8]| line.iter().filter(|&&byte| byte == dialect.delimiter).count();
        let suspect = |(column, value): (usize, &[u8])| {
            let lines = value.split(|&byte| byte == b'\n');
            let many = lines.clone().count() > MANY_LINES;
            let mut rows = lines.enumerate().map(|(at, line)| match at {
                // What stands before the value belongs to its first line; that of a last column ends the row anyway.
                0 => column + 1 < columns && column + 1 + delimiters(line) == columns,
                _ => delimiters(line) + 1 == columns,
            });
            many || rows.any(|row| row)
        };
        if row.iter().enumerate().filter(|(_, value)| value.contains(&b'\n')).any(suspect) {
            self.first = if self.rows == 0 { line } else { self.first };
            self.rows += 1;
        }
    }
}

/// The rows of a block of a CSV or TSV file.
pub(super) fn read_csv(
    file: &Arc<OpenFile>,
    place: &Place,
    dialect: Dialect,
    names: &[String],
    columns: &Columns,
) -> Result<Vec<Row>, Fault> {
    let positions = columns.positions(names)?;
    let section = Section::at(file, place).map_err(|error| format!(": {error}"))?;
    let mut reader = reader(section, dialect);
    let mut record = ByteRecord::new();
    let mut rows = Vec::with_capacity(place.rows as usize);
    while reader.read_byte_record(&mut record).map_err(|error| format!(": {error}"))? {
        let number = place.first + record.position().map_or(0, |at| at.line() - 1);
        let content = if record.len() == names.len() {
            columns.content_of_text(&positions, |position| record.get(position))
        } else {
            Err(Defect::new("row_columns", wrong_columns(names.len(), record.len(), dialect)))
        };
        rows.push(Row { number, content });
    }
    Ok(rows)
}

fn wrong_columns(expected: usize, got: usize, dialect: Dialect) -> String {
    let hint = match (got > expected, dialect.quoted, dialect.delimiter) {
        (true, true, b',') => "; a value with a comma in it has to stand in quotes",
        _ => "",
    };
    format!("expected {expected} columns, got {got}{hint}")
}

/// The blocks of a JSON Lines file.
pub(super) fn count_lines(file: &OpenFile, progress: &Progress) -> Result<Vec<Place>, Fault> {
    let described = |error: io::Error| format!(": {error}");
    let whole = BufReader::with_capacity(1 << 18, Section::of(file).map_err(described)?);
    let mut lines =
        Lines::begin(whole, LONGEST_ROW).map_err(described)?.map_err(|what| format!(": {what}"))?;
    let mut blocks = Blocks::default();
    loop {
        let (start, before) = lines.place();
        let number = before + 1;
        match lines.next().map_err(|error| format!(":{number}: {error}"))? {
            None => return Ok(blocks.done),
            Some(Ok(blank)) if blank.trim().is_empty() => {}
            Some(_) => blocks.add(start, lines.place().0, number, progress),
        }
    }
}

/// The rows of a block of a JSON Lines file.
pub(super) fn read_lines(file: &Arc<OpenFile>, place: &Place, columns: &Columns) -> Result<Vec<Row>, Fault> {
    let section = Section::at(file, place).map_err(|error| format!(": {error}"))?;
    let start = section.at;
    let input = BufReader::with_capacity(1 << 18, section);
    let mut lines = Lines::behind(input, LONGEST_ROW, start, place.first - 1);
    let mut rows = Vec::with_capacity(place.rows as usize);
    loop {
        let number = lines.place().1 + 1;
        let content = match lines.next().map_err(|error| format!(":{number}: {error}"))? {
            None => return Ok(rows),
            Some(Ok(blank)) if blank.trim().is_empty() => continue,
            Some(line) => line.map_err(|what| Defect::new("row_json", what)),
        };
        rows.push(Row { number, content: content.and_then(|line| read_line(&line, columns)) });
    }
}

fn read_line(line: &str, columns: &Columns) -> Result<super::block::RowContent, Defect> {
    match json::parse(line.as_bytes()) {
        Ok(Value::Object(object)) => columns.content_of_json(object),
        Ok(_) => Err(Defect::new("row_json", "expected an object `{...}`")),
        Err(what) => Err(Defect::new("row_json", what.replace("line 1 column", "column"))),
    }
}

/// Cuts rows into blocks.
#[derive(Default)]
struct Blocks {
    done: Vec<Place>,
}

impl Blocks {
    fn add(&mut self, row_start: u64, row_end: u64, line: u64, progress: &Progress) {
        if let Some(Place { rows, access: Access::Bytes { start, end }, .. }) = self.done.last_mut() {
            if *rows < MOST_ROWS && row_end - *start <= BLOCK_BYTES {
                *rows += 1;
                *end = row_end;
                return;
            }
        }
        progress.advance();
        let access = Access::Bytes { start: row_start, end: row_end };
        self.done.push(Place { first: line, rows: 1, access });
    }
}

/// Bytes of a file, read where they are: several threads may share the file.
struct Section<'f> {
    file: &'f OpenFile,
    at: u64,
    end: u64,
}

impl<'f> Section<'f> {
    fn of(file: &'f OpenFile) -> io::Result<Self> {
        Ok(Section { file, at: 0, end: file.length()? })
    }

    fn at(file: &'f OpenFile, place: &Place) -> io::Result<Self> {
        match place.access {
            Access::Bytes { start, end } => Ok(Section { file, at: start, end }),
            Access::RowGroup { .. } => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min((self.end - self.at).min(usize::MAX as u64) as usize);
        let bytes = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}
