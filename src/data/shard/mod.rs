//! One tar shard: which samples it holds, and reading one of them.

pub mod archive;
mod index;
mod label_set;
mod not_archive;
mod sparse;

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::data::decode::LONGEST_IMAGE;
use crate::data::shard::archive::{mark, Damage};
use crate::data::shard::index::{Fault, Index, Sample, Span, MOST_MEMBERS};
use crate::data::storage::attempts::{pause, Attempts};
use crate::data::storage::disk::OpenFile;
use crate::data::storage::unpack::Unpacked;
use crate::data::storage::{Location, Progress, Storage, StorageError};
use crate::data::text::caption::LONGEST_CAPTION;
use crate::data::text::{caption, json, CaptionMember, CaptionUse};
use crate::data::{Cause, Defect, Image, LoadError, Raw};

/// Longest json that is read, bytes.
const LONGEST_META: u64 = 1 << 20;
/// Longest class number that is read, bytes.
const LONGEST_LABEL: u64 = 32;
/// Most bytes of a sample that are read in vain to read it at once: headers, padding, members that nobody wants.
const MOST_BETWEEN: u64 = 64 << 10;
/// Length of a tar header.
const HEADER: u64 = 512;
/// Times that a damaged shard is fetched from its server before the damage is the shard's.
const FETCHED: u64 = 2;

/// An indexed shard.
#[derive(Debug)]
pub struct Shard {
    location: Location,
    /// The location as text, for messages.
    name: Arc<str>,
    /// `None` where the server has no such shard.
    file: Option<OpenFile>,
    /// True if the file is the one at the location, neither fetched nor unpacked.
    in_place: bool,
    /// Length as it is stored.
    bytes: u64,
    attempts: Attempts,
    progress: Arc<Progress>,
    index: Index,
}

impl Shard {
    /// Walks the headers of a shard on this machine.
    ///
    /// # Errors
    /// As [`open_at`](Self::open_at).
    pub fn open(path: &Path) -> Result<Shard, StorageError> {
        Shard::open_at(&Location::File(path.to_owned()), &Storage::default())
    }

    /// Walks the headers of a shard anywhere. A damaged shard, and one that its server does not have, is one with
    /// [`damage`](Self::damage).
    ///
    /// # Errors
    /// The machine or the server does not give it, however often it is asked.
    pub fn open_at(location: &Location, storage: &Storage) -> Result<Shard, StorageError> {
        let (mut fetched, mut before) = (0, None);
        loop {
            fetched += 1;
            let mut shard = storage.attempts().make(|| Shard::attempt(location, storage))?;
            let damage = shard.index.damage.clone();
            let complete = shard.index.ended || before == Some(shard.index.stamp);
            if shard.file.is_none() || (damage.is_none() && complete) {
                return Ok(shard);
            }
            // A file on this machine is what it is; what came over a network may be what a server says of its troubles,
            // or a part.
            let Some(cached) = storage.forget(location) else { return Ok(shard) };
            before = Some(shard.index.stamp);
            let is_shard = damage.as_ref().is_some_and(|damage| damage.reason != "shard_other");
            let detail = damage.as_ref().map_or("it lacks the end of an archive", |damage| &damage.detail);
            if fetched < if is_shard { FETCHED } else { storage.attempts().most.max(FETCHED) } {
                tracing::warn!(target: "flip::data", "{location}: {detail}; it is fetched again");
                std::thread::sleep(pause(fetched));
                continue;
            }
            let detail = format!(
                "{detail}; fetched {fetched} times; what came, {} bytes, is not kept in the cache ({})",
                shard.bytes,
                cached.display()
            );
            match damage {
                Some(Defect { reason, .. }) if is_shard => {
                    shard.index.damage = Some(Defect { reason, detail })
                }
                _ => return Err(StorageError::Remote { location: location.clone(), detail }),
            }
            return Ok(shard);
        }
    }

    fn attempt(location: &Location, storage: &Storage) -> Result<Shard, StorageError> {
        let Unpacked { file, bytes, temporary, damage } = match storage.open(location) {
            Ok(unpacked) => unpacked,
            Err(StorageError::Absent { detail, .. }) => return Ok(Shard::missing(location, storage, detail)),
            Err(error) => return Err(error),
        };
        let name: Arc<str> = location.to_string().into();
        let _reading = storage.progress().reading(name.clone());
        let failed = |source| StorageError::Io { location: location.clone(), source };
        let mut index = Index::of(&file, storage.longest_index()).map_err(failed)?;
        if let Some(detail) = damage {
            let defect = Defect::new("shard_compressed", detail);
            match &mut index.damage {
                // The archive ends where it could not be unpacked.
                Some(known) => *known = defect,
                None => index.take_damage(Damage { defect, member: None }),
            }
        }
        let in_place = !temporary && matches!(location, Location::File(_));
        let (attempts, progress) = (storage.attempts(), storage.progress().clone());
        let (location, file) = (location.clone(), Some(file));
        Ok(Shard { location, name, file, in_place, bytes, attempts, progress, index })
    }

    /// A shard that its server does not have: its damage is all there is of it.
    fn missing(location: &Location, storage: &Storage, detail: String) -> Shard {
        let mut index = Index::default();
        index.take_damage(Damage { defect: Defect::new("shard_missing", detail), member: None });
        Shard {
            location: location.clone(),
            name: location.to_string().into(),
            file: None,
            in_place: false,
            bytes: 0,
            attempts: storage.attempts(),
            progress: storage.progress().clone(),
            index,
        }
    }

    /// Location of the shard.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Length of the file as it is stored; 0 where it cannot be read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Samples, broken ones included.
    pub fn len(&self) -> usize {
        self.index.samples.len()
    }

    /// True if it has no samples.
    pub fn is_empty(&self) -> bool {
        self.index.samples.is_empty()
    }

    /// Damage of the shard as a whole.
    pub fn damage(&self) -> Option<&Defect> {
        self.index.damage.as_ref()
    }

    /// The key of a sample; empty where it stands for damage outside of any sample, or where there is none.
    pub fn key(&self, sample: usize) -> &str {
        self.index.samples.get(sample).map_or("", |sample| &sample.key)
    }

    /// A number that another shard has hardly ever.
    pub(crate) fn stamp(&self) -> u64 {
        self.index.stamp
    }

    /// Number of this sample among those of its key, from 1.
    pub fn occurrence(&self, sample: usize) -> u32 {
        let key = self.key(sample);
        let before = self.index.samples.iter().take(sample + 1);
        before.filter(|sample| &*sample.key == key).count() as u32
    }

    /// Reads a sample with the caption of its `txt` member; the image stays encoded.
    ///
    /// # Errors
    /// The sample has to be left out, and the reason says why; or the machine does not give it.
    pub fn load(&self, sample: usize) -> Result<Raw, LoadError> {
        self.load_with(sample, &CaptionMember::Txt, CaptionUse::Needed)
    }

    /// The same with captions from anywhere.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with(
        &self,
        number: usize,
        from: &CaptionMember,
        wanted: CaptionUse,
    ) -> Result<Raw, LoadError> {
        let _reading = self.progress.reading(self.name.clone());
        let there = self.index.samples.get(number).ok_or_else(|| {
            let detail = format!("sample {number} of {}", self.len());
            Cause::from(StorageError::Changed { location: self.location.clone(), detail })
        });
        there.and_then(|sample| self.read_sample(sample, from, wanted)).map_err(|cause| {
            cause.of(|| match self.key(number) {
                "" => self.name.to_string(),
                key => format!("{}: {key}", self.name),
            })
        })
    }

    /// Classes of a sample that shows several: the places in its `.npy` member that are not 0.
    ///
    /// # Errors
    /// As [`load`](Self::load); it has no such member.
    pub fn load_label_set(&self, number: usize) -> Result<Vec<u32>, LoadError> {
        let _reading = self.progress.reading(self.name.clone());
        let read = || -> Result<Vec<u32>, Cause> {
            let sample = self.index.samples.get(number).ok_or_else(|| {
                let detail = format!("sample {number} of {}", self.len());
                Cause::from(StorageError::Changed { location: self.location.clone(), detail })
            })?;
            let span = sample.label_set.ok_or_else(|| sample.lacks("label_missing", "no npy member"))?;
            let members = self.members([Some(span), None, None, None])?;
            let bytes = self.read(&members, span, label_set::LONGEST)?;
            let too_long = || Defect::new("label_npy", format!("over {} bytes", label_set::LONGEST));
            Ok(label_set::read(&bytes.ok_or_else(too_long)?)?)
        };
        read().map_err(|cause| cause.of(|| format!("{}: {}", self.name, self.key(number))))
    }

    fn read_sample(&self, sample: &Sample, from: &CaptionMember, wanted: CaptionUse) -> Result<Raw, Cause> {
        match (sample.fault, &self.index.damage) {
            (Some(Fault::Duplicate), _) => {
                return Err(Defect::new("key_duplicate", "the sample before it has the same key").into())
            }
            (Some(Fault::Damaged), Some(damage)) => return Err(damage.clone().into()),
            (Some(Fault::Crowded), _) => {
                let detail = format!("more than {MOST_MEMBERS} members of one key");
                return Err(Defect::new("sample_members", detail).into());
            }
            _ => {}
        }
        let image = sample
            .image
            .ok_or_else(|| sample.lacks("image_missing", "no jpg, jpeg, png, webp, gif or bmp member"))?;
        let caption = sample.caption.filter(|_| *from == CaptionMember::Txt && wanted != CaptionUse::Unused);
        let mut members = self.members([Some(image), caption, sample.meta, sample.label])?;
        let meta = sample.meta.map(|span| self.meta(&members, span)).transpose()?.unwrap_or(Ok(None));
        let captions = self.captions(&members, sample, &meta, from, wanted)?;
        let label = match sample.label {
            Some(span) => self.read(&members, span, LONGEST_LABEL)?.and_then(|bytes| read_label(&bytes)),
            None => None,
        };
        let image = match members.take(image) {
            Some(image) => image,
            None => self
                .read(&members, image, LONGEST_IMAGE)?
                .ok_or_else(|| Defect::new("image_too_large", format!("over {LONGEST_IMAGE} bytes")))?,
        };
        Ok(Raw {
            key: sample.key.to_string(),
            image: Image::Encoded(image),
            captions,
            meta,
            label,
            label_set: None,
        })
    }

    fn captions(
        &self,
        members: &Members,
        sample: &Sample,
        meta: &Result<Option<Value>, Defect>,
        from: &CaptionMember,
        wanted: CaptionUse,
    ) -> Result<Vec<String>, Cause> {
        let found = match (from, wanted) {
            (_, CaptionUse::Unused) => return Ok(Vec::new()),
            (CaptionMember::Txt, _) => sample.caption.map(|span| Ok(vec![self.caption(members, span)?])),
            (CaptionMember::Json(field), _) => {
                let meta = meta.as_ref().map_err(Clone::clone)?;
                caption::in_field(field, meta).map(|captions| captions.map_err(Cause::from))
            }
        };
        match (found, from) {
            (Some(captions), _) => captions,
            (None, _) if wanted == CaptionUse::Optional => Ok(Vec::new()),
            (None, CaptionMember::Txt) => Err(sample.lacks("caption_missing", "no txt member").into()),
            (None, CaptionMember::Json(_)) if sample.meta.is_none() => {
                Err(sample.lacks("caption_missing", "no json member").into())
            }
            (None, CaptionMember::Json(field)) => {
                Err(caption::no_field(field, meta.as_ref().ok().and_then(Option::as_ref)).into())
            }
        }
    }

    fn caption(&self, members: &Members, span: Span) -> Result<String, Cause> {
        let too_long = || Defect::new("caption_too_long", format!("over {LONGEST_CAPTION} bytes"));
        Ok(caption::read(&self.read(members, span, LONGEST_CAPTION)?.ok_or_else(too_long)?)?)
    }

    /// The json of a sample; inside, why it is none: only who asks for it misses it.
    fn meta(&self, members: &Members, span: Span) -> Result<Result<Option<Value>, Defect>, StorageError> {
        let invalid = |what: String| Defect::new("json_invalid", what);
        Ok(match self.read(members, span, LONGEST_META)? {
            Some(bytes) => json::parse(&bytes).map(Some).map_err(invalid),
            None => Err(invalid(format!("over {LONGEST_META} bytes"))),
        })
    }

    /// The members of a sample, in one read where they lie side by side, as they nearly always do.
    fn members(&self, spans: [Option<Span>; 4]) -> Result<Members, StorageError> {
        let spans = || spans.iter().flatten();
        let begin = |span: &Span| match span.mark {
            Some(_) => span.offset.saturating_sub(HEADER),
            None => span.offset,
        };
        let at = spans().map(begin).min().unwrap_or_default();
        let length =
            spans().map(|span| span.offset + span.bytes).max().unwrap_or_default().saturating_sub(at);
        let needed: u64 = spans().map(|span| span.bytes).sum();
        let apart = length > needed + MOST_BETWEEN || length > LONGEST_IMAGE;
        if apart || spans().any(|span| self.index.sparse.contains_key(&span.offset)) {
            return Ok(Members::default());
        }
        let mut bytes = vec![0; length as usize];
        self.try_reading(|file| {
            file.read_exact_at(&mut bytes, at)?;
            for span in spans() {
                let header = begin(span) - at;
                let header = &bytes[header as usize..(span.offset - at) as usize];
                if span.mark.is_some_and(|known| !header.is_empty() && mark(header) != known) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Ok(())
        })?;
        Ok(Members { at, bytes })
    }

    /// The bytes of a member; `None` where there are more than `longest`.
    fn read(&self, members: &Members, span: Span, longest: u64) -> Result<Option<Vec<u8>>, StorageError> {
        if span.bytes > longest {
            return Ok(None);
        }
        if let Some(bytes) = members.get(span) {
            return Ok(Some(bytes.to_vec()));
        }
        let mut bytes = vec![0; span.bytes as usize];
        self.try_reading(|file| self.read_from(file, span, &mut bytes))?;
        Ok(Some(bytes))
    }

    /// Reads something of the shard, and again where the machine refused it.
    fn try_reading(&self, mut read: impl FnMut(&OpenFile) -> io::Result<()>) -> Result<(), StorageError> {
        let mut first = true;
        self.attempts.make(|| {
            let read = match (&self.file, &self.location) {
                // The file under the handle may be gone for good, as NFS says it, and be there under its name.
                (Some(_), Location::File(path)) if self.in_place && !first => {
                    OpenFile::open(path).and_then(|file| read(&file))
                }
                (Some(file), _) => read(file),
                (None, _) => Err(io::ErrorKind::UnexpectedEof.into()),
            };
            first = false;
            read.map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => self.changed("it ends before a sample that it had"),
                io::ErrorKind::InvalidData => self.changed("another header stands before a sample"),
                _ => StorageError::Io { location: self.location.clone(), source },
            })
        })
    }

    fn changed(&self, detail: &str) -> StorageError {
        StorageError::Changed { location: self.location.clone(), detail: detail.into() }
    }

    /// Reads a member behind the header that it had when the shard was indexed.
    fn read_from(&self, file: &OpenFile, span: Span, bytes: &mut [u8]) -> io::Result<()> {
        if let (Some(known), Some(before)) = (span.mark, span.offset.checked_sub(HEADER)) {
            let mut header = [0; HEADER as usize];
            file.read_exact_at(&mut header, before)?;
            if mark(&header) != known {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let Some(sparse) = self.index.sparse.get(&span.offset) else {
            return file.read_exact_at(bytes, span.offset);
        };
        let mut at = span.offset;
        for piece in &sparse.pieces {
            let place = piece.offset as usize..(piece.offset + piece.bytes) as usize;
            // The map was held against the length of the member.
            let Some(part) = bytes.get_mut(place) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            file.read_exact_at(part, at)?;
            at += piece.bytes;
        }
        Ok(())
    }
}

/// Bytes of a shard that hold the members of a sample; none where they were not read together.
#[derive(Default)]
struct Members {
    at: u64,
    bytes: Vec<u8>,
}

impl Members {
    fn range(&self, span: Span) -> Option<std::ops::Range<usize>> {
        let from = usize::try_from(span.offset.checked_sub(self.at)?).ok()?;
        let to = from.checked_add(usize::try_from(span.bytes).ok()?)?;
        (to <= self.bytes.len()).then_some(from..to)
    }

    fn get(&self, span: Span) -> Option<&[u8]> {
        self.bytes.get(self.range(span)?)
    }

    /// The bytes of a member, for which the others are given up.
    fn take(&mut self, span: Span) -> Option<Vec<u8>> {
        let range = self.range(span)?;
        self.bytes.truncate(range.end);
        self.bytes.drain(..range.start);
        Some(std::mem::take(&mut self.bytes))
    }
}

fn read_label(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

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
        let shard = Shard::open(&path).unwrap();
        assert_eq!(shard.len(), 2);
        assert_eq!(shard.load(0).unwrap_err().skip().unwrap().reason, "sample_members");
        assert_eq!(shard.load(1).unwrap_err().skip().unwrap().reason, "image_missing");
    }
}
