//! The list of samples that are left out of training.
//!
//! A line is the sample of a shard, as `flip data inspect --duplicates FILE` writes it, or a key alone:
//!
//! ```text
//! {"shard":"data/00012.tar","key":"000120045"}
//! {"shard":"data/00012.tar","key":"000120051","occurrence":2}
//! 000990001
//! ```
//!
//! Keys repeat from shard to shard in many sets, so a key alone leaves out the samples of that key in every shard.
//! A shard is named by its path, or by as much of the end of its path as no other shard has; its second, third, ...
//! sample of a key is named by `occurrence`. Memory holds sixteen bytes a line.

use std::collections::hash_map::DefaultHasher;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::source::{Source, Ticket};
use crate::data::text::text_file::Lines;
use crate::data::DataError;

/// Longest line, bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// A sample of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Shard, as the source names it.
    pub shard: String,
    /// Key of the sample in the shard.
    pub key: String,
    /// 1 for the first sample of its key in the shard, 2 for the second.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub occurrence: u32,
}

fn first() -> u32 {
    1
}
fn is_first(occurrence: &u32) -> bool {
    *occurrence == 1
}

/// A list that was read.
#[derive(Debug, Clone, Default)]
pub struct Excluded {
    /// Hashes of keys that are left out of every shard, sorted.
    keys: Vec<u64>,
    /// Hashes of shard and key, and the occurrence, sorted.
    samples: Vec<(u64, u32)>,
}

impl Excluded {
    /// Reads a list for data of these shards.
    ///
    /// # Errors
    /// The list cannot be read, a line names a shard that may be one of several, or none of its shards is there.
    pub fn read(path: &Path, shards: &[String]) -> Result<Self, DataError> {
        let failed = |source| DataError::Io { path: path.into(), source };
        let invalid = |what: String| DataError::Invalid(format!("{}: {what}", path.display()));
        let input = BufReader::new(File::open(path).map_err(failed)?);
        let mut lines = Lines::begin(input, LONGEST_LINE).map_err(failed)?.map_err(invalid)?;
        let mut excluded = Excluded::default();
        let mut known = Shards::new(shards);
        while let Some(line) = lines.next().map_err(failed)? {
            let in_line = |what: String| invalid(format!("line {}: {what}", lines.place().1));
            let line = line.map_err(in_line)?;
            if !line.starts_with('{') {
                excluded.keys.push(hash(&line));
                continue;
            }
            let entry: Entry = serde_json::from_str(&line)
                .map_err(|error| in_line(format!("expected {{\"shard\": ..., \"key\": ...}}: {error}")))?;
            if let Some(shard) = known.find(&entry.shard).map_err(in_line)? {
                excluded.samples.push((hash(&(shard, &entry.key)), entry.occurrence));
            }
        }
        known.check().map_err(invalid)?;
        if !excluded.keys.is_empty() && !shards.is_empty() {
            tracing::warn!(
                target: "flip::data",
                "{}: {} lines are keys without a shard: the samples of these keys are left out of every shard",
                path.display(), excluded.keys.len()
            );
        }
        excluded.keys.sort_unstable();
        excluded.keys.dedup();
        excluded.samples.sort_unstable();
        excluded.samples.dedup();
        Ok(excluded)
    }

    /// True if a sample of a source is in the list.
    pub fn has(&self, source: &dyn Source, ticket: &Ticket, key: &str) -> bool {
        if self.keys.binary_search(&hash(key)).is_ok() {
            return true;
        }
        if self.samples.is_empty() {
            return false;
        }
        let Some(shard) = source.shard_of(ticket) else { return false };
        let sample = hash(&(shard.as_str(), key));
        let from = self.samples.partition_point(|(known, _)| *known < sample);
        let mut listed = self.samples[from..].iter().take_while(|(known, _)| *known == sample).peekable();
        // Only samples whose key is in the list are counted among those of their key.
        listed.peek().is_some() && {
            let occurrence = source.occurrence(ticket);
            listed.any(|(_, listed)| *listed == occurrence)
        }
    }
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The shards of the data, found by how a list names them.
struct Shards<'s> {
    /// By file name: shard and its whole path.
    by_name: HashMap<String, Vec<(&'s str, PathBuf)>>,
    /// Shards by the names that a list uses for them.
    found: HashMap<String, Option<&'s str>>,
}

impl<'s> Shards<'s> {
    fn new(shards: &'s [String]) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for shard in shards {
            let same = by_name.entry(file_name(shard)).or_default();
            // A mix may have a shard in two of its parts.
            if same.iter().all(|(known, _)| known != shard) {
                same.push((shard.as_str(), whole(shard)));
            }
        }
        Shards { by_name, found: HashMap::new() }
    }

    fn find(&mut self, listed: &str) -> Result<Option<&'s str>, String> {
        if let Some(found) = self.found.get(listed) {
            return Ok(*found);
        }
        let same_name = self.by_name.get(&file_name(listed)).map_or(&[][..], Vec::as_slice);
        let end = listed.strip_prefix("./").unwrap_or(listed);
        let mut found: Vec<&str> =
            same_name.iter().filter(|(_, whole)| whole.ends_with(end)).map(|(shard, _)| *shard).collect();
        if found.is_empty() {
            let file = std::fs::canonicalize(listed).ok();
            let same = |whole: &PathBuf| file.is_some() && std::fs::canonicalize(whole).ok() == file;
            found = same_name.iter().filter(|(_, whole)| same(whole)).map(|(shard, _)| *shard).collect();
        }
        if let [one, other, ..] = found[..] {
            return Err(format!("{listed:?} may be {one:?} or {other:?}; write more of its path"));
        }
        self.found.insert(listed.to_owned(), found.first().copied());
        Ok(found.first().copied())
    }

    /// Checks that the list is one of this data.
    fn check(&self) -> Result<(), String> {
        let absent = self.found.iter().filter(|(_, found)| found.is_none()).map(|(listed, _)| listed);
        let (count, first) = (absent.clone().count(), absent.min());
        let Some(first) = first else { return Ok(()) };
        if count < self.found.len() {
            let of = self.found.len();
            tracing::warn!(
                target: "flip::data",
                "{count} of the {of} shards of the list of excluded samples are not in the data; the first is {first:?}"
            );
            return Ok(());
        }
        let there = self.by_name.values().flatten().map(|(shard, _)| *shard).min();
        Err(match there {
            Some(there) => format!(
                "none of the shards that it names is in the data: {first:?} is in the list, {there:?} in the data. \
                 Inspect the data of this recipe, or correct the paths in the list"
            ),
            None => format!("it names shards like {first:?}, and the data has none; write keys alone"),
        })
    }
}

fn file_name(shard: &str) -> String {
    shard.rsplit('/').next().unwrap_or(shard).to_owned()
}

fn whole(shard: &str) -> PathBuf {
    let path = PathBuf::from(shard);
    if shard.contains("://") {
        path
    } else {
        std::path::absolute(&path).unwrap_or(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, shards: &[&str]) -> Result<Excluded, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("list.jsonl");
        std::fs::write(&list, text).expect("written");
        let shards: Vec<String> = shards.iter().map(|&shard| shard.into()).collect();
        Excluded::read(&list, &shards).map_err(|error| error.to_string())
    }

    #[test]
    fn a_shard_is_named_by_the_end_of_its_path() {
        let two = ["/data/A/0.tar", "/data/B/0.tar", "https://host/C/0.tar"];
        let sample = |shard: &str, key: &str| (hash(&(shard, key)), 1);
        let list = "\u{feff}{\"shard\": \"A/0.tar\", \"key\": \"k\"}\r\n{\"shard\": \"C/0.tar\", \"key\": \"l\"}\r\n";
        let excluded = read(list, &two).expect("read");
        let mut expected = vec![sample(two[0], "k"), sample(two[2], "l")];
        expected.sort_unstable();
        assert_eq!(excluded.samples, expected);
        let line = |shard: &str| format!("{{\"shard\": \"{shard}\", \"key\": \"k\"}}\n");
        assert_eq!(read(&line("/data/B/0.tar"), &two).expect("read").samples, [sample(two[1], "k")]);
        let message = read(&line("0.tar"), &two).expect_err("one of three");
        assert!(message.contains("line 1: \"0.tar\" may be \"/data/A/0.tar\" or"), "{message}");
        // The end of a file's name is not the end of a path.
        let message = read(&line("D/0.tar"), &two).expect_err("none");
        assert!(
            message.contains("none of the shards that it names is in the data: \"D/0.tar\""),
            "{message}"
        );
        assert_eq!(read(&(line("D/0.tar") + &line("A/0.tar")), &two).expect("some").samples.len(), 1);
        assert!(read(&line("0.tar"), &[]).expect_err("no shards").contains("the data has none"));
        assert!(read("{\"key\": 1}", &two).expect_err("no shard").contains("line 1: expected"));
    }

    #[test]
    fn entries_hold_any_key_in_one_line() {
        let entry = Entry { shard: "a\nb.tar".into(), key: "k\u{1b}[31m\n\"l".into(), occurrence: 1 };
        let line = serde_json::to_string(&entry).expect("written");
        assert!(!line.contains(|c: char| c.is_control()) && !line.contains("occurrence"), "{line}");
        assert_eq!(serde_json::from_str::<Entry>(&line).expect("read"), entry);
        let second = Entry { occurrence: 2, ..entry };
        let line = serde_json::to_string(&second).expect("written");
        assert_eq!(serde_json::from_str::<Entry>(&line).expect("read"), second);
    }
}
