//! A block of rows, and where it is in its table.

use crate::data::Defect;

/// Most rows of a block.
pub(super) const MOST_ROWS: u64 = 65_536;
/// About so many bytes of a table are a block.
pub(super) const BLOCK_BYTES: u64 = 8 << 20;

/// Place of a block in its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of its first row, from 1; of text files the line.
    pub first: u64,
    /// Rows.
    pub rows: u64,
    /// Access to its first row.
    pub access: Access,
}

/// Access to the first row of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Bytes of a text file.
    Bytes { start: u64, end: u64 },
    /// Rows of a row group of a Parquet file that are before it.
    RowGroup { group: usize, before: u64 },
}

/// Rows in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// As [`Place::first`].
    pub number: u64,
    pub content: Result<RowContent, Defect>,
}

/// Values of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowContent {
    /// A path, a URL or a file.
    pub image: Box<[u8]>,
    /// At least one, or why there is none, for who needs them.
    pub captions: Result<Vec<String>, Defect>,
    pub label: Option<i64>,
    pub json: Option<serde_json::Value>,
}
