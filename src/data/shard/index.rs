//! The samples of a tar shard and where their members lie.
//!
//! Members that follow each other and share a key (their name up to the first dot of its last part) are one
//! sample, as in webdataset. Members that are not neighbours are never joined.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use crate::data::shard::archive::{Damage, Member, Walk, WalkError};
use crate::data::shard::sparse::{Piece, Sparse};
use crate::data::storage::disk::OpenFile;
use crate::data::Defect;
use crate::outside::shown;

/// Members of a sample; one with more of different endings is no sample.
pub(crate) const MOST_MEMBERS: usize = 64;
/// Bytes that an allocation takes beside what it holds, about.
const ALLOCATION: usize = 16;

/// Places of the members of a sample.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub key: Box<str>,
    pub image: Option<Span>,
    pub caption: Option<Span>,
    pub meta: Option<Span>,
    pub label: Option<Span>,
    /// A `.npy` member.
    pub label_set: Option<Span>,
    pub fault: Option<Fault>,
    /// Of a sample that lacks a member: the endings that it has, for the message.
    endings: Box<[Box<str>]>,
}

/// Endings of members that a message names where one is missing, and characters of each.
const SHOWN_ENDINGS: usize = 6;
const LONGEST_SHOWN_ENDING: usize = 24;

impl Sample {
    /// The defect of a sample that lacks a member, with what is there instead.
    pub fn lacks(&self, reason: &'static str, what: &str) -> Defect {
        let short =
            |ending: &str| shown(&ending.chars().take(LONGEST_SHOWN_ENDING).collect::<String>()).into_owned();
        let some: Vec<String> =
            self.endings.iter().take(SHOWN_ENDINGS).map(|ending| format!(".{}", short(ending))).collect();
        let more = if self.endings.len() > SHOWN_ENDINGS { ", ..." } else { "" };
        let dots = match self.endings.iter().any(|ending| ending.contains('.')) {
            true => "; a key ends at the first dot of a file name",
            false => "",
        };
        match some.is_empty() {
            true => Defect::new(reason, what),
            false => {
                Defect::new(reason, format!("{what}; its members end in {}{more}{dots}", some.join(", ")))
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.image.is_some() && self.caption.is_some()
    }
}

/// A fault for which a sample cannot be loaded, as far as the headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The sample before it has the same key.
    Duplicate,
    /// The damage of the shard lies in it.
    Damaged,
    /// It has too many members.
    Crowded,
}

/// Bytes of a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub offset: u64,
    pub bytes: u64,
    /// Of the block in front of it; `None` where that is no header.
    pub mark: Option<u32>,
}

/// Samples of a shard, as its headers tell them.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub samples: Vec<Sample>,
    /// Damage of the shard as a whole.
    pub damage: Option<Defect>,
    /// Stored pieces of members with holes, by their offset.
    pub sparse: BTreeMap<u64, Sparse>,
    /// True if the archive has its end.
    pub ended: bool,
    /// Names, places and lengths of all members in one number, to know the shard again by.
    pub stamp: u64,
}

/// An index that is being made.
#[derive(Default)]
struct Indexer {
    index: Index,
    /// Endings of the last sample so far, to tell a repeated one.
    endings: Vec<Box<str>>,
    /// Memory that the index takes, about.
    memory: usize,
}

impl Index {
    /// Walks the headers of a shard. An index of more than about `longest` bytes is that of a damaged shard.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(file: &OpenFile, longest: u64) -> io::Result<Self> {
        let mut indexer = Indexer::default();
        let mut stamp = DefaultHasher::new();
        file.length()?.hash(&mut stamp);
        let mut walk = Walk::new(file)?;
        for member in &mut walk {
            match member {
                Ok(member) => {
                    (&member.name, member.offset, member.bytes).hash(&mut stamp);
                    indexer.take(member);
                }
                Err(WalkError::Damage(damage)) => {
                    damage.defect.detail.hash(&mut stamp);
                    indexer.end_sample();
                    indexer.index.take_damage(damage);
                }
                Err(WalkError::Io(error)) => return Err(error),
            }
            if indexer.memory as u64 > longest {
                indexer.end_sample();
                let detail = format!(
                    "the places of its first {} samples take more than {:.0} MiB of memory, which is \
                     data.storage.index_mib",
                    indexer.index.samples.len(),
                    longest as f64 / f64::from(1 << 20)
                );
                indexer
                    .index
                    .take_damage(Damage { defect: Defect::new("shard_too_large", detail), member: None });
                break;
            }
        }
        indexer.end_sample();
        let mut index = indexer.index;
        index.samples.shrink_to_fit();
        index.ended = walk.has_end();
        index.stamp = stamp.finish();
        Ok(index)
    }

    /// Marks the sample that the damage lies in. Damage that lies in no sample stands as one without a key, so
    /// that it is counted and named like any other.
    pub fn take_damage(&mut self, damage: Damage) {
        let key = damage.member.as_deref().and_then(split).map_or("", |(key, _)| key);
        match self.samples.last_mut() {
            Some(last) if *last.key == *key => last.fault = Some(Fault::Damaged),
            Some(last) if key.is_empty() && !last.is_whole() => last.fault = Some(Fault::Damaged),
            _ => {
                let sample = Sample { key: key.into(), fault: Some(Fault::Damaged), ..Sample::default() };
                self.samples.push(sample);
            }
        }
        self.damage = Some(damage.defect);
    }
}

impl Indexer {
    fn take(&mut self, member: Member) {
        let Member { name, offset, bytes, mark, sparse } = member;
        let Some((key, ending)) = split(&name) else { return };
        if let Some(sparse) = sparse {
            self.memory += size_of_val(&*sparse.pieces) + size_of::<(u64, Sparse)>() + size_of::<Piece>();
            self.index.sparse.insert(offset, sparse);
        }
        self.take_member(key, &ending.to_lowercase(), Span { offset, bytes, mark });
    }

    /// The last sample has all of its members.
    fn end_sample(&mut self) {
        if self.endings.is_empty() {
            return;
        }
        let mut endings = std::mem::take(&mut self.endings);
        let Some(sample) = self.index.samples.last_mut().filter(|sample| !sample.is_whole()) else { return };
        endings.truncate(SHOWN_ENDINGS + 1);
        self.memory +=
            endings.iter().map(|ending| size_of_val(ending) + ending.len() + ALLOCATION).sum::<usize>();
        sample.endings = endings.into();
    }

    fn take_member(&mut self, key: &str, ending: &str, span: Span) {
        let mut fault = None;
        let repeated = self.endings.iter().any(|seen| **seen == *ending);
        let continues = match self.index.samples.last() {
            Some(last) if &*last.key == key => {
                // A member that repeats one of a complete sample begins a second sample of the same key;
                // while the sample is incomplete the later member stands, as if the archive were unpacked.
                fault = (repeated && last.is_whole()).then_some(Fault::Duplicate);
                fault.is_none()
            }
            _ => false,
        };
        if !continues {
            self.end_sample();
            self.memory += size_of::<Sample>() + key.len() + ALLOCATION;
            self.index.samples.push(Sample { key: key.into(), fault, ..Sample::default() });
        }
        let Some(sample) = self.index.samples.last_mut() else { return };
        let repeats = continues && repeated;
        match ending {
            // Of images in several formats the first is taken.
            "jpg" | "jpeg" | "png" | "webp" | "gif" | "bmp" if sample.image.is_none() || repeats => {
                sample.image = Some(span)
            }
            "txt" => sample.caption = Some(span),
            "json" => sample.meta = Some(span),
            "cls" => sample.label = Some(span),
            "npy" => sample.label_set = Some(span),
            _ => {}
        }
        if self.endings.len() == MOST_MEMBERS {
            sample.fault = Some(Fault::Crowded);
        } else if !repeats {
            self.endings.push(ending.into());
        }
    }
}

/// Key and extension of a member: split at the first dot of the last part of its name. `None` for names
/// without either, and for the `._*` files that macOS leaves in archives.
fn split(name: &str) -> Option<(&str, &str)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    let nameless = dot == file;
    (!nameless && dot + 1 < name.len()).then(|| (&name[..dot], &name[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_last_part() {
        assert_eq!(split("part.v1/sample.jpg"), Some(("part.v1/sample", "jpg")));
        assert_eq!(split("photo.final.v2.jpg"), Some(("photo", "final.v2.jpg")));
        assert_eq!(split("../../up.txt"), Some(("../../up", "txt")));
        assert_eq!(split("./here/sample.txt"), Some(("./here/sample", "txt")));
        for nothing in ["README", ".hidden", "._a.jpg", "a/._a.jpg", "folder.d/", "end.", ""] {
            assert_eq!(split(nothing), None, "{nothing}");
        }
    }
}
