//! The images that are searched, listed without reading them.

use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::error::SearchError;
use crate::data::shard::Shard;
use crate::data::source::{images, Order, Source, Ticket};
use crate::data::storage::{Location, Progress, Storage};
use crate::data::{Cursor, DataError, LoadError, Raw};

/// A file as it was when its images were listed. What has the same name, length and time is taken for the same; of what lies
/// behind a URL, the name alone counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexedFile {
    /// Its path, relative to the folder that was named, if it was one; or its URL.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Last change, nanoseconds since 1970.
    pub modified: u64,
}

/// Place of an image in its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Number of the file: the image itself, or a shard.
    pub file: u32,
    /// Number of the sample in its shard; 0 for an image file.
    pub number: u32,
}

/// Images of files, folders or shards.
pub struct Collection {
    sources: Sources,
    files: Vec<IndexedFile>,
    locations: Vec<Location>,
}

/// The same images with and without captions.
#[derive(Clone)]
struct Sources {
    captioned: Arc<dyn Source>,
    bare: Arc<dyn Source>,
    are_shards: bool,
}

impl Collection {
    /// Finds the images of what was named: files, folders that are searched through, or shards.
    ///
    /// # Errors
    /// Something that was named is not there, or is a folder without an image.
    pub fn open(named: &[String]) -> Result<Self, SearchError> {
        let images::NamedImages { captioned, bare, are_shards } = images::open(named)?;
        let locations = bare.files();
        let folder = Self::folder(named);
        let files = locations.iter().map(|location| indexed(location, folder)).collect::<Result<_, _>>()?;
        let sources = Sources { captioned, bare, are_shards };
        Ok(Collection { sources, files, locations })
    }

    /// The folder that was named, if that is all that was.
    pub fn folder(named: &[String]) -> Option<&Path> {
        match named {
            [one] if Path::new(one).is_dir() => Some(Path::new(one)),
            _ => None,
        }
    }

    /// The files, in the order of the collection.
    pub fn files(&self) -> &[IndexedFile] {
        &self.files
    }

    /// True if its files are shards, false if they are the images themselves.
    pub fn are_shards(&self) -> bool {
        self.sources.are_shards
    }

    /// Images of a file, broken ones included.
    ///
    /// # Errors
    /// A shard cannot be had.
    pub(super) fn images_of(&self, file: usize) -> Result<u32, SearchError> {
        match self.sources.are_shards {
            true => {
                let shard = Shard::open_at(&self.locations[file], &Storage::default());
                Ok(shard.map_err(DataError::from)?.len() as u32)
            }
            false => Ok(1),
        }
    }

    /// The file of an image, as it was named on the command line.
    pub fn name(&self, place: Place) -> String {
        self.locations[place.file as usize].to_string()
    }

    /// Reads an image and its captions.
    ///
    /// # Errors
    /// It is broken, or the machine does not give it.
    pub fn load(&self, place: Place) -> Result<Raw, LoadError> {
        self.sources.load(&self.sources.ticket(place, 0))
    }

    /// A source of some of the images, in the order given. Of a batch, [`images`](crate::data::Batch::images) tells which
    /// of them they are.
    pub(super) fn chosen(&self, places: Vec<Place>) -> Arc<dyn Source> {
        Arc::new(Chosen { sources: self.sources.clone(), places })
    }
}

/// Name, length and time of a file.
fn indexed(location: &Location, folder: Option<&Path>) -> Result<IndexedFile, SearchError> {
    let Location::File(path) = location else {
        return Ok(IndexedFile { name: location.to_string(), bytes: 0, modified: 0 });
    };
    let metadata = std::fs::metadata(path).map_err(SearchError::io("look at", path))?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let short = folder.and_then(|folder| path.strip_prefix(folder).ok()).unwrap_or(path);
    // Names that are no text are told apart by their bytes.
    let name = short.to_str().map_or_else(|| format!("{:?}", short.as_os_str()), String::from);
    let modified = modified.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0));
    Ok(IndexedFile { name, bytes: metadata.len(), modified })
}

impl Sources {
    fn ticket(&self, place: Place, index: u64) -> Ticket {
        let item = match self.are_shards {
            true => (u64::from(place.file), u64::from(place.number)),
            false => (0, u64::from(place.file)),
        };
        let after = Cursor { position: index + 1, ..Cursor::default() };
        Ticket { epoch: 0, index, item, after }
    }

    /// An image whose caption cannot be read is an image without one.
    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        let mut raw = match self.captioned.load(ticket) {
            Err(LoadError::Skip(_)) => self.bare.load(ticket)?,
            loaded => loaded?,
        };
        // Loaders want one.
        if raw.captions.is_empty() {
            raw.captions.push(String::new());
        }
        Ok(raw)
    }
}

/// Some of the images of a collection.
struct Chosen {
    sources: Sources,
    places: Vec<Place>,
}

impl Source for Chosen {
    fn samples(&self) -> Option<u64> {
        Some(self.places.len() as u64)
    }

    fn ticket(&self, cursor: Cursor, _order: Order) -> Result<Option<Ticket>, DataError> {
        let place = self.places.get(cursor.position as usize);
        Ok(place.map(|place| self.sources.ticket(*place, cursor.position)))
    }

    fn load(&self, ticket: &Ticket) -> Result<Raw, LoadError> {
        self.sources.load(ticket)
    }

    fn name(&self) -> String {
        self.sources.bare.name()
    }

    fn sample_name(&self, ticket: &Ticket, key: &str) -> String {
        self.sources.bare.sample_name(ticket, key)
    }

    fn image_of(&self, ticket: &Ticket, _key: &str) -> Option<u64> {
        Some(ticket.index)
    }

    fn max_pixels(&self) -> u64 {
        self.sources.bare.max_pixels()
    }

    fn progress(&self) -> Option<Arc<Progress>> {
        self.sources.captioned.progress()
    }
}
