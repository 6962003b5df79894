//! The index of a set of shards: the bytes and samples of each. The order of the samples follows from it alone.
//!
//! It is a JSON file, `{"flip_index": 1, "hash": ..., "shards": [{"url", "bytes", "samples"}, ...]}`, as `flip data index`
//! writes it; the index that webdataset's `widsindex` writes (`{"shardlist": [{"url", "nsamples", ...}, ...]}`) is read
//! likewise. Shards are known by their names below the folder that all of them have in common, so that data may move as a
//! whole.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::data::source::listing::common_folder;
use crate::data::storage::{Location, Storage};
use crate::data::DataError;
use crate::whole_file;

/// Version of the file.
const VERSION: u32 = 1;
/// Samples that a shard may have.
const MOST_SAMPLES: u64 = u32::MAX as u64;

/// A shard of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedShard {
    /// Path or URL, without user, password and query.
    #[serde(alias = "shard")]
    pub url: String,
    /// Length of the file as it is stored; none where nobody knows.
    #[serde(default, alias = "filesize", skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Samples, broken ones included.
    #[serde(alias = "nsamples")]
    pub samples: u64,
}

/// Shards with their bytes and samples, in the order of the set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardIndex {
    shards: Vec<IndexedShard>,
}

/// The file, of either program.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    flip_index: Option<u32>,
    #[serde(default)]
    hash: Option<String>,
    #[serde(alias = "shardlist")]
    shards: Vec<IndexedShard>,
}

impl ShardIndex {
    /// The index of these shards.
    pub fn new(shards: Vec<IndexedShard>) -> ShardIndex {
        ShardIndex { shards }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// The file cannot be read, is none, or was edited.
    pub fn read(path: &Path) -> Result<ShardIndex, DataError> {
        let bytes =
            std::fs::read(path).map_err(|source| DataError::Io { path: path.to_path_buf(), source })?;
        ShardIndex::parse(&bytes).map_err(|what| DataError::Invalid(format!("{}: {what}", path.display())))
    }

    fn parse(bytes: &[u8]) -> Result<ShardIndex, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| {
            format!(
                "{error}; expected an index of shards as `flip data index` or widsindex writes it: \
                 {{\"shards\": [{{\"url\", \"bytes\", \"samples\"}}, ...]}}"
            )
        })?;
        if written.flip_index.is_some_and(|version| version > VERSION) {
            return Err("a newer flip wrote it; make it anew with `flip data index`".into());
        }
        let index = ShardIndex::new(written.shards);
        if let Some(shard) = index.shards.iter().find(|shard| shard.samples > MOST_SAMPLES) {
            return Err(format!(
                "{}: {} samples; a shard has at most {MOST_SAMPLES}",
                shard.url, shard.samples
            ));
        }
        match written.hash.filter(|hash| *hash != index.hash()) {
            Some(hash) => Err(format!(
                "its shards have the hash {}, and it says {}: it was edited or cut. Make it anew with `flip data index`",
                short(&index.hash()),
                short(&hash)
            )),
            None => Ok(index),
        }
    }

    /// Writes the index, a line a shard.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("{{\"flip_index\": {VERSION}, \"hash\": \"{}\", \"shards\": [", self.hash());
        for (number, shard) in self.shards.iter().enumerate() {
            text.push_str(if number == 0 { "\n" } else { ",\n" });
            text.push_str(&serde_json::to_string(shard).map_err(io::Error::other)?);
        }
        text.push_str("\n]}\n");
        whole_file::replace(path, text.as_bytes())
    }

    /// The shards.
    pub fn shards(&self) -> &[IndexedShard] {
        &self.shards
    }

    /// Samples of all shards.
    pub fn samples(&self) -> u64 {
        self.shards.iter().map(|shard| shard.samples).sum()
    }

    /// Bytes of all shards; none where one of them is unknown.
    pub fn bytes(&self) -> Option<u64> {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// A hash of the names, their order, bytes and samples.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let names: Vec<&str> = self.names();
        for (shard, name) in self.shards.iter().zip(names) {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(shard.bytes.unwrap_or(u64::MAX).to_le_bytes());
            hash.update(shard.samples.to_le_bytes());
        }
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Names below the folder that all have in common.
    fn names(&self) -> Vec<&str> {
        let folder = common_folder(self.shards.iter().map(|shard| shard.url.as_str())).len();
        self.shards.iter().map(|shard| &shard.url[folder..]).collect()
    }

    /// The entries of these files, in their order: by their names below the folder that all files have in common, or by
    /// those of the files alone where no two are alike.
    ///
    /// # Errors
    /// A file has no entry, or an entry no file; it is named.
    pub fn of_files(&self, files: &[Location]) -> Result<ShardIndex, String> {
        let full: Vec<String> = files.iter().map(Location::to_string).collect();
        let folder = common_folder(full.iter().map(String::as_str)).len();
        let below: Vec<&str> = full.iter().map(|name| &name[folder..]).collect();
        let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
        let matched = matched(&self.names(), &below).or_else(|missing| {
            let own: Vec<String> = self.shards.iter().map(|shard| last(&shard.url)).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            let names: Vec<String> = below.iter().map(|name| last(name)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            self::matched(&own, &names).map_err(|_| missing)
        });
        let places = matched.map_err(|missing| match missing {
            Missing::Entry(file) => format!("{} is not in it", full[file]),
            Missing::File(entry) => format!("{} is in it, and not among the shards", self.shards[entry].url),
            Missing::Twice(entry) => format!("{} is in it twice", self.shards[entry].url),
        })?;
        let entry = |(place, url): (&usize, String)| IndexedShard { url, ..self.shards[*place].clone() };
        Ok(ShardIndex::new(places.iter().zip(full).map(entry).collect()))
    }

    /// In what the index is another one `now`: the first shard that differs. None where their hashes are equal.
    pub fn difference(&self, now: &ShardIndex) -> Option<String> {
        let (before, after) = (self.names(), now.names());
        for ((shard, name), (other, other_name)) in
            self.shards.iter().zip(before).zip(now.shards.iter().zip(after))
        {
            if name != other_name {
                return Some(format!("{} stands where {} stood", other.url, shard.url));
            }
            if (shard.samples, shard.bytes) != (other.samples, other.bytes) {
                let of = |shard: &IndexedShard| match shard.bytes {
                    Some(bytes) => format!("{} samples in {bytes} bytes", shard.samples),
                    None => format!("{} samples", shard.samples),
                };
                return Some(format!("{} has {} instead of {}", other.url, of(other), of(shard)));
            }
        }
        let (before, after) = (self.shards.len(), now.shards.len());
        (before != after).then(|| format!("{after} shards instead of {before}"))
    }
}

/// A set of shards that an index can be of.
pub trait Indexed: Send + Sync {
    /// The shards.
    fn files(&self) -> &[Location];

    /// The storage that opens them.
    fn storage(&self) -> &Storage;

    /// Their index, once it is known.
    fn index(&self) -> Option<&ShardIndex>;

    /// Takes an index, in the order of the files. Where there is one, that stays.
    fn settle(&self, index: ShardIndex);

    /// True if all shards are on this machine, so that counting them brings nothing over a network of its own.
    fn is_local(&self) -> bool {
        self.files().iter().all(|file| matches!(file, Location::File(_)))
    }
}

/// An entry or a file without the other.
enum Missing {
    Entry(usize),
    File(usize),
    Twice(usize),
}

/// The place in `entries` of each of `files`.
fn matched(entries: &[&str], files: &[&str]) -> Result<Vec<usize>, Missing> {
    let mut places = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        if places.insert(*entry, place).is_some() {
            return Err(Missing::Twice(place));
        }
    }
    let find = |(number, file): (usize, &&str)| places.get(file).copied().ok_or(Missing::Entry(number));
    let found: Vec<usize> = files.iter().enumerate().map(find).collect::<Result<_, _>>()?;
    let mut used = vec![false; entries.len()];
    found.iter().for_each(|&place| used[place] = true);
    match used.iter().position(|used| !used) {
        Some(entry) => Err(Missing::File(entry)),
        None => Ok(found),
    }
}

/// Hashes are known by their beginning.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(shards: &[(&str, u64, u64)]) -> ShardIndex {
        let shard = |&(url, bytes, samples): &(&str, u64, u64)| IndexedShard {
            url: url.into(),
            bytes: Some(bytes),
            samples,
        };
        ShardIndex::new(shards.iter().map(shard).collect())
    }

    #[test]
    fn what_is_written_is_read_and_what_was_edited_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.json");
        let index = index(&[("/a/0.tar", 10, 3), ("/a/b/1.tar", 20, 4)]);
        index.write(&path).unwrap();
        assert_eq!(ShardIndex::read(&path).unwrap(), index);
        assert_eq!((index.samples(), index.bytes()), (7, Some(30)));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"samples\":4", "\"samples\":5")).unwrap();
        let told = ShardIndex::read(&path).unwrap_err().to_string();
        assert!(told.contains("it was edited or cut"), "{told}");
        std::fs::write(&path, "{}").unwrap();
        let told = ShardIndex::read(&path).unwrap_err().to_string();
        assert!(told.contains("expected an index of shards"), "{told}");
    }

    #[test]
    fn the_index_of_wids_is_one() {
        let wids = br#"{"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": "x", "shardlist": [
            {"url": "0.tar", "nsamples": 3, "filesize": 10, "md5sum": "f"}, {"url": "1.tar", "nsamples": 4}]}"#;
        let read = ShardIndex::parse(wids).unwrap();
        assert_eq!((read.samples(), read.bytes()), (7, None));
        let files = ["https://host/x/1.tar", "https://host/x/0.tar"].map(|url| Location::Url(url.into()));
        let of_files = read.of_files(&files).unwrap();
        assert_eq!(of_files.shards()[0].samples, 4);
        assert_eq!(of_files.shards()[1].url, "https://host/x/0.tar");
    }

    #[test]
    fn shards_without_an_entry_and_entries_without_a_shard_are_named() {
        let index = index(&[("/a/0.tar", 10, 3), ("/a/1.tar", 20, 4)]);
        let files = |names: &[&str]| -> Vec<Location> {
            names.iter().map(|name| Location::File(name.into())).collect()
        };
        assert_eq!(index.of_files(&files(&["/b/0.tar", "/b/1.tar"])).unwrap().hash(), index.hash());
        let told = index.of_files(&files(&["/b/0.tar", "/b/2.tar"])).unwrap_err();
        assert_eq!(told, "/b/2.tar is not in it");
        assert_eq!(
            index.of_files(&files(&["/b/1.tar"])).unwrap_err(),
            "/a/0.tar is in it, and not among the shards"
        );
    }

    #[test]
    fn the_first_shard_that_differs_is_named() {
        let before = index(&[("/a/0.tar", 10, 3), ("/a/1.tar", 20, 4)]);
        let moved = index(&[("/c/0.tar", 10, 3), ("/c/1.tar", 20, 4)]);
        assert_eq!((before.difference(&moved), before.hash() == moved.hash()), (None, true));
        let cut = index(&[("/a/0.tar", 10, 3), ("/a/1.tar", 15, 3)]);
        let told = before.difference(&cut).unwrap();
        assert_eq!(told, "/a/1.tar has 3 samples in 15 bytes instead of 4 samples in 20 bytes");
        assert_ne!(before.hash(), cut.hash());
    }
}
