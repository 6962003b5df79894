//! Tables as Parquet files, read column by column.

use std::io::{self, BufReader, Read};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use parquet::basic::Repetition;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, FileReader, Length, RowGroupReader, SerializedFileReader};
use serde_json::{Map, Value};

use super::block::{Access, Place, Row, RowContent, BLOCK_BYTES, MOST_ROWS};
use super::column::{Columns, Positions};
use super::text::Fault;
use crate::data::storage::disk::OpenFile;
use crate::data::text::json;

/// The blocks of a file, as its footer lists them.
pub(super) fn count(file: &Arc<OpenFile>, columns: &Columns) -> Result<Vec<Place>, Fault> {
    guarded(|| {
        let reader = open(file)?;
        let metadata = reader.metadata();
        let positions = positions(&reader, columns)?;
        let mut blocks = Vec::new();
        let mut first = 1;
        for (group, row_group) in metadata.row_groups().iter().enumerate() {
            let rows = u64::try_from(row_group.num_rows()).unwrap_or(0);
            let bytes = |&position: &usize| row_group.column(position).uncompressed_size().max(0) as u64;
            let bytes: u64 = positions.all().iter().map(bytes).sum();
            let most = (BLOCK_BYTES / (bytes / rows.max(1)).max(1)).clamp(1, MOST_ROWS);
            let mut before = 0;
            while before < rows {
                let taken = most.min(rows - before);
                let access = Access::RowGroup { group, before };
                blocks.push(Place { first: first + before, rows: taken, access });
                before += taken;
            }
            first += rows;
        }
        Ok(blocks)
    })
}

/// The rows of a block.
pub(super) fn read(file: &Arc<OpenFile>, place: &Place, columns: &Columns) -> Result<Vec<Row>, Fault> {
    let Access::RowGroup { group, before } = place.access else { return Err(": no row group".into()) };
    guarded(|| {
        let reader = open(file)?;
        let positions = positions(&reader, columns)?;
        let row_group = reader.get_row_group(group)?;
        let cells = |position| cells(row_group.as_ref(), position, before, place.rows);
        let mut images = cells(positions.image)?;
        let captions = cells(positions.caption)?;
        let labels = positions.label.map(cells).transpose()?;
        let json =
            positions.json.iter().map(|&position| cells(position)).collect::<ParquetResult<Vec<_>>>()?;
        let row = |at: usize| {
            let Some(image) = images[at].take().and_then(Cell::bytes).filter(|image| !image.is_empty())
            else {
                return Err(columns.no_image());
            };
            let captions = match &captions[at] {
                Some(Cell::Bytes(caption)) => columns.caption(caption.data()).map(|caption| vec![caption]),
                _ => Err(columns.no_caption()),
            };
            let kept: Map<_, _> = (columns.json.iter().zip(&json))
                .map(|(name, cells)| (name.clone(), cells[at].as_ref().map_or(Value::Null, Cell::json)))
                .collect();
            Ok(RowContent {
                image: image.data().into(),
                captions,
                label: labels.as_ref().and_then(|labels| json::whole(&labels[at].as_ref()?.json())),
                json: columns.kept(kept),
            })
        };
        Ok((0..place.rows as usize)
            .map(row)
            .zip(place.first..)
            .map(|(content, number)| Row { number, content })
            .collect())
    })
}

/// The reader of the format promises no more than to find most damage; what it does not find may be a panic.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::General(what))) => Err(format!(": {what}")),
        Ok(Err(error)) => Err(format!(": {error}")),
        Err(_) => Err(": a damaged Parquet file; see the message above".into()),
    }
}

fn open(file: &Arc<OpenFile>) -> ParquetResult<SerializedFileReader<ParquetFile>> {
    SerializedFileReader::new(ParquetFile(file.clone()))
}

/// Columns by their path: `caption`, `image.bytes`.
fn positions(reader: &SerializedFileReader<ParquetFile>, columns: &Columns) -> ParquetResult<Positions> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let positions = columns.positions(&names).map_err(ParquetError::General)?;
    for position in positions.all() {
        let column = schema.column(position);
        if column.max_rep_level() > 0
            || column.self_type().get_basic_info().repetition() == Repetition::REPEATED
        {
            let what = format!("column `{}` is a list; expected one value a row", column.path().string());
            return Err(ParquetError::General(what));
        }
    }
    Ok(positions)
}

impl Positions {
    fn all(&self) -> Vec<usize> {
        let mut all = vec![self.image, self.caption];
        all.extend(self.label);
        all.extend(&self.json);
        all
    }
}

/// A value.
enum Cell {
    Bytes(ByteArray),
    Json(Value),
}

impl Cell {
    fn bytes(self) -> Option<ByteArray> {
        match self {
            Cell::Bytes(bytes) => Some(bytes),
            Cell::Json(_) => None,
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into_owned().into(),
            Cell::Json(value) => value.clone(),
        }
    }
}

/// Values of a column, from a row on; `None` where a row has none.
fn cells(
    row_group: &dyn RowGroupReader,
    column: usize,
    before: u64,
    rows: u64,
) -> ParquetResult<Vec<Option<Cell>>> {
    let full = row_group.metadata().column(column).column_descr().max_def_level();
    let wanted = (full, before as usize, rows as usize);
    match row_group.get_column_reader(column)? {
        ColumnReader::ByteArrayColumnReader(reader) => values(reader, wanted, Cell::Bytes),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            values(reader, wanted, |bytes| Cell::Bytes(bytes.into()))
        }
        ColumnReader::BoolColumnReader(reader) => values(reader, wanted, |value| Cell::Json(value.into())),
        ColumnReader::Int32ColumnReader(reader) => values(reader, wanted, |value| Cell::Json(value.into())),
        ColumnReader::Int64ColumnReader(reader) => values(reader, wanted, |value| Cell::Json(value.into())),
        ColumnReader::FloatColumnReader(reader) => {
            values(reader, wanted, |value| Cell::Json(json::number(value.into())))
        }
        ColumnReader::DoubleColumnReader(reader) => {
            values(reader, wanted, |value| Cell::Json(json::number(value)))
        }
        // A time of the format's first years.
        ColumnReader::Int96ColumnReader(reader) => values(reader, wanted, |_| Cell::Json(Value::Null)),
    }
}

/// `wanted`: the definition level of a value that is there, rows to pass over, rows to read.
fn values<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    (full, before, rows): (i16, usize, usize),
    cell: impl Fn(T::T) -> Cell,
) -> ParquetResult<Vec<Option<Cell>>> {
    let mut passed = 0;
    while passed < before {
        match reader.skip_records(before - passed)? {
            0 => break,
            some => passed += some,
        }
    }
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        match reader.read_records(rows - read, Some(&mut levels), None, &mut values)?.0 {
            0 => return Err(ParquetError::EOF(format!("a column ends {} rows early", rows - read))),
            some => read += some,
        }
    }
    let mut values = values.into_iter();
    let next = |there: bool| if there { values.next().map(&cell) } else { None };
    match full {
        0 => Ok(std::iter::repeat_n(true, rows).map(next).collect()),
        _ => Ok(levels.into_iter().map(|level| level == full).map(next).collect()),
    }
}

/// A file that several threads may read at once.
struct ParquetFile(Arc<OpenFile>);

impl Length for ParquetFile {
    fn len(&self) -> u64 {
        self.0.length().unwrap_or(0)
    }
}

impl ChunkReader for ParquetFile {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(From { file: self.0.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        // A damaged footer may declare any length.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes at byte {start} are not in the file")));
        }
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Everything from a place on.
struct From {
    file: Arc<OpenFile>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}
