//! Files that are often found where an archive should be, told by how they begin.

/// First bytes of files that are packed in a way that is not read; gzip and zstd are unpacked before.
const PACKINGS: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x04\x22\x4d\x18", "lz4")];
/// First bytes of web pages and of error messages of stores, after white space and in any case.
const PAGES: [(&[u8], &str); 5] = [
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<error>", "an XML document"),
];
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// A kind of file that is found in place of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotArchive {
    /// Packed with the program of this name.
    Packed(&'static str),
    /// A web page, also where the answer should have been an error.
    Page(&'static str),
    /// A few lines that stand for a large file in a repository.
    LfsPointer,
}

impl NotArchive {
    /// Of a file by its first bytes.
    pub fn of(start: &[u8]) -> Option<Self> {
        if let Some((_, packing)) = PACKINGS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(NotArchive::Packed(packing));
        }
        if start.starts_with(POINTER) {
            return Some(NotArchive::LfsPointer);
        }
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        let begins = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
        PAGES.iter().find(|(page, _)| begins(page)).map(|(_, what)| NotArchive::Page(what))
    }
}

impl std::fmt::Display for NotArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotArchive::Packed(packing) => {
                write!(f, "the file is compressed with {packing}; use gzip, zstd, or plain tar")
            }
            NotArchive::Page(what) => {
                write!(
                    f,
                    "the file is {what}, as a server sends it in place of a file; download the shard again"
                )
            }
            NotArchive::LfsPointer => f.write_str(
                "the file is a git-lfs pointer, not the shard itself; fetch it with `git lfs pull`",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_pointers_and_packings_are_known() {
        let html = Some(NotArchive::Page("an HTML page"));
        assert_eq!(NotArchive::of(b"\n <!DOCTYPE html><html>"), html);
        assert_eq!(NotArchive::of(b"\xef\xbb\xbf<HTML lang=en>"), html);
        assert_eq!(
            NotArchive::of(b"<?xml version=\"1.0\"?><Error>"),
            Some(NotArchive::Page("an XML document"))
        );
        assert_eq!(
            NotArchive::of(b"version https://git-lfs.github.com/spec/v1\noid"),
            Some(NotArchive::LfsPointer)
        );
        assert_eq!(NotArchive::of(b"BZh91AY"), Some(NotArchive::Packed("bzip2")));
        for other in [&b"0001.jpg\0\0\0"[..], b"", b"<"] {
            assert_eq!(NotArchive::of(other), None);
        }
    }
}
