//! One tar shard: which samples it holds, and reading one of them.
//!
//! Members that follow each other and share a key (their name up to the first dot of its last part) are one
//! sample, as in webdataset. Members that are not neighbours are never joined.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::archive::{Damage, Walk};
use super::location::Location;
use super::pulse::Pulse;
use super::source::{Defect, Picture, Raw, Skip};
use super::storage::{Storage, StorageError};
use super::unpack::Unpacked;

/// Longest picture that is read, bytes.
pub(super) const LONGEST_PICTURE: u64 = 256 << 20;
/// Longest caption that is read, bytes.
const LONGEST_CAPTION: u64 = 64 << 10;
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
    /// Extensions seen so far, to tell a repeated one; emptied when the shard is indexed.
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
            sample.extensions = Vec::new();
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

    /// Reads a sample; the picture stays encoded.
    ///
    /// # Errors
    /// The sample has to be left out; the reason says why.
    pub fn load(&self, sample: usize) -> Result<Raw, Skip> {
        self.load_if(sample, true)
    }

    /// The same, and a sample without a caption has none.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_labelled(&self, sample: usize) -> Result<Raw, Skip> {
        self.load_if(sample, false)
    }

    fn load_if(&self, sample: usize, needs_caption: bool) -> Result<Raw, Skip> {
        let sample = &self.samples[sample];
        let _reading = self.pulse.reading(self.name.clone());
        self.read_sample(sample, needs_caption).map_err(|defect| {
            let shard = &self.name;
            let name =
                if sample.key.is_empty() { shard.to_string() } else { format!("{shard}: {}", sample.key) };
            defect.of(name)
        })
    }

    fn read_sample(&self, sample: &Sample, needs_caption: bool) -> Result<Raw, Defect> {
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
            .ok_or_else(|| Defect::new("image_missing", "no jpg, jpeg, png, webp, gif or bmp member"))?;
        let captions = match sample.caption {
            Some(span) => vec![self.caption(span)?],
            None if needs_caption => return Err(Defect::new("caption_missing", "no txt member")),
            None => Vec::new(),
        };
        let meta = match sample.meta {
            Some(span) => self.read(span, LONGEST_META)?.and_then(|bytes| read_meta(&bytes)),
            None => None,
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
        read_caption(&self.read(span, LONGEST_CAPTION)?.ok_or_else(too_long)?)
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

/// Text as stored, without byte order mark and final line break.
pub(super) fn read_caption(bytes: &[u8]) -> Result<String, Defect> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Defect::new("caption_encoding", format!("not UTF-8: {error}")))?;
    if text.contains('\0') {
        return Err(Defect::new("caption_encoding", "a NUL inside; is it UTF-16?"));
    }
    if text.chars().all(|c| c.is_whitespace() || c.is_control()) {
        return Err(Defect::new("caption_empty", "nothing but white space"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).replace("\r\n", "\n"))
}

/// A json value; what cannot be read is as good as absent.
fn read_meta(bytes: &[u8]) -> Option<serde_json::Value> {
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).ok()
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

    #[test]
    fn captions_are_text_or_say_why_not() {
        let reason = |bytes: &[u8]| read_caption(bytes).map_err(|defect| defect.reason);
        assert_eq!(reason(b"\xef\xbb\xbfa cat\r\n"), Ok("a cat".into()));
        assert_eq!(reason(b" two\r\nlines \n"), Ok(" two\nlines ".into()));
        assert_eq!(reason(b"\xff\xfea\0"), Err("caption_encoding"));
        assert_eq!(reason(b"a\0b"), Err("caption_encoding"));
        assert_eq!(reason(b" \r\n\t"), Err("caption_empty"));
        assert_eq!(reason(b"\x01\x02"), Err("caption_empty"));
        assert_eq!(reason(b""), Err("caption_empty"));
    }
}
