//! Members with holes, as `tar -S` writes them: a map says where in the file the bytes belong that are stored.
//!
//! GNU's own form and the three in PAX headers, read as Python's tarfile reads them, which webdataset stands on. The
//! `tar` crate reads only the first, and only from the beginning of an archive on.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

/// Most pieces that a member may be stored in.
const MOST_PIECES: usize = 65_536;

/// Bytes that are stored, and where they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub offset: u64,
    pub bytes: u64,
}

/// Stored pieces of a member with holes. The rest of its length is zeros.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// In the order in which they are stored.
    pub pieces: Vec<Piece>,
    /// Length with the holes.
    pub real: u64,
}

impl Sparse {
    /// The part of a map that is in GNU's header.
    pub fn of_gnu(header: &GnuHeader) -> Result<Self, String> {
        let real = header.real_size().map_err(|_| wrong("its length is not a number"))?;
        let mut sparse = Sparse { pieces: Vec::new(), real };
        sparse.add_all(&header.sparse)?;
        Ok(sparse)
    }

    /// The part that is in a block behind the header; whether another follows.
    pub fn add_block(&mut self, block: &[u8]) -> Result<bool, String> {
        let mut header = GnuExtSparseHeader::new();
        header.as_mut_bytes().copy_from_slice(block);
        self.add_all(header.sparse())?;
        Ok(header.is_extended())
    }

    fn add_all(&mut self, entries: &[GnuSparseHeader]) -> Result<(), String> {
        for entry in entries.iter().filter(|entry| !entry.is_empty()) {
            let number = |value: std::io::Result<u64>| value.map_err(|_| wrong("a place is not a number"));
            self.add(number(entry.offset())?, number(entry.length())?)?;
        }
        Ok(())
    }

    fn add(&mut self, offset: u64, bytes: u64) -> Result<(), String> {
        if self.pieces.len() == MOST_PIECES {
            return Err(wrong(&format!("more than {MOST_PIECES} pieces")));
        }
        if bytes > 0 {
            self.pieces.push(Piece { offset, bytes });
        }
        Ok(())
    }

    /// Holds the map against the bytes that are stored.
    pub fn check(self, stored: u64) -> Result<Self, String> {
        let mut left = stored;
        for Piece { offset, bytes } in &self.pieces {
            let inside = offset.checked_add(*bytes).is_some_and(|end| end <= self.real);
            left =
                left.checked_sub(*bytes).filter(|_| inside).ok_or_else(|| wrong("pieces outside of it"))?;
        }
        Ok(self)
    }
}

fn wrong(what: &str) -> String {
    format!("the map of a member with holes is wrong: {what}")
}

/// Holes as PAX headers describe them.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    /// Places and lengths in turn.
    numbers: Vec<u64>,
    real: Option<u64>,
    mapped: bool,
    version: (Option<u64>, Option<u64>),
}

impl PaxSparse {
    /// Takes a record whose key begins with `GNU.sparse.`.
    pub fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.real = Some(number(value)?),
            b"GNU.sparse.major" => self.version.0 = Some(number(value)?),
            b"GNU.sparse.minor" => self.version.1 = Some(number(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.mapped = true;
                self.numbers.push(number(value)?);
            }
            b"GNU.sparse.map" => {
                self.mapped = true;
                self.numbers = value.split(|&byte| byte == b',').map(number).collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// True if the map is not here but in front of the stored bytes.
    pub fn map_is_in_body(&self) -> bool {
        !self.mapped && self.version == (Some(1), Some(0))
    }

    /// The map; `None` where there are no holes.
    pub fn finish(self) -> Result<Option<Sparse>, String> {
        match (self.mapped, self.real) {
            (true, Some(real)) => of_numbers(&self.numbers, real).map(Some),
            (true, None) => Err(wrong("no length")),
            (false, _) => Ok(None),
        }
    }

    /// The map in front of the stored bytes: the number of pieces, then a place and a length each, a line each. `body`
    /// may end anywhere behind it; the bytes that the map takes come beside it.
    pub fn finish_with(self, body: &[u8]) -> Result<(Sparse, u64), String> {
        let real = self.real.ok_or_else(|| wrong("no length"))?;
        let mut lines = body.split_inclusive(|&byte| byte == b'\n');
        let mut taken = 0;
        let mut next = || {
            let line = lines.next().and_then(|line| line.strip_suffix(b"\n"));
            let line = line.ok_or_else(|| wrong("it ends early"))?;
            taken += line.len() as u64 + 1;
            number(line)
        };
        let count = next()?;
        if count > MOST_PIECES as u64 {
            return Err(wrong(&format!("more than {MOST_PIECES} pieces")));
        }
        let numbers = (0..2 * count).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
        Ok((of_numbers(&numbers, real)?, taken))
    }
}

fn of_numbers(numbers: &[u64], real: u64) -> Result<Sparse, String> {
    let mut sparse = Sparse { pieces: Vec::new(), real };
    for pair in numbers.chunks(2) {
        let [offset, bytes] = pair else { return Err(wrong("a place without a length")) };
        sparse.add(*offset, *bytes)?;
    }
    Ok(sparse)
}

fn number(text: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    digits.ok_or_else(|| wrong("a place is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pax(records: &[(&str, &str)]) -> PaxSparse {
        let mut pax = PaxSparse::default();
        records.iter().for_each(|(key, value)| pax.take(key.as_bytes(), value.as_bytes()).unwrap());
        pax
    }

    #[test]
    fn the_three_forms_of_pax_headers_are_one_map() {
        let pieces = vec![Piece { offset: 0, bytes: 3 }, Piece { offset: 100, bytes: 7 }];
        let expected = Sparse { pieces, real: 200 };
        let first = pax(&[
            ("GNU.sparse.size", "200"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "0"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "100"),
            ("GNU.sparse.numbytes", "7"),
        ]);
        assert_eq!(first.finish(), Ok(Some(expected.clone())));
        let second = pax(&[("GNU.sparse.size", "200"), ("GNU.sparse.map", "0,3,100,7,200,0")]);
        assert_eq!(second.finish(), Ok(Some(expected.clone())));
        let third =
            pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "200")]);
        assert!(third.map_is_in_body());
        assert_eq!(third.finish_with(b"2\n0\n3\n100\n7\n\0\0\0"), Ok((expected.clone(), 12)));
        assert_eq!(expected.clone().check(10), Ok(expected.clone()));
        assert!(expected.check(9).is_err());
        assert_eq!(pax(&[("path", "a")]).finish(), Ok(None));
    }

    #[test]
    fn wrong_maps_are_errors() {
        let told = |records: &[(&str, &str)]| pax(records).finish().and_then(|map| map.unwrap().check(1000));
        assert!(told(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "5,5")]).is_err());
        assert!(told(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "5")]).is_err());
        assert!(told(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "18446744073709551615,2")]).is_err());
        assert!(told(&[("GNU.sparse.map", "0,2")]).is_err());
        let body = |text: &[u8]| pax(&[("GNU.sparse.realsize", "9")]).finish_with(text);
        for wrong in [&b"99999999\n"[..], b"1\n0\n", b"x\n", b""] {
            assert!(body(wrong).is_err());
        }
    }
}
