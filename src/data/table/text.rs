//! Tables as text: CSV, TSV, JSON Lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};
use serde_json::Value;

use super::super::pulse::Pulse;
use super::super::source::Defect;
use super::block::{Place, Row, Way, BLOCK_BYTES, MOST_ROWS};
use super::column::Columns;
use super::TableFormat;

/// Longest row that is read, bytes; more is a quote that was never closed, or no text at all.
const LONGEST_ROW: u64 = 256 << 20;

/// What is wrong with a table, to be put behind its name: `:7: a row ...`.
pub(super) type Trouble = String;

/// Names of the columns and the blocks of a CSV or TSV file.
pub(super) fn count_csv(
    file: &File,
    format: TableFormat,
    header: bool,
    pulse: &Pulse,
) -> Result<(Vec<String>, Vec<Place>), Trouble> {
    let whole = Section::of(file).map_err(|error| format!(": {error}"))?;
    let mut reader = reader(whole, format);
    let mut record = ByteRecord::new();
    let mut names = Vec::new();
    let mut blocks = Blocks::default();
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
            let name = |(i, field): (usize, &[u8])| match header {
                true => {
                    String::from_utf8_lossy(field.strip_prefix(b"\xef\xbb\xbf").unwrap_or(field)).into_owned()
                }
                false => i.to_string(),
            };
            names = record.iter().enumerate().map(name).collect();
            if header {
                continue;
            }
        }
        // The first row of a file without a header begins where the file does.
        blocks.add(start, end, if start == 0 { line } else { line + between }, pulse);
    }
    Ok((names, blocks.done))
}

/// The rows of a block of a CSV or TSV file.
pub(super) fn read_csv(
    file: &Arc<File>,
    place: &Place,
    format: TableFormat,
    names: &[String],
    columns: &Columns,
) -> Result<Vec<Row>, Trouble> {
    let positions = columns.positions(names)?;
    let section = Section::at(file, place).map_err(|error| format!(": {error}"))?;
    let mut reader = reader(section, format);
    let mut record = ByteRecord::new();
    let mut rows = Vec::with_capacity(place.rows as usize);
    while reader.read_byte_record(&mut record).map_err(|error| format!(": {error}"))? {
        let number = place.first + record.position().map_or(0, |at| at.line() - 1);
        let content = if record.len() == names.len() {
            columns.content_of_text(&positions, |position| record.get(position))
        } else {
            let detail = format!("expected {} columns, got {}", names.len(), record.len());
            Err(Defect::new("row_columns", detail))
        };
        rows.push(Row { number, content });
    }
    Ok(rows)
}

fn reader<R: Read>(input: R, format: TableFormat) -> Reader<R> {
    let delimiter = if format == TableFormat::Tsv { b'\t' } else { b',' };
    ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        // A row with too many columns is a broken sample, not the end of the table.
        .flexible(true)
        .buffer_capacity(1 << 18)
        .from_reader(input)
}

/// The blocks of a JSON Lines file.
pub(super) fn count_lines(file: &File, pulse: &Pulse) -> Result<Vec<Place>, Trouble> {
    let whole = Section::of(file).map_err(|error| format!(": {error}"))?;
    let mut input = BufReader::with_capacity(1 << 18, whole);
    let mut blocks = Blocks::default();
    let (mut at, mut number) = (0, 0);
    let mut line = Vec::new();
    loop {
        number += 1;
        let bytes = next_line(&mut input, &mut line).map_err(|error| format!(":{number}: {error}"))?;
        if bytes == 0 {
            return Ok(blocks.done);
        }
        if !line.trim_ascii().is_empty() {
            blocks.add(at, at + bytes, number, pulse);
        }
        at += bytes;
    }
}

/// The rows of a block of a JSON Lines file.
pub(super) fn read_lines(file: &Arc<File>, place: &Place, columns: &Columns) -> Result<Vec<Row>, Trouble> {
    let section = Section::at(file, place).map_err(|error| format!(": {error}"))?;
    let mut input = BufReader::with_capacity(1 << 18, section);
    let mut rows = Vec::with_capacity(place.rows as usize);
    let mut line = Vec::new();
    let mut number = place.first;
    while next_line(&mut input, &mut line).map_err(|error| format!(":{number}: {error}"))? > 0 {
        let text = line.trim_ascii();
        if !text.is_empty() {
            rows.push(Row { number, content: read_line(text, columns) });
        }
        number += 1;
    }
    Ok(rows)
}

fn read_line(line: &[u8], columns: &Columns) -> Result<super::block::Content, Defect> {
    match serde_json::from_slice(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)) {
        Ok(Value::Object(object)) => columns.content_of_json(object),
        Ok(_) => Err(Defect::new("row_json", "expected an object `{...}`")),
        Err(error) => Err(Defect::new("row_json", format!("column {}: {error}", error.column()))),
    }
}

/// Reads a line with its end; the bytes it has.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    let bytes = input.take(LONGEST_ROW + 1).read_until(b'\n', line)? as u64;
    match bytes > LONGEST_ROW {
        true => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line of over {LONGEST_ROW} bytes")))
        }
        false => Ok(bytes),
    }
}

/// Cuts rows into blocks.
#[derive(Default)]
struct Blocks {
    done: Vec<Place>,
}

impl Blocks {
    fn add(&mut self, row_start: u64, row_end: u64, line: u64, pulse: &Pulse) {
        if let Some(Place { rows, way: Way::Bytes { start, end }, .. }) = self.done.last_mut() {
            if *rows < MOST_ROWS && row_end - *start <= BLOCK_BYTES {
                *rows += 1;
                *end = row_end;
                return;
            }
        }
        pulse.beat();
        let way = Way::Bytes { start: row_start, end: row_end };
        self.done.push(Place { first: line, rows: 1, way });
    }
}

/// Bytes of a file, read where they are: several threads may share the file.
struct Section<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl<'f> Section<'f> {
    fn of(file: &'f File) -> io::Result<Self> {
        Ok(Section { file, at: 0, end: file.metadata()?.len() })
    }

    fn at(file: &'f File, place: &Place) -> io::Result<Self> {
        match place.way {
            Way::Bytes { start, end } => Ok(Section { file, at: start, end }),
            Way::RowGroup { .. } => Err(io::ErrorKind::InvalidInput.into()),
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
