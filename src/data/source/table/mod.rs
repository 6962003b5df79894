//! Tables of pairs, as LAION publishes them and open_clip reads them: a row is an image - a path, a URL, or its
//! bytes - and a caption.
//!
//! Rows are taken in blocks that fit in memory; the order over the blocks is that of shards. A table is
//! counted when it is opened: the footer of a Parquet file says how many rows it has, text files are read once.

mod block;
mod column;
mod config;
mod parquet;
mod text;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::data::decode::LONGEST_IMAGE;
use crate::data::source::opened::ShardSet;
use crate::data::source::windows::{Deal, Shuffle, Windows};
use crate::data::source::{Lane, Order, Source, Ticket};
use crate::data::storage::disk::{Base, OpenFile};
use crate::data::storage::{Location, Progress, Storage, StorageError};
use crate::data::{CaptionUse, Cursor, DataError};
use crate::data::{Cause, Defect, Image, LoadError, Raw};
use block::{Block, Place, Row};
use column::Columns;
use config::Dialect;
pub use config::{ImageColumn, TableConfig, TableFormat};
use text::{Counted, Fused};

/// True if a file's name is that of a table.
pub fn is_table(location: &Location) -> bool {
    TableFormat::of(location).is_ok()
}

/// Names of the columns of a CSV or TSV file of this machine.
///
/// # Errors
/// It cannot be read.
pub fn header_of(path: &Path, config: &TableConfig) -> Result<Vec<String>, DataError> {
    let location = Location::File(path.to_owned());
    let format = config.format.map_or_else(|| TableFormat::of(&location), Ok)?;
    let file = OpenFile::open(path).map_err(|source| DataError::Io { path: path.into(), source })?;
    let names = text::header(&file, config.dialect(format));
    names.map_err(|what| DataError::Invalid(format!("{location}{what}")))
}

/// The source.
pub struct Table {
    name: String,
    image: ImageColumn,
    root: Option<String>,
    /// `root`, where it is a folder of this machine.
    base: Option<Base>,
    windows: Windows<Blocks>,
    samples: u64,
    storage: Arc<Storage>,
    caption_use: CaptionUse,
}

impl Table {
    /// Finds the tables and counts their rows.
    ///
    /// # Errors
    /// Nothing matches, a table cannot be read, or it lacks a column.
    pub fn open(config: &TableConfig, storage: Arc<Storage>) -> Result<Self, DataError> {
        let columns = Columns::of(config);
        let (files, places, counts) = (Vec::new(), Vec::new(), OnceLock::new());
        let mut blocks = Blocks { files, places, columns, storage: storage.clone(), counts };
        for location in config.files.locate(&storage)? {
            blocks.add(location, config)?;
        }
        let samples = blocks.places.iter().map(|(_, place)| place.rows).sum();
        if samples == 0 {
            let skipped = "its tables have no rows".to_owned();
            return Err(DataError::NothingUsable { source_name: config.files.to_string(), skipped });
        }
        let base =
            match config.root.as_deref().map(Location::parse).transpose().map_err(DataError::Invalid)? {
                Some(Location::File(root)) if matches!(config.image, ImageColumn::Path(_)) => {
                    Some(Base::of(&root).map_err(|source| DataError::Io { path: root, source })?)
                }
                _ => None,
            };
        let shuffle =
            Shuffle { shards: config.shuffle_blocks, resampled: config.resampled, deal: Deal::Anew };
        Ok(Table {
            name: config.files.to_string(),
            image: config.image.clone(),
            root: config.root.clone(),
            base,
            windows: Windows::new(blocks, shuffle),
            samples,
            storage,
            caption_use: CaptionUse::Needed,
        })
    }

    /// The same rows for a purpose that may not need captions.
    pub fn captions(self, captions: CaptionUse) -> Self {
        Table { caption_use: captions, ..self }
    }

    /// The file and the place in it, for messages: `pairs.csv: line 7`.
    fn place(&self, ticket: &Ticket) -> String {
        let blocks = self.windows.shards();
        let (file, place) = &blocks.places[ticket.item.0 as usize];
        let file = &blocks.files[*file];
        match self.windows.shard(ticket.item.0) {
            Ok(block) if block.rows.len() as u64 > ticket.item.1 => {
                format!("{}: {} {}", file.location, file.unit(), block.rows[ticket.item.1 as usize].number)
            }
            _ => format!("{}: {} {} or behind", file.location, file.unit(), place.first),
        }
    }

    fn row(&self, ticket: &Ticket) -> Result<Raw, Cause> {
        let block = self.windows.shard(ticket.item.0)?;
        let blocks = self.windows.shards();
        let file = &blocks.files[blocks.places[ticket.item.0 as usize].0];
        let row = block.rows.get(ticket.item.1 as usize);
        let Row { number, content } = row.ok_or_else(|| file.changed(&format!("row {}", ticket.item.1)))?;
        let content = content.clone()?;
        let captions = match (self.caption_use, content.captions) {
            (CaptionUse::Unused, _) => Vec::new(),
            (CaptionUse::Optional, captions) => captions.unwrap_or_default(),
            (CaptionUse::Needed, captions) => captions?,
        };
        let (key, bytes) = match &self.image {
            ImageColumn::Bytes(_) => {
                let name = file.location.file_name();
                (format!("{name}/{number}"), content.image.to_vec())
            }
            ImageColumn::Path(column) | ImageColumn::Url(column) => {
                let written = std::str::from_utf8(&content.image).map_err(|error| {
                    Defect::new("image_missing", format!("column `{column}`: not UTF-8: {error}"))
                })?;
                let location = self.image(written, &file.location);
                let location = location
                    .map_err(|what| Defect::new("image_missing", format!("column `{column}`: {what}")))?;
                (written.to_owned(), self.read(&location, file)?)
            }
        };
        Ok(Raw {
            key,
            image: Image::Encoded(bytes),
            captions,
            meta: Ok(content.json),
            label: content.label,
            label_set: None,
        })
    }

    /// Location of an image that a table names.
    fn image(&self, written: &str, table: &Location) -> Result<Location, String> {
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

    fn read(&self, location: &Location, table: &TableFile) -> Result<Vec<u8>, Cause> {
        let is_absent = || match location {
            Location::Url(_) => true,
            Location::File(path) => match self.base.as_ref().or(table.base.as_ref()) {
                Some(base) if base.holds(path) => base.is_there(),
                _ => path.parent().is_some_and(Path::is_dir),
            },
        };
        self.storage.read(location, LONGEST_IMAGE, is_absent).map_err(|error| self.storage.cause(error))
    }
}

impl Source for Table {
    fn samples(&self) -> Option<u64> {
        Some(self.samples)
    }

    fn takes_turns(&self) -> bool {
        false
    }

    fn want(&self, lane: Lane, samples: u64) {
        self.windows.want(lane, samples);
    }

    fn files(&self) -> Vec<Location> {
        self.windows.shards().files.iter().map(|file| file.location.clone()).collect()
    }

    fn ticket(&self, cursor: Cursor, order: Order) -> Result<Option<Ticket>, DataError> {
        self.windows.ticket(cursor, order)
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        self.row(ticket).map_err(|cause| cause.of(|| self.place(ticket)))
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        format!("{}: {key}", self.place(ticket))
    }

    /// Rows that name the same file are of the same image.
    fn image_of(&self, ticket: &Ticket, key: &str) -> Option<u64> {
        if matches!(self.image, ImageColumn::Bytes(_)) {
            return None;
        }
        let blocks = self.windows.shards();
        let (file, _) = &blocks.places[ticket.item.0 as usize];
        let location = self.image(key, &blocks.files[*file].location).ok()?;
        let mut hasher = DefaultHasher::new();
        location.hash(&mut hasher);
        Some(hasher.finish())
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        Some(self.storage.progress().clone())
    }
}

/// A table.
struct TableFile {
    location: Location,
    format: TableFormat,
    /// Of a CSV or TSV file.
    dialect: Dialect,
    /// Names of the columns of a CSV or TSV file.
    names: Vec<String>,
    /// Held where the file was unpacked, to unpack it once.
    unpacked: Option<Arc<OpenFile>>,
    /// Its folder, where it is one of this machine.
    base: Option<Base>,
    /// Length of the file as it is stored.
    bytes: u64,
}

impl TableFile {
    fn changed(&self, detail: &str) -> StorageError {
        StorageError::Changed { location: self.location.clone(), detail: detail.into() }
    }

    /// Unit in which rows are counted.
    fn unit(&self) -> &'static str {
        match self.format {
            TableFormat::Parquet => "row",
            TableFormat::Csv | TableFormat::Tsv | TableFormat::JsonLines => "line",
        }
    }
}

fn warn_of_fused(location: &Location, fused: &Fused) {
    if fused.rows > 0 {
        tracing::warn!(
            target: "flip::data",
            "{location}: {} rows are held together by quotes over lines that look like rows themselves, the first at \
             line {}. Where a quote is a character of a caption, double it and put the caption in quotes, or write \
             `quoted: false`",
            fused.rows, fused.first
        );
    }
}

/// All blocks of all tables.
struct Blocks {
    files: Vec<TableFile>,
    /// (table, where in it)
    places: Vec<(usize, Place)>,
    columns: Columns,
    storage: Arc<Storage>,
    /// Rows of each block.
    counts: OnceLock<Vec<u32>>,
}

impl Blocks {
    /// Counts a table.
    fn add(&mut self, location: Location, config: &TableConfig) -> Result<(), DataError> {
        let format = config.format.map_or_else(|| TableFormat::of(&location), Ok)?;
        let opened = self.storage.attempts().make(|| self.storage.open(&location))?;
        if let Some(damage) = opened.damage {
            return Err(DataError::Invalid(format!("{location}: {damage}")));
        }
        let file = Arc::new(opened.file);
        let progress = self.storage.progress();
        let dialect = config.dialect(format);
        let (names, places) = self.read(&location, &file, || match format {
            TableFormat::Csv | TableFormat::Tsv => {
                text::count_csv(&file, dialect, progress).map(|Counted { names, places, fused }| {
                    warn_of_fused(&location, &fused);
                    (names, places)
                })
            }
            TableFormat::JsonLines => text::count_lines(&file, progress).map(|places| (Vec::new(), places)),
            TableFormat::Parquet => parquet::count(&file, &self.columns).map(|places| (Vec::new(), places)),
        })?;
        if matches!(format, TableFormat::Csv | TableFormat::Tsv) {
            self.columns
                .positions(&names)
                .map_err(|what| DataError::Invalid(format!("{location}:1: {what}")))?;
        }
        let number = self.files.len();
        self.places.extend(places.into_iter().map(|place| (number, place)));
        let base = match &location {
            Location::File(path) => Base::of(&path.with_file_name("")).ok(),
            Location::Url(_) => None,
        };
        let unpacked = opened.temporary.then_some(file);
        self.files.push(TableFile { location, format, dialect, names, unpacked, base, bytes: opened.bytes });
        Ok(())
    }
}

impl Blocks {
    /// Reads something of a table, and again where the machine refused it in the middle.
    fn read<T>(
        &self,
        location: &Location,
        file: &OpenFile,
        mut read: impl FnMut() -> Result<T, text::Fault>,
    ) -> Result<T, DataError> {
        let read = self.storage.attempts().make(|| match read() {
            Ok(read) => Ok(Ok(read)),
            Err(what) => match file.take_failure() {
                Some(source) => Err(StorageError::Io { location: location.clone(), source }),
                None => Ok(Err(what)),
            },
        })?;
        read.map_err(|what| DataError::Invalid(format!("{location}{what}")))
    }
}

impl ShardSet for Blocks {
    type Shard = Block;

    fn count(&self) -> usize {
        self.places.len()
    }

    fn counts(&self) -> Option<&[u32]> {
        Some(self.counts.get_or_init(|| self.places.iter().map(|(_, place)| place.rows as u32).collect()))
    }

    fn open(&self, shard: usize) -> Result<Block, DataError> {
        let (file, place) = &self.places[shard];
        let table = &self.files[*file];
        let _reading = self.storage.progress().reading(table.location.to_string().into());
        let file = match &table.unpacked {
            Some(file) => file.clone(),
            None => {
                let opened = self.storage.attempts().make(|| self.storage.open(&table.location))?;
                if opened.bytes != table.bytes {
                    let detail = format!("it has {} bytes, and had {}", opened.bytes, table.bytes);
                    return Err(table.changed(&detail).into());
                }
                Arc::new(opened.file)
            }
        };
        let rows = self.read(&table.location, &file, || match table.format {
            TableFormat::Csv | TableFormat::Tsv => {
                text::read_csv(&file, place, table.dialect, &table.names, &self.columns)
            }
            TableFormat::JsonLines => text::read_lines(&file, place, &self.columns),
            TableFormat::Parquet => parquet::read(&file, place, &self.columns),
        })?;
        if rows.len() as u64 != place.rows {
            let detail = format!("{} rows where it had {}", rows.len(), place.rows);
            return Err(table.changed(&detail).into());
        }
        Ok(Block { rows })
    }

    fn samples(block: &Block) -> usize {
        block.rows.len()
    }
}

#[cfg(test)]
mod tests;
