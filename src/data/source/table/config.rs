//! The fields of tables in a recipe.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::source::Files;
use crate::data::storage::Location;
use crate::data::DataError;

/// Tables of pairs: CSV, TSV, JSON Lines or Parquet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// Path or URL with braces or wildcards, a list of them, or a `.txt` file with one a line.
    pub files: Files,
    /// The column of the image.
    pub image: ImageColumn,
    /// Column of the caption, UTF-8 text. In JSON Lines it may be a list of captions.
    pub caption: String,
    /// Column of the class, a whole number.
    #[serde(default)]
    pub label: Option<String>,
    /// Columns that are kept as the sample's json, for labels and filters.
    #[serde(default)]
    pub json: Vec<String>,
    /// Folder or URL that relative paths begin at. Default: the folder of the table.
    #[serde(default)]
    pub root: Option<String>,
    /// Format of the files. Default: told by their names, `.csv`, `.tsv`, `.jsonl`, `.ndjson` or
    /// `.parquet`, with or without `.gz` or `.zst` behind.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// A value of a CSV or TSV file that begins with `"` ends at the next `"`, over separators and line
    /// breaks. Default: in CSV it does; in TSV, as LAION and CC3M are published, `"` is a character as any other.
    #[serde(default)]
    pub quoted: Option<bool>,
    /// The first row of a CSV or TSV file names the columns; otherwise they are named `0`, `1`, ...
    #[serde(default = "header")]
    pub header: bool,
    /// Blocks of rows that are shuffled together; a block has at most 65,536 rows or about 8 MiB.
    #[serde(default = "shuffle_blocks")]
    #[schemars(range(min = 1, max = 65_536))]
    pub shuffle_blocks: usize,
    /// Training draws blocks with replacement instead of taking each once an epoch.
    #[serde(default)]
    pub resampled: bool,
}

impl TableConfig {
    /// Separators, quotes and header of a CSV or TSV file.
    pub(super) fn dialect(&self, format: TableFormat) -> Dialect {
        let (delimiter, quoted) = if format == TableFormat::Tsv { (b'\t', false) } else { (b',', true) };
        Dialect { delimiter, quoted: self.quoted.unwrap_or(quoted), header: self.header }
    }

    /// Tables with the defaults of the other fields.
    pub fn new(files: impl Into<Files>, image: ImageColumn, caption: impl Into<String>) -> Self {
        TableConfig {
            files: files.into(),
            image,
            caption: caption.into(),
            label: None,
            json: Vec::new(),
            root: None,
            format: None,
            quoted: None,
            header: header(),
            shuffle_blocks: shuffle_blocks(),
            resampled: false,
        }
    }
}

fn header() -> bool {
    true
}
fn shuffle_blocks() -> usize {
    16
}

/// The column of the image, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImageColumn {
    /// A path, relative to `root`.
    Path(String),
    /// A URL. The image is fetched every time it is needed.
    Url(String),
    /// The file itself: binary in Parquet, `image.bytes` for a column in a struct; base64 in text.
    Bytes(String),
}

impl ImageColumn {
    pub(super) fn name(&self) -> &str {
        match self {
            ImageColumn::Path(name) | ImageColumn::Url(name) | ImageColumn::Bytes(name) => name,
        }
    }
}

/// Format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TableFormat {
    /// Values between commas, in quotes `"` where they need it.
    Csv,
    /// Values between tabs, without quotes.
    Tsv,
    /// A JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl TableFormat {
    /// Of a file by its name.
    pub(super) fn of(location: &Location) -> Result<Self, DataError> {
        let name = location.file_name().to_lowercase();
        let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
        let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().into_owned();
        match extension.as_str() {
            "csv" => Ok(TableFormat::Csv),
            "tsv" => Ok(TableFormat::Tsv),
            "jsonl" | "ndjson" => Ok(TableFormat::JsonLines),
            "parquet" => Ok(TableFormat::Parquet),
            _ => Err(DataError::Invalid(format!(
                "{location}: its name does not say what kind of table it is; write `format: Csv`, Tsv, JsonLines \
                 or Parquet"
            ))),
        }
    }
}

/// Separators, quotes and header of a CSV or TSV file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    pub delimiter: u8,
    /// A value that begins with `"` ends at the next one.
    pub quoted: bool,
    /// The first row names the columns.
    pub header: bool,
}
