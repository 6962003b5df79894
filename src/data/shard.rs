//! One tar shard: which samples it holds, and reading one of them.
//!
//! Members that follow each other and share a key (their name up to the first dot of its last part) are one
//! sample, as in webdataset. Members that are not neighbours are never joined.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::archive::{Damage, Walk};
use super::caption::{self, CaptionMember, CaptionUse, LONGEST_CAPTION};
use super::json;
use super::location::Location;
use super::pulse::Pulse;
use super::source::{Defect, Picture, Raw, Skip};
use super::storage::{Storage, StorageError};
use super::unpack::Unpacked;
use crate::outside::shown;

/// Longest picture that is read, bytes.
pub(super) const LONGEST_PICTURE: u64 = 256 << 20;
/// Longest json that is read, bytes.
const LONGEST_META: u64 = 1 << 20;
/// Members of a sample; one with more of different endings is no sample.
const MOST_MEMBERS: usize = 64;
/// Longest class number that is read, bytes.
const LONGEST_LABEL: u64 = 32;

/// An indexed shard. One that is not there or cannot be read is a damaged one.
#[derive(Debug)]
pub struct Shard {
    location: Location,
    /// The location as text, for messages.
    name: Arc<str>,
    file: Option<File>,
    /// Length as it is stored.
    bytes: u64,
    pulse: Arc<Pulse>,
    samples: Vec<Sample>,
    damage: Option<Defect>,
}

/// Where the members of a sample are.
#[derive(Debug, Default)]
struct Sample {
    key: Box<str>,
    picture: Option<Span>,
    caption: Option<Span>,
    meta: Option<Span>,
    label: Option<Span>,
    /// Extensions seen so far, to tell a repeated one; emptied when the shard is indexed and nothing is missing.
    extensions: Vec<Box<str>>,
    fault: Option<Fault>,
}

/// Why a sample cannot be loaded, as far as the headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The sample before it has the same key.
    Duplicate,
    /// The damage of the shard lies in it.
    Damaged,
    /// It has too many members.
    Crowded,
}

/// Endings of members that are told where one is missing, and characters of each.
const TOLD_ENDINGS: usize = 6;
const LONGEST_TOLD: usize = 24;

impl Sample {
    /// The defect of a sample that lacks a member, with what is there instead.
    fn lacks(&self, reason: &'static str, what: &str) -> Defect {
        let told = |ending: &str| shown(&ending.chars().take(LONGEST_TOLD).collect::<String>()).into_owned();
        let some: Vec<String> =
            self.extensions.iter().take(TOLD_ENDINGS).map(|ending| format!(".{}", told(ending))).collect();
        let more = if self.extensions.len() > TOLD_ENDINGS { ", ..." } else { "" };
        let dots = match self.extensions.iter().any(|ending| ending.contains('.')) {
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
}

/// Bytes of a member.
#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    bytes: u64,
}

impl Shard {
    /// Walks the headers of a shard on this machine.
    pub fn open(path: &Path) -> Shard {
        let location = Location::File(path.to_owned());
        match Shard::open_at(&location, &Storage::default()) {
            Ok(shard) => shard,
            Err(error) => Shard::unreadable(&location, "shard_unreadable", error.to_string()),
        }
    }

    /// Walks the headers of a shard anywhere.
    ///
    /// # Errors
    /// A server does not give it; another time it may.
    pub fn open_at(location: &Location, storage: &Storage) -> Result<Shard, StorageError> {
        let Unpacked { file, bytes, damage, .. } = match storage.open(location) {
            Ok(unpacked) => unpacked,
            Err(StorageError::Io { source, location: Location::File(_) }) => {
                return Ok(Shard::unreadable(location, "shard_unreadable", source.to_string()))
            }
            Err(StorageError::Absent { detail, .. }) => {
                return Ok(Shard::unreadable(location, "shard_missing", detail))
            }
            Err(error) => return Err(error),
        };
        let mut shard = Shard::empty(location);
        shard.bytes = bytes;
        shard.pulse = storage.pulse().clone();
        let _reading = shard.pulse.reading(shard.name.clone());
        if let Err(error) = shard.index(&file) {
            shard.take_damage(Damage {
                defect: Defect::new("shard_unreadable", error.to_string()),
                member: None,
            });
        }
        if let Some(detail) = damage {
            let defect = Defect::new("shard_compressed", detail);
            match &mut shard.damage {
                // The archive ends where it could not be unpacked.
                Some(known) => *known = defect,
                None => shard.take_damage(Damage { defect, member: None }),
            }
        }
        shard.file = Some(file);
        for sample in &mut shard.samples {
            // Of what is not whole they are told when it is skipped.
            if sample.picture.is_some() && sample.caption.is_some() {
                sample.extensions = Vec::new();
            }
        }
        shard.samples.shrink_to_fit();
        Ok(shard)
    }

    fn empty(location: &Location) -> Shard {
        let name = location.to_string().into();
        let location = location.clone();
        Shard {
            location,
            name,
            file: None,
            bytes: 0,
            pulse: Arc::default(),
            samples: Vec::new(),
            damage: None,
        }
    }

    fn unreadable(location: &Location, reason: &'static str, detail: String) -> Shard {
        let mut shard = Shard::empty(location);
        shard.take_damage(Damage { defect: Defect::new(reason, detail), member: None });
        shard
    }

    fn index(&mut self, file: &File) -> std::io::Result<()> {
        for member in Walk::new(file)? {
            match member {
                Ok(member) => {
                    let Some((key, extension)) = split(&member.name) else { continue };
                    self.take_member(key, extension, Span { offset: member.offset, bytes: member.bytes });
                }
                Err(damage) => self.take_damage(damage),
            }
        }
        Ok(())
    }

    fn take_member(&mut self, key: &str, extension: &str, span: Span) {
        let extension = extension.to_lowercase();
        let mut fault = None;
        let continues = match self.samples.last_mut() {
            Some(last) if &*last.key == key => {
                // A member that repeats one of a complete sample begins a second sample of the same key;
                // while the sample is incomplete the later member stands, as if the archive were unpacked.
                let repeats = last.extensions.iter().any(|seen| **seen == *extension);
                let complete = last.picture.is_some() && last.caption.is_some();
                fault = (repeats && complete).then_some(Fault::Duplicate);
                fault.is_none()
            }
            _ => false,
        };
        if !continues {
            self.samples.push(Sample { key: key.into(), fault, ..Sample::default() });
        }
        let Some(sample) = self.samples.last_mut() else { return };
        let repeats = sample.extensions.iter().any(|seen| **seen == *extension);
        match extension.as_str() {
            // Of pictures in several formats the first is taken.
            "jpg" | "jpeg" | "png" | "webp" | "gif" | "bmp" if sample.picture.is_none() || repeats => {
                sample.picture = Some(span)
            }
            "txt" => sample.caption = Some(span),
            "json" => sample.meta = Some(span),
            "cls" => sample.label = Some(span),
            _ => {}
        }
        if sample.extensions.len() == MOST_MEMBERS {
            sample.fault = Some(Fault::Crowded);
        } else if !repeats {
            sample.extensions.push(extension.into());
        }
    }

    /// Marks the sample that the damage lies in. Damage that lies in no sample stands as one without a key, so
    /// that it is counted and named like any other.
    fn take_damage(&mut self, damage: Damage) {
        let key = damage.member.as_deref().and_then(split).map_or("", |(key, _)| key);
        match self.samples.last_mut() {
            Some(last) if *last.key == *key => last.fault = Some(Fault::Damaged),
            Some(last) if key.is_empty() && (last.picture.is_none() || last.caption.is_none()) => {
                last.fault = Some(Fault::Damaged)
            }
            _ => {
                let sample = Sample { key: key.into(), fault: Some(Fault::Damaged), ..Sample::default() };
                self.samples.push(sample);
            }
        }
        self.damage = Some(damage.defect);
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Length of the file as it is stored; 0 where it cannot be read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Samples, broken ones included.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What is wrong with the shard as a whole.
    pub fn damage(&self) -> Option<&Defect> {
        self.damage.as_ref()
    }

    /// The key of a sample; empty where it stands for damage outside of any sample.
    pub fn key(&self, sample: usize) -> &str {
        &self.samples[sample].key
    }

    /// Which of the samples of its key it is, from 1.
    pub fn occurrence(&self, sample: usize) -> u32 {
        let key = self.key(sample);
        self.samples[..=sample].iter().filter(|sample| &*sample.key == key).count() as u32
    }

    /// Reads a sample with the caption of its `txt` member; the picture stays encoded.
    ///
    /// # Errors
    /// The sample has to be left out; the reason says why.
    pub fn load(&self, sample: usize) -> Result<Raw, Skip> {
        self.load_with(sample, &CaptionMember::Txt, CaptionUse::Needed)
    }

    /// The same with captions from anywhere.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(&self, sample: usize, from: &CaptionMember, wanted: CaptionUse) -> Result<Raw, Skip> {
        let sample = &self.samples[sample];
        let _reading = self.pulse.reading(self.name.clone());
        self.read_sample(sample, from, wanted).map_err(|defect| {
            let shard = &self.name;
            let name =
                if sample.key.is_empty() { shard.to_string() } else { format!("{shard}: {}", sample.key) };
            defect.of(name)
        })
    }

    fn read_sample(&self, sample: &Sample, from: &CaptionMember, wanted: CaptionUse) -> Result<Raw, Defect> {
        match (sample.fault, &self.damage) {
            (Some(Fault::Duplicate), _) => {
                return Err(Defect::new("key_duplicate", "the sample before it has the same key"))
            }
            (Some(Fault::Damaged), Some(damage)) => return Err(damage.clone()),
            (Some(Fault::Crowded), _) => {
                let detail = format!("more than {MOST_MEMBERS} members of one key");
                return Err(Defect::new("sample_members", detail));
            }
            _ => {}
        }
        let picture = sample
            .picture
            .ok_or_else(|| sample.lacks("image_missing", "no jpg, jpeg, png, webp, gif or bmp member"))?;
        let meta = sample.meta.map(|span| self.meta(span)).transpose()?.unwrap_or(Ok(None));
        let captions = match (from, wanted) {
            (_, CaptionUse::Unused) => Vec::new(),
            (CaptionMember::Txt, _) => match sample.caption {
                Some(span) => vec![self.caption(span)?],
                None if wanted == CaptionUse::Optional => Vec::new(),
                None => return Err(sample.lacks("caption_missing", "no txt member")),
            },
            (CaptionMember::Json(field), _) => {
                match caption::in_field(field, meta.as_ref().map_err(Clone::clone)?) {
                    Some(captions) => captions?,
                    None if wanted == CaptionUse::Optional => Vec::new(),
                    None if sample.meta.is_none() => {
                        return Err(sample.lacks("caption_missing", "no json member"))
                    }
                    None => {
                        return Err(caption::no_field(field, meta.as_ref().ok().and_then(Option::as_ref)))
                    }
                }
            }
        };
        let label = match sample.label {
            Some(span) => self.read(span, LONGEST_LABEL)?.and_then(|bytes| read_label(&bytes)),
            None => None,
        };
        let picture = self
            .read(picture, LONGEST_PICTURE)?
            .ok_or_else(|| Defect::new("image_too_large", format!("over {LONGEST_PICTURE} bytes")))?;
        Ok(Raw { key: sample.key.to_string(), picture: Picture::Encoded(picture), captions, meta, label })
    }

    fn caption(&self, span: Span) -> Result<String, Defect> {
        let too_long = || Defect::new("caption_too_long", format!("over {LONGEST_CAPTION} bytes"));
        caption::read(&self.read(span, LONGEST_CAPTION)?.ok_or_else(too_long)?)
    }

    /// The json of a sample; inside, why it is none: only who asks for it misses it.
    fn meta(&self, span: Span) -> Result<Result<Option<Value>, Defect>, Defect> {
        let invalid = |what: String| Defect::new("json_invalid", what);
        Ok(match self.read(span, LONGEST_META)? {
            Some(bytes) => json::parse(&bytes).map(Some).map_err(invalid),
            None => Err(invalid(format!("over {LONGEST_META} bytes"))),
        })
    }

    /// The bytes of a member; `None` where there are more than `longest`.
    fn read(&self, span: Span, longest: u64) -> Result<Option<Vec<u8>>, Defect> {
        let unreadable = |detail: String| Defect::new("shard_unreadable", detail);
        let file = self.file.as_ref().ok_or_else(|| unreadable("the shard could not be opened".into()))?;
        if span.bytes > longest {
            return Ok(None);
        }
        let mut bytes = vec![0; span.bytes as usize];
        file.read_exact_at(&mut bytes, span.offset).map_err(|error| unreadable(error.to_string()))?;
        Ok(Some(bytes))
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

fn read_label(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
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

    #[test]
    fn a_sample_of_endless_members_is_left_out_in_little_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crowded.tar");
        let mut builder = tar::Builder::new(std::io::BufWriter::new(File::create(&path).unwrap()));
        let names =
            (0..20_000).map(|i| format!("a.x{i}")).chain(["a.jpg".into(), "a.txt".into(), "b.txt".into()]);
        for name in names {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            builder.append_data(&mut header, name, &b""[..]).unwrap();
        }
        builder.into_inner().unwrap();
        let shard = Shard::open(&path);
        assert_eq!(shard.len(), 2);
        assert_eq!(shard.load(0).unwrap_err().reason, "sample_members");
        assert_eq!(shard.load(1).unwrap_err().reason, "image_missing");
    }
}
