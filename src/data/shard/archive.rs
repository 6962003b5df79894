//! Walks the headers of a tar archive and leaves the bodies where they are.
//!
//! Nothing that an archive says is trusted: a declared size is compared with the length of the file before
//! anything is read, names are only names, and no link is followed.

use std::io;

use crate::data::shard::not_archive::NotArchive;
use crate::data::shard::sparse::{PaxSparse, Sparse};
use crate::data::storage::disk::OpenFile;
use crate::data::Defect;

/// Tar is made of blocks of this many bytes.
const BLOCK: u64 = 512;
/// Bytes read at once where a header is expected: small members and their headers come along.
const READ_AHEAD: usize = 8 * BLOCK as usize;
/// Longest name, extended header or map of holes that is read, bytes.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// A regular file inside an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As stored; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Start of its body, bytes from the start of the archive.
    pub offset: u64,
    /// Length of its body, holes included.
    pub bytes: u64,
    /// A checksum of the header in front of the body; `None` where something else is there.
    pub(crate) mark: Option<u32>,
    /// Stored pieces of the body, if it has holes.
    pub(crate) sparse: Option<Sparse>,
}

/// Damage: the place where an archive stops being one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// `shard_truncated`, `shard_header`, `shard_compressed` or `shard_other`.
    pub defect: Defect,
    /// The member whose body is cut, where the damage lies in one.
    pub member: Option<String>,
}

/// A failure for which a walk ends early.
#[derive(Debug)]
pub enum WalkError {
    /// The bytes from there on are no archive.
    Damage(Damage),
    /// The file could not be read: that says nothing of the archive.
    Io(io::Error),
}

impl From<Damage> for WalkError {
    fn from(damage: Damage) -> Self {
        WalkError::Damage(damage)
    }
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        WalkError::Io(error)
    }
}

/// The regular files of an archive in its order; links, folders, pipes and devices are passed over. The
/// walk ends at the first block of zeros, at the end of the file, or after one damage.
pub struct Walk<'f> {
    file: &'f OpenFile,
    length: u64,
    /// Offset of the next header.
    at: u64,
    done: bool,
    /// True once the zeros that end an archive were found.
    ended: bool,
    ahead: Vec<u8>,
    ahead_at: u64,
}

/// Content of a header block.
struct Header {
    name: Vec<u8>,
    kind: u8,
    bytes: u64,
    mark: u32,
    sparse: Option<Sparse>,
}

/// Extension headers of the member behind them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: PaxSparse,
}

impl<'f> Walk<'f> {
    /// # Errors
    /// The length of the file cannot be told.
    pub fn new(file: &'f OpenFile) -> io::Result<Self> {
        let length = file.length()?;
        Ok(Walk { file, length, at: 0, done: false, ended: false, ahead: Vec::new(), ahead_at: 0 })
    }

    /// True if the archive has its end. Some writers leave it out; a file that was cut lacks it, too.
    pub(crate) fn has_end(&self) -> bool {
        self.ended
    }

    /// The next member, following extension headers to the one they describe.
    fn member(&mut self) -> Result<Option<Member>, WalkError> {
        let mut known = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let regular = matches!(header.kind, b'0' | b'7' | 0 | b'S');
            // As other readers: a link, device, folder or pipe has no body whatever its size field says.
            let bodiless = matches!(header.kind, b'1'..=b'6');
            let bytes = if bodiless { 0 } else { known.size.unwrap_or(header.bytes) };
            let offset = self.at;
            let end = offset.checked_add(bytes).filter(|&end| end <= self.length);
            let Some(end) = end else {
                let detail = format!(
                    "a member declares {bytes} bytes where the file has {}",
                    self.length.saturating_sub(offset)
                );
                let member = regular.then(|| name(known.name, header.name));
                return Err(Damage { defect: Defect::new("shard_truncated", detail), member }.into());
            };
            self.at = end.div_ceil(BLOCK).saturating_mul(BLOCK);
            match header.kind {
                b'L' => {
                    let mut text = self.extension(offset, bytes)?;
                    text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
                    known.name = Some(text);
                }
                b'x' => {
                    let records = self.extension(offset, bytes)?;
                    known.take(&records).map_err(|what| bad(offset, what))?;
                }
                // Long link names and global headers describe nothing that is needed here.
                b'K' | b'g' => {}
                _ if regular => return self.regular(header, known, offset, bytes).map(Some),
                _ => known = Extensions::default(),
            }
        }
    }

    /// A regular file whose stored bytes begin at `offset`.
    fn regular(
        &self,
        header: Header,
        known: Extensions,
        offset: u64,
        bytes: u64,
    ) -> Result<Member, WalkError> {
        let wrong = |what: String| bad(offset, what);
        let name = name(known.name, header.name);
        let (sparse, map) = if header.sparse.is_some() {
            (header.sparse, 0)
        } else if known.sparse.map_is_in_body() {
            let body = self.read(offset, bytes.min(LONGEST_EXTENSION))?;
            let (sparse, taken) = known.sparse.finish_with(&body).map_err(wrong)?;
            (Some(sparse), taken.div_ceil(BLOCK) * BLOCK)
        } else {
            (known.sparse.finish().map_err(wrong)?, 0)
        };
        let Some(sparse) = sparse else {
            return Ok(Member { name, offset, bytes, mark: Some(header.mark), sparse: None });
        };
        let sparse = sparse.check(bytes.saturating_sub(map)).map_err(wrong)?;
        Ok(Member { name, offset: offset + map, bytes: sparse.real, mark: None, sparse: Some(sparse) })
    }

    /// Reads the header at the current place and moves past it; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, WalkError> {
        let at = self.at;
        let Some(block) = self.block(at)? else { return Ok(None) };
        if block.iter().all(|&byte| byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let bad = |what: &str| match NotArchive::of(&block).filter(|_| at == 0) {
            Some(not_archive) => instead(not_archive),
            None if at == 0 => header_damage(format!("the file does not begin with a tar header ({what})")),
            None => header_damage(format!("no valid tar header at byte {at} ({what})")),
        };
        let parsed = tar::Header::from_byte_slice(&block);
        let sum: u32 = block
            .iter()
            .enumerate()
            // The checksum counts its own field as blanks.
            .map(|(i, &byte)| u32::from(if (148..156).contains(&i) { b' ' } else { byte }))
            .sum();
        if parsed.cksum().ok() != Some(sum) {
            return Err(bad("its checksum is wrong").into());
        }
        let gnu = parsed.as_gnu().filter(|_| parsed.entry_type().is_gnu_sparse());
        let mut sparse = gnu.map(Sparse::of_gnu).transpose().map_err(|what| bad(&what))?;
        let mut continues = gnu.is_some_and(|gnu| gnu.is_extended());
        self.at += BLOCK;
        while let (true, Some(sparse)) = (continues, &mut sparse) {
            let Some(block) = self.block(self.at)? else { break };
            continues = sparse.add_block(&block).map_err(|what| bad(&what))?;
            self.at += BLOCK;
        }
        Ok(Some(Header {
            name: parsed.path_bytes().into_owned(),
            kind: parsed.entry_type().as_byte(),
            bytes: parsed.entry_size().map_err(|_| bad("its size is not a number"))?,
            mark: mark(&block),
            sparse,
        }))
    }

    /// The block at this place; `None` at the end of the file.
    fn block(&mut self, at: u64) -> Result<Option<[u8; BLOCK as usize]>, WalkError> {
        let unread = self.length.saturating_sub(at);
        let known = at.checked_sub(self.ahead_at).unwrap_or(self.ahead.len() as u64);
        if known + BLOCK.min(unread) > self.ahead.len() as u64 {
            let wanted = unread.min(READ_AHEAD as u64) as usize;
            self.ahead.resize(wanted, 0);
            self.ahead_at = at;
            self.file.read_exact_at(&mut self.ahead, at)?;
        }
        let start = (at - self.ahead_at) as usize;
        let here = &self.ahead[start..self.ahead.len().min(start + BLOCK as usize)];
        match <[u8; BLOCK as usize]>::try_from(here) {
            Ok(block) => Ok(Some(block)),
            // Some writers do not fill the last block.
            Err(_) if here.iter().all(|&byte| byte == 0) => Ok(None),
            Err(_) => Err(match NotArchive::of(here).filter(|_| at == 0) {
                Some(not_archive) => instead(not_archive),
                None => Damage {
                    defect: Defect::new("shard_truncated", "the file ends inside a tar header"),
                    member: None,
                },
            }
            .into()),
        }
    }

    /// The body of a header that describes the next one.
    fn extension(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, WalkError> {
        if bytes > LONGEST_EXTENSION {
            let detail = format!(
                "an extended header of {bytes} bytes at byte {offset}; at most {LONGEST_EXTENSION} are read"
            );
            return Err(header_damage(detail).into());
        }
        Ok(self.read(offset, bytes)?)
    }

    fn read(&self, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut body = vec![0; bytes as usize];
        self.file.read_exact_at(&mut body, offset)?;
        Ok(body)
    }
}

impl Extensions {
    /// Takes the records of a PAX header.
    fn take(&mut self, records: &[u8]) -> Result<(), String> {
        for (key, value) in pax_records(records) {
            match key {
                // The name of a member with holes is here; its header has one that was made up.
                b"path" | b"GNU.sparse.name" => self.name = Some(value.to_vec()),
                b"size" => self.size = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok()),
                _ if key.starts_with(b"GNU.sparse.") => self.sparse.take(key, value)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn name(long: Option<Vec<u8>>, short: Vec<u8>) -> String {
    String::from_utf8_lossy(&long.unwrap_or(short)).into_owned()
}

/// A checksum of a block, to know it again by.
pub(crate) fn mark(block: &[u8]) -> u32 {
    crc32c::crc32c(block)
}

fn header_damage(detail: String) -> Damage {
    Damage { defect: Defect::new("shard_header", detail), member: None }
}

fn bad(at: u64, what: String) -> Damage {
    header_damage(format!("{what}, before byte {at}"))
}

fn instead(not_archive: NotArchive) -> Damage {
    let reason =
        if matches!(not_archive, NotArchive::Packed(_)) { "shard_compressed" } else { "shard_other" };
    Damage { defect: Defect::new(reason, not_archive.to_string()), member: None }
}

impl Iterator for Walk<'_> {
    type Item = Result<Member, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.member().transpose();
        self.done = !matches!(item, Some(Ok(_)));
        item
    }
}

/// The records `LENGTH KEY=VALUE\n` of an extended header; stops at the first malformed one.
fn pax_records(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let blank = rest.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let record = rest.get(blank + 1..length)?.strip_suffix(b"\n")?;
        rest = &rest[length..];
        let equals = record.iter().position(|&byte| byte == b'=')?;
        Some((&record[..equals], &record[equals + 1..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn walk(bytes: &[u8]) -> Vec<Result<Member, Damage>> {
        let mut file = OpenFile::temporary(&std::env::temp_dir()).unwrap();
        file.write_all(bytes).unwrap();
        let damage = |error| match error {
            WalkError::Damage(damage) => damage,
            WalkError::Io(error) => panic!("{error}"),
        };
        Walk::new(&file).unwrap().map(|member| member.map_err(damage)).collect()
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, body) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn members_are_found_where_they_are() {
        let long = "d".repeat(300) + ".txt";
        let big = vec![7; 20_000];
        let bytes = archive(&[("a.jpg", b"image"), (&long, b"caption"), ("b.jpg", &big), ("c", b"")]);
        let members: Vec<Member> = walk(&bytes).into_iter().map(Result::unwrap).collect();
        let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["a.jpg", &long, "b.jpg", "c"]);
        let body = |m: &Member| bytes[m.offset as usize..][..m.bytes as usize].to_vec();
        assert_eq!(body(&members[0]), b"image");
        assert_eq!(body(&members[1]), b"caption");
        assert_eq!(body(&members[2]), big);
    }

    #[test]
    fn pax_names_and_sizes_are_read_with_line_breaks_inside() {
        let records = b"23 path=line\nbreak.txt\n11 size=12\n";
        let got: Vec<_> = pax_records(records).collect();
        assert_eq!(got, [(&b"path"[..], &b"line\nbreak.txt"[..]), (b"size", b"12")]);
        assert_eq!(pax_records(b"999 path=x\n").count(), 0);
        assert_eq!(pax_records(b"2 path=x\n").count(), 0);
        assert_eq!(pax_records(b"x").count(), 0);
    }

    #[test]
    fn every_cut_of_an_archive_ends_the_walk() {
        let bytes = archive(&[("a.txt", b"one"), ("b.txt", b"two")]);
        for cut in 0..bytes.len() {
            let items = walk(&bytes[..cut]);
            assert!(items.len() <= 3, "cut at {cut}");
            let whole = items.iter().filter(|item| item.is_ok()).count();
            assert_eq!(whole, usize::from(cut >= 515) + usize::from(cut >= 1539), "cut at {cut}");
        }
    }

    #[test]
    fn sizes_beyond_the_file_are_damage_and_name_the_member() {
        let mut header = tar::Header::new_gnu();
        header.set_path("huge.jpg").unwrap();
        header.set_size(1 << 40);
        header.set_cksum();
        let items = walk(header.as_bytes());
        let [Err(damage)] = &items[..] else { panic!("{items:?}") };
        assert_eq!(damage.defect.reason, "shard_truncated");
        assert_eq!(damage.member.as_deref(), Some("huge.jpg"));
        header.set_size(u64::MAX);
        header.set_cksum();
        assert!(walk(header.as_bytes())[0].is_err());
    }
}
