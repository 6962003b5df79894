//! An index as a file, written as a whole:
//!
//! ```text
//! "flip search index, version 1\n"   32 bytes, filled up with zeros
//! embeddings                         [images, width] f32, little-endian, row by row
//! contents                           JSON: model, width, files, images, broken ones
//! place and length of the contents   u64, u64
//! CRC-32C of embeddings and contents u32, u32
//! "flipend\n"                        8 bytes
//! ```
//!
//! The same images and model give the same bytes, however the index came about.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::error::SearchError;
use super::index::{Contents, Index};
use crate::whole_file;

const BEGIN: &[u8; 32] = b"flip search index, version 1\n\0\0\0";
/// What every version begins with.
const FAMILY: &[u8] = b"flip search index, version ";
const END: &[u8; 8] = b"flipend\n";
const TAIL: u64 = 32;
/// What to do about an index that cannot be used.
const REMEDY: &str = "give --rebuild to embed all images again, or another --index";

impl Index {
    /// Reads an index; none where there is no such file.
    ///
    /// # Errors
    /// It cannot be read, is damaged or is no index.
    pub fn read(path: &Path) -> Result<Option<Self>, SearchError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(SearchError::io("read", path))?,
        };
        let length = file.metadata().map_err(SearchError::io("read", path))?.len();
        read(file, length).map(Some).map_err(|fault| fault.of(path))
    }

    /// Writes the index as a whole.
    ///
    /// # Errors
    /// The disk refuses; what was there is as it was.
    pub fn write(&self, path: &Path) -> Result<(), SearchError> {
        let contents = serde_json::to_vec(&self.contents)?;
        let written = whole_file::replace_with(path, |out| {
            out.write_all(BEGIN)?;
            let mut crc = 0;
            for row in self.rows.chunks(1 << 14) {
                let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
                crc = crc32c::crc32c_append(crc, &bytes);
                out.write_all(&bytes)?;
            }
            out.write_all(&contents)?;
            let place = BEGIN.len() as u64 + 4 * self.rows.len() as u64;
            out.write_all(&place.to_le_bytes())?;
            out.write_all(&(contents.len() as u64).to_le_bytes())?;
            out.write_all(&crc.to_le_bytes())?;
            out.write_all(&crc32c::crc32c(&contents).to_le_bytes())?;
            out.write_all(END)
        });
        written.map_err(SearchError::io("write", path))
    }

    /// Refuses an index of another model.
    pub(super) fn of_model(self, model: &str, path: &Path) -> Result<Self, SearchError> {
        let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
        match self.contents.model == model {
            true => Ok(self),
            false => Err(SearchError::refused(
                path,
                format!(
                    "is the index of another model ({}, this one is {}); {REMEDY}",
                    short(&self.contents.model),
                    short(model)
                ),
            )),
        }
    }
}

/// Refuses to write over a file that is no index, damaged or not.
pub(super) fn may_be_replaced(path: &Path) -> Result<(), SearchError> {
    let mut start = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.and_then(|file| file.take(FAMILY.len() as u64).read_to_end(&mut start)),
    }
    .map_err(SearchError::io("read", path))?;
    match FAMILY.starts_with(&start) {
        true => Ok(()),
        false => Err(SearchError::refused(path, "is no index of flip search, and is not written over")),
    }
}

enum Fault {
    Io(io::Error),
    NoIndex(String),
    Damaged(String),
}

impl Fault {
    fn of(self, path: &Path) -> SearchError {
        match self {
            Fault::Io(source) => SearchError::Io { action: "read", path: path.into(), source },
            Fault::NoIndex(what) => SearchError::refused(path, format!("is no index of flip search: {what}")),
            Fault::Damaged(what) => SearchError::refused(path, format!("is damaged: {what}; {REMEDY}")),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Damaged("it ends too early".into()),
            _ => Fault::Io(error),
        }
    }
}

/// Reads an index of so many bytes.
fn read(mut file: impl Read + Seek, length: u64) -> Result<Index, Fault> {
    let damaged = |what: &str| Fault::Damaged(what.into());
    if length == 0 {
        return Err(damaged("it has 0 bytes"));
    }
    let mut begin = Vec::new();
    file.by_ref().take(BEGIN.len() as u64).read_to_end(&mut begin)?;
    if begin.len() < BEGIN.len() && BEGIN.starts_with(&begin) {
        return Err(damaged("it ends too early"));
    }
    if begin != BEGIN {
        return Err(Fault::NoIndex(match begin.strip_prefix(FAMILY) {
            Some(version) => {
                let version = String::from_utf8_lossy(version);
                format!("version {}, this program reads version 1", version.trim_end_matches(['\0', '\n']))
            }
            None => "it begins with something else".into(),
        }));
    }
    if length < BEGIN.len() as u64 + TAIL {
        return Err(damaged("it ends too early"));
    }
    file.seek(SeekFrom::End(-(TAIL as i64)))?;
    let mut tail = [0; TAIL as usize];
    file.read_exact(&mut tail)?;
    let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| tail[at + i]));
    let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| tail[at + i]));
    let (place, size) = (long(0), long(8));
    let fits = place >= BEGIN.len() as u64 && place.checked_add(size) == Some(length - TAIL);
    if &tail[24..] != END || !fits {
        return Err(damaged("its end is not that of an index; was it cut off?"));
    }
    // Both are no longer than the file is.
    let mut contents = vec![0; size as usize];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut contents)?;
    if crc32c::crc32c(&contents) != short(20) {
        return Err(damaged("its list of images has another checksum than when it was written"));
    }
    let contents: Contents = serde_json::from_slice(&contents)
        .map_err(|error| Fault::Damaged(format!("its list of images: {error}")))?;
    let expected = (contents.width as u64).checked_mul(4 * contents.entries.len() as u64);
    let known = |file: u32| (file as usize) < contents.files.len();
    if contents.width == 0
        || expected != Some(place - BEGIN.len() as u64)
        || !contents.entries.iter().all(|entry| known(entry.place.file))
        || !contents.broken.iter().all(|(file, _)| known(*file))
    {
        return Err(damaged("its list of images does not fit its embeddings"));
    }
    file.seek(SeekFrom::Start(BEGIN.len() as u64))?;
    let rows = rows(&mut file, (place - BEGIN.len() as u64) as usize / 4, short(16))?;
    Ok(Index { contents, rows })
}

/// So many floats with this checksum.
fn rows(file: &mut impl Read, count: usize, expected: u32) -> Result<Vec<f32>, Fault> {
    let mut rows = vec![0f32; count];
    let mut crc = 0;
    let mut bytes = vec![0; 4 << 18];
    for part in rows.chunks_mut(1 << 18) {
        let bytes = &mut bytes[..4 * part.len()];
        file.read_exact(bytes)?;
        crc = crc32c::crc32c_append(crc, bytes);
        for (value, bytes) in part.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
    }
    match crc == expected {
        true => Ok(rows),
        false => {
            Err(Fault::Damaged("its embeddings have another checksum than when they were written".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::collection::{IndexedFile, Place};
    use super::super::index::Entry;
    use super::*;

    fn index() -> Index {
        let file = |name: &str| IndexedFile { name: name.into(), bytes: 7, modified: u64::MAX };
        let entry = |file, number, caption: &str| Entry {
            place: Place { file, number },
            key: "k\"\n".into(),
            caption: caption.into(),
        };
        let contents = Contents {
            model: "abcdef0123456789".into(),
            width: 3,
            files: vec![file("a.tar"), file("b.tar")],
            entries: vec![entry(0, 0, ""), entry(1, 4, "größer")],
            broken: vec![(1, 2)],
        };
        Index { contents, rows: vec![0.5, -1.0, f32::MIN_POSITIVE, 0.25, 3.0, -0.0] }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.index");
        assert!(Index::read(&path).unwrap().is_none());
        index().write(&path).unwrap();
        assert_eq!(Index::read(&path).unwrap().unwrap(), index());
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| match read(io::Cursor::new(bytes), bytes.len() as u64) {
            Err(fault) => fault.of(&path).to_string(),
            Ok(_) => panic!("it was read"),
        };
        for length in 0..whole.len() {
            let message = refused(&whole[..length]);
            assert!(
                message.contains("i.index: is damaged") && message.contains("--rebuild"),
                "{length}: {message}"
            );
        }
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let message = refused(&bytes);
            assert!(message.contains("i.index: is "), "bit {bit}: {message}");
        }
        assert!(refused(b"\xff\xd8\xff\xe0 a photograph").contains("no index of flip search"));
        for (bytes, may) in
            [(&b"\xff\xd8\xff\xe0 a photograph"[..], false), (&whole[..40], true), (b"", true)]
        {
            std::fs::write(&path, bytes).unwrap();
            assert!(Index::read(&path).is_err());
            assert_eq!(may_be_replaced(&path).is_ok(), may, "{bytes:?}");
        }
    }

    #[test]
    fn another_model_and_another_version_are_named() {
        let path = Path::new("i.index");
        let message = index().of_model("0000", path).unwrap_err().to_string();
        assert!(message.contains("another model (abcdef012345, this one is 0000)"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("i.index");
        std::fs::write(&path, b"flip search index, version 12\n\0\0 and what comes then").unwrap();
        let message = Index::read(&path).unwrap_err().to_string();
        assert!(message.contains("version 12, this program reads version 1"), "{message}");
    }
}
