//! The files that a source reads, with their sizes: what a run that is resumed is held against, and what all ranks of a
//! run must have alike, as the order of the samples follows from it.
//!
//! Names count from the folder that all files have in common: data may move as a whole. Times are not looked at, which
//! copying changes, nor is the size of a remote file. Between ranks two pages of each local file are compared as well
//! ([`FileList::marked`]); what a run that is resumed finds in place of a file of the same size is not noticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::source::listing::{common_folder, of_each, sizes};
use crate::data::source::Source;
use crate::data::storage::Location;
use crate::data::DataError;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// The files of a source, in its order. A source that makes its samples itself has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileList {
    /// The start that all names share.
    folder: String,
    files: Vec<ListedFile>,
    /// A checksum of some of the bytes of each file, where they were looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    marks: Vec<Option<u32>>,
}

/// Name below the folder, and bytes; none of a remote file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct ListedFile(String, Option<u64>);

impl FileList {
    /// The files of a source as they are now.
    ///
    /// # Errors
    /// The size of a file cannot be found out.
    pub fn of(source: &dyn Source) -> Result<FileList, DataError> {
        let locations = source.files();
        let sizes = sizes(&locations)?;
        let names: Vec<String> = locations.iter().map(Location::to_string).collect();
        let folder = common_folder(names.iter().map(String::as_str)).to_owned();
        let files = names.iter().zip(sizes);
        let files = files.map(|(name, bytes)| ListedFile(name[folder.len()..].to_owned(), bytes)).collect();
        Ok(FileList { folder, files, marks: Vec::new() })
    }

    /// The same with a checksum of two pages of each file of this machine: the first, and one in the middle.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn marked(self, source: &dyn Source) -> Result<FileList, DataError> {
        let marks = of_each(&source.files(), |location| match location {
            Location::Url(_) => Ok(None),
            Location::File(path) => {
                mark_of(path).map(Some).map_err(|source| DataError::Io { path: path.clone(), source })
            }
        })?;
        Ok(FileList { marks, ..self })
    }

    /// The same without the checksums.
    pub fn unmarked(self) -> FileList {
        FileList { marks: Vec::new(), ..self }
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True if there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A hash of the names, their order and the sizes.
    pub fn hash(&self) -> String {
        hex(self.listed())
    }

    /// A hash of these, and of the checksums where there are some.
    pub fn marked_hash(&self) -> String {
        let mut hash = self.listed();
        for mark in self.marks.iter().flatten() {
            hash.update(mark.to_le_bytes());
        }
        hex(hash)
    }

    fn listed(&self) -> Sha256 {
        let mut hash = Sha256::new();
        for ListedFile(name, bytes) in &self.files {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(bytes.map_or(u64::MAX, |bytes| bytes).to_le_bytes());
        }
        hash
    }

    /// In what the list is another one `now`: the first file, and how many more there are. None where their hashes are
    /// equal.
    pub fn difference(&self, now: &FileList) -> Option<String> {
        if self.files == now.files {
            return self.other_contents(now);
        }
        let sizes = |list: &FileList| -> BTreeMap<String, Option<u64>> {
            list.files.iter().map(|ListedFile(name, bytes)| (name.clone(), *bytes)).collect()
        };
        let (before, after) = (sizes(self), sizes(now));
        let mut found = Vec::new();
        for ListedFile(name, bytes) in &self.files {
            match after.get(name) {
                None => found.push(format!("{}{name} ({}) is missing", now.folder, bytes_shown(*bytes))),
                Some(other) if other != bytes => found.push(format!(
                    "{}{name} has {} instead of {}",
                    now.folder,
                    bytes_shown(*other),
                    bytes_shown(*bytes)
                )),
                Some(_) => {}
            }
        }
        let added = now.files.iter().filter(|ListedFile(name, _)| !before.contains_key(name));
        found.extend(added.map(|ListedFile(name, bytes)| {
            format!("{}{name} ({}) was added", now.folder, bytes_shown(*bytes))
        }));
        if found.is_empty() {
            let places = self.files.iter().zip(&now.files).enumerate();
            let moved = places.into_iter().find(|(_, (before, now))| before != now);
            found.push(moved.map_or_else(
                || format!("{} files instead of {}", now.files.len(), self.files.len()),
                |(place, (before, after))| {
                    format!("file {place} is {}{} instead of {}", now.folder, after.0, before.0)
                },
            ));
        }
        let more = match found.len() {
            1 => String::new(),
            found => format!("; {} more differ", found - 1),
        };
        Some(format!("{}{more} ({} files, before {})", found[0], now.len(), self.len()))
    }
}

impl FileList {
    /// The first file of other contents, as far as the checksums tell.
    fn other_contents(&self, now: &FileList) -> Option<String> {
        let marks = self.marks.iter().zip(&now.marks);
        let (file, (before, after)) = marks.enumerate().find(|(_, (before, now))| before != now)?;
        let shown = |mark: &Option<u32>| mark.map_or("none".into(), |mark| format!("{mark:08x}"));
        let (name, before, after) = (&self.files[file].0, shown(before), shown(after));
        Some(format!(
            "{}{name} has other contents of the same length (checksum {after} instead of {before})",
            now.folder
        ))
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A checksum of the first page of a file and of one in the middle.
fn mark_of(path: &Path) -> std::io::Result<u32> {
    let file = File::open(path)?;
    let mut mark = 0;
    for at in [0, file.metadata()?.len() / 2 / PAGE * PAGE] {
        let mut page = Vec::new();
        let mut from = &file;
        from.seek(SeekFrom::Start(at))?;
        from.take(PAGE).read_to_end(&mut page)?;
        mark = crc32c::crc32c_append(mark, &page);
    }
    Ok(mark)
}

fn bytes_shown(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "of unknown size".into(), |bytes| format!("{bytes} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &str, files: &[(&str, u64)]) -> FileList {
        let files = files.iter().map(|(name, bytes)| ListedFile(name.to_string(), Some(*bytes))).collect();
        FileList { folder: folder.into(), files, marks: Vec::new() }
    }

    #[test]
    fn what_changed_is_named() {
        let before = list("/data/", &[("0.tar", 10), ("1.tar", 20), ("2.tar", 30)]);
        let told = |now: &FileList| before.difference(now).unwrap();
        let added = list("/data/", &[("0.tar", 10), ("1.tar", 20), ("2.tar", 30), ("3.tar", 5)]);
        assert_eq!(told(&added), "/data/3.tar (5 bytes) was added (4 files, before 3)");
        let replaced = list("/data/", &[("0.tar", 10), ("1.tar", 21), ("2.tar", 31)]);
        assert_eq!(
            told(&replaced),
            "/data/1.tar has 21 bytes instead of 20 bytes; 1 more differ (3 files, before 3)"
        );
        let missing = list("/data/", &[("0.tar", 10), ("2.tar", 30)]);
        assert_eq!(told(&missing), "/data/1.tar (20 bytes) is missing (2 files, before 3)");
        let order = list("/data/", &[("1.tar", 20), ("0.tar", 10), ("2.tar", 30)]);
        assert_eq!(told(&order), "file 0 is /data/1.tar instead of 0.tar (3 files, before 3)");
        for other in [&added, &replaced, &missing, &order] {
            assert_ne!(before.hash(), other.hash());
        }
    }

    #[test]
    fn data_that_moved_as_a_whole_is_the_same() {
        let before = list("/data/", &[("0.tar", 10), ("1.tar", 20)]);
        let moved = list("/other/place/", &[("0.tar", 10), ("1.tar", 20)]);
        assert_eq!(before.difference(&moved), None);
        assert_eq!(before.hash(), moved.hash());
    }
}
