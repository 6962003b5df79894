//! The first bytes of a file of weights, which tell what it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// True if a file begins as PyTorch's pickles do: with a zip archive, or with a pickle of protocol 2 to 5.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..])
}

/// True for a file that can be read and begins as PyTorch's pickles do.
pub(super) fn is_pickled(path: &Path) -> bool {
    start(path).is_ok_and(|start| is_pickle(&start))
}

/// The first four bytes of a file, or as many as it has.
pub(super) fn start(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut start)?;
    Ok(start)
}
