//! Files that are often found where an archive should be, told by how they begin.

/// How files begin that are packed in a way that is not read; gzip and zstd are unpacked before.
const PACKINGS: [(&[u8], &str); 3] = [(b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"\x04\x22\x4d\x18", "lz4")];
/// How web pages and the error messages of stores begin, after white space and in any case.
const PAGES: [(&[u8], &str); 5] = [
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<?xml", "an XML document"),
    (b"<error>", "an XML document"),
];
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What a file is instead of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistaken {
    /// Packed with the program of this name.
    Packed(&'static str),
    /// What a server shows people, also where the answer should have been an error.
    Page(&'static str),
    /// A few lines that stand for a large file in a repository.
    LfsPointer,
}

impl Mistaken {
    /// Of a file by its first bytes.
    pub fn of(start: &[u8]) -> Option<Self> {
        if let Some((_, packing)) = PACKINGS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(Mistaken::Packed(packing));
        }
        if start.starts_with(POINTER) {
            return Some(Mistaken::LfsPointer);
        }
        let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
        let begins = |with: &[u8]| text.len() >= with.len() && text[..with.len()].eq_ignore_ascii_case(with);
        PAGES.iter().find(|(page, _)| begins(page)).map(|(_, what)| Mistaken::Page(what))
    }
}

impl std::fmt::Display for Mistaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mistaken::Packed(packing) => {
                write!(f, "the file is compressed with {packing}; use gzip, zstd, or plain tar")
            }
            Mistaken::Page(what) => {
                write!(
                    f,
                    "the file is {what}, as a server sends it in place of a file; download the shard again"
                )
            }
            Mistaken::LfsPointer => f.write_str(
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
        let html = Some(Mistaken::Page("an HTML page"));
        assert_eq!(Mistaken::of(b"\n <!DOCTYPE html><html>"), html);
        assert_eq!(Mistaken::of(b"\xef\xbb\xbf<HTML lang=en>"), html);
        assert_eq!(Mistaken::of(b"<?xml version=\"1.0\"?><Error>"), Some(Mistaken::Page("an XML document")));
        assert_eq!(
            Mistaken::of(b"version https://git-lfs.github.com/spec/v1\noid"),
            Some(Mistaken::LfsPointer)
        );
        assert_eq!(Mistaken::of(b"BZh91AY"), Some(Mistaken::Packed("bzip2")));
        for other in [&b"0001.jpg\0\0\0"[..], b"", b"<"] {
            assert_eq!(Mistaken::of(other), None);
        }
    }
}
