//! Tables of pairs, as LAION publishes them and open_clip reads them: a row is a picture - a path, a URL, or its
//! bytes - and a caption.
//!
//! Rows are taken in blocks that fit in memory; the order over the blocks is that of shards. A table is
//! counted when it is opened: the footer of a Parquet file says how many rows it has, text files are read once.

mod block;
mod column;
mod parquet;
mod text;

use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::files::Files;
use super::location::Location;
use super::pulse::Pulse;
use super::shard::LONGEST_PICTURE;
use super::source::{Defect, Order, Picture, Raw, Skip, Source, Ticket};
use super::storage::{Storage, StorageError};
use super::windows::{Shelf, Shuffle, Windows};
use super::{Cursor, DataError};
use block::{Block, Place, Row};
use column::Columns;

/// Tables of pairs: CSV, TSV, JSON Lines or Parquet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// Path or URL with braces or wildcards, a list of them, or a `.txt` file with one a line.
    pub files: Files,
    /// Where the picture is.
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
    /// How the files are written. Default: told by their names, `.csv`, `.tsv`, `.jsonl`, `.ndjson` or
    /// `.parquet`, with or without `.gz` or `.zst` behind.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// Whether the first row of a CSV or TSV file names the columns; otherwise they are named `0`, `1`, ...
    #[serde(default = "header")]
    pub header: bool,
    /// Blocks of rows that are shuffled together; a block has at most 65,536 rows or about 8 MiB.
    #[serde(default = "shuffle_blocks")]
    #[schemars(range(min = 1))]
    pub shuffle_blocks: usize,
    /// Whether training draws blocks with replacement instead of taking each once an epoch.
    #[serde(default)]
    pub resampled: bool,
}

fn header() -> bool {
    true
}
fn shuffle_blocks() -> usize {
    16
}

/// The column of the picture, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImageColumn {
    /// A path, relative to `root`.
    Path(String),
    /// A URL. The picture is fetched every time it is needed.
    Url(String),
    /// The file itself: binary in Parquet, `image.bytes` for a column in a struct; base64 in text.
    Bytes(String),
}

impl ImageColumn {
    fn name(&self) -> &str {
        match self {
            ImageColumn::Path(name) | ImageColumn::Url(name) | ImageColumn::Bytes(name) => name,
        }
    }
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TableFormat {
    /// Values between commas, quoted with `"` where they need it.
    Csv,
    /// The same between tabs.
    Tsv,
    /// A JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl TableFormat {
    /// Of a file by its name.
    fn of(location: &Location) -> Result<Self, DataError> {
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

/// The source.
pub struct Table {
    name: String,
    image: ImageColumn,
    root: Option<String>,
    windows: Windows<Blocks>,
    samples: u64,
    storage: Arc<Storage>,
}

impl Table {
    /// Finds the tables and counts their rows.
    ///
    /// # Errors
    /// Nothing matches, a table cannot be read, or it lacks a column.
    pub fn open(config: &TableConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let columns = Columns::of(config);
        let mut blocks = Blocks { files: Vec::new(), places: Vec::new(), columns, storage: storage.clone() };
        for location in config.files.locate(&storage)? {
            blocks.add(location, config)?;
        }
        let samples = blocks.places.iter().map(|(_, place)| place.rows).sum();
        if samples == 0 {
            let skipped = "its tables have no rows".to_owned();
            return Err(DataError::NothingUsable { source_name: config.files.to_string(), skipped });
        }
        let shuffle = Shuffle { shards: config.shuffle_blocks, resampled: config.resampled };
        Ok(Table {
            name: config.files.to_string(),
            image: config.image.clone(),
            root: config.root.clone(),
            windows: Windows::new(blocks, shuffle),
            samples,
            storage,
        })
    }

    /// The file and the place in it, for messages: `pairs.csv: line 7`.
    fn place(&self, ticket: &Ticket) -> String {
        let blocks = self.windows.shelf();
        let (file, place) = &blocks.places[ticket.item.0 as usize];
        let file = &blocks.files[*file];
        match self.windows.shard(ticket.item.0) {
            Ok(block) => {
                format!("{}: {} {}", file.location, file.unit(), block.rows[ticket.item.1 as usize].number)
            }
            Err(_) => format!("{}: {} {} or behind", file.location, file.unit(), place.first),
        }
    }

    fn row(&self, ticket: &Ticket) -> Result<Raw, Defect> {
        let block = self
            .windows
            .shard(ticket.item.0)
            .map_err(|error| Defect::new("table_unreadable", error.to_string()))?;
        let Row { number, content } = &block.rows[ticket.item.1 as usize];
        let content = content.clone()?;
        let blocks = self.windows.shelf();
        let file = &blocks.files[blocks.places[ticket.item.0 as usize].0];
        let (key, bytes) = match &self.image {
            ImageColumn::Bytes(_) => {
                let name = file.location.file_name();
                (format!("{name}/{number}"), content.image.to_vec())
            }
            ImageColumn::Path(column) | ImageColumn::Url(column) => {
                let written = std::str::from_utf8(&content.image).map_err(|error| {
                    Defect::new("image_missing", format!("column `{column}`: not UTF-8: {error}"))
                })?;
                let location = self.picture(written, &file.location);
                let location = location
                    .map_err(|what| Defect::new("image_missing", format!("column `{column}`: {what}")))?;
                (written.to_owned(), self.read(&location)?)
            }
        };
        Ok(Raw {
            key,
            picture: Picture::Encoded(bytes),
            captions: content.captions,
            meta: content.json,
            label: content.label,
        })
    }

    /// Where a picture is that a table names.
    fn picture(&self, written: &str, table: &Location) -> Result<Location, String> {
        if matches!(self.image, ImageColumn::Url(_)) {
            return match Location::parse(written)? {
                url @ Location::Url(_) => Ok(url),
                Location::File(_) => Err(format!("expected a URL, got {written:?}")),
            };
        }
        match Location::parse(written)? {
            Location::File(path) if path.is_relative() => match (&self.root, table) {
                (Some(root), _) => Location::parse(&format!("{}/{written}", root.trim_end_matches('/'))),
                (None, Location::File(table)) => Ok(Location::File(table.with_file_name("").join(path))),
                (None, Location::Url(table)) => {
                    let folder = table.split('?').next().and_then(|url| url.rsplit_once('/'));
                    Location::parse(&format!("{}/{written}", folder.map_or("", |(folder, _)| folder)))
                }
            },
            anywhere => Ok(anywhere),
        }
    }

    fn read(&self, location: &Location) -> Result<Vec<u8>, Defect> {
        self.storage.read(location, LONGEST_PICTURE).map_err(|error| {
            let reason = match &error {
                StorageError::TooLong { .. } => "image_too_large",
                StorageError::Absent { .. } => "image_missing",
                StorageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    "image_missing"
                }
                StorageError::Io { .. } => "file_unreadable",
                StorageError::Remote { .. } => "url_unreachable",
            };
            Defect::new(reason, error.to_string())
        })
    }
}

impl Source for Table {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        self.windows.ticket(cursor, order)
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, Skip> {
        self.row(ticket).map_err(|defect| defect.of(self.place(ticket)))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        format!("{}: {key}", self.place(ticket))
    }

    fn pulse(&self) -> Option<Arc<Pulse>> {
        Some(self.storage.pulse().clone())
    }
}

/// A table.
struct TableFile {
    location: Location,
    format: TableFormat,
    /// Names of the columns of a CSV or TSV file.
    names: Vec<String>,
    /// Held where the file was unpacked, to unpack it once.
    unpacked: Option<Arc<std::fs::File>>,
}

impl TableFile {
    /// What rows are counted in.
    fn unit(&self) -> &'static str {
        match self.format {
            TableFormat::Parquet => "row",
            TableFormat::Csv | TableFormat::Tsv | TableFormat::JsonLines => "line",
        }
    }
}

/// All blocks of all tables.
struct Blocks {
    files: Vec<TableFile>,
    /// (table, where in it)
    places: Vec<(usize, Place)>,
    columns: Columns,
    storage: Arc<Storage>,
}

impl Blocks {
    /// Counts a table.
    fn add(&mut self, location: Location, config: &TableConfig) -> Result<(), DataError> {
        let format = config.format.map_or_else(|| TableFormat::of(&location), Ok)?;
        let opened = self.storage.open(&location)?;
        if let Some(damage) = opened.damage {
            return Err(DataError::Invalid(format!("{location}: {damage}")));
        }
        let file = Arc::new(opened.file);
        let pulse = self.storage.pulse();
        let (names, places) = match format {
            TableFormat::Csv | TableFormat::Tsv => text::count_csv(&file, format, config.header, pulse),
            TableFormat::JsonLines => text::count_lines(&file, pulse).map(|places| (Vec::new(), places)),
            TableFormat::Parquet => parquet::count(&file, &self.columns).map(|places| (Vec::new(), places)),
        }
        .map_err(|what| DataError::Invalid(format!("{location}{what}")))?;
        if matches!(format, TableFormat::Csv | TableFormat::Tsv) {
            self.columns
                .positions(&names)
                .map_err(|what| DataError::Invalid(format!("{location}:1: {what}")))?;
        }
        let number = self.files.len();
        self.places.extend(places.into_iter().map(|place| (number, place)));
        self.files.push(TableFile { location, format, names, unpacked: opened.temporary.then_some(file) });
        Ok(())
    }
}

impl Shelf for Blocks {
    type Shard = Block;

    fn count(&self) -> usize {
        self.places.len()
    }

    fn open(&self, shard: usize) -> Result<Block, DataError> {
        let (file, place) = &self.places[shard];
        let table = &self.files[*file];
        let _reading = self.storage.pulse().reading(table.location.to_string().into());
        let file = match &table.unpacked {
            Some(file) => file.clone(),
            None => Arc::new(self.storage.open(&table.location)?.file),
        };
        let rows = match table.format {
            TableFormat::Csv | TableFormat::Tsv => {
                text::read_csv(&file, place, table.format, &table.names, &self.columns)
            }
            TableFormat::JsonLines => text::read_lines(&file, place, &self.columns),
            TableFormat::Parquet => parquet::read(&file, place, &self.columns),
        };
        let rows = rows.map_err(|what| DataError::Invalid(format!("{}{what}", table.location)))?;
        if rows.len() as u64 != place.rows {
            return Err(DataError::Invalid(format!(
                "{}: it has changed since it was counted; start again",
                table.location
            )));
        }
        Ok(Block { rows })
    }

    fn samples(block: &Block) -> usize {
        block.rows.len()
    }
}

#[cfg(test)]
mod tests;
