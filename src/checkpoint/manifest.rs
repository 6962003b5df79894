//! The list of what a snapshot holds. Every other file is checked against it; it needs no hash of its own:
//! whatever is damaged in it either no longer parses or no longer matches a file.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Raised when an older program could misread a newer snapshot.
pub const VERSION: u64 = 1;
/// File of the [`Manifest`].
pub const MANIFEST: &str = "manifest.json";
/// File of the state.
pub const STATE: &str = "state.json";
/// Ending of the file of a part.
pub const TENSORS: &str = ".safetensors";

/// Contents of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`VERSION`].
    pub version: u64,
    /// [`super::Name`] as text.
    pub name: String,
    /// Every other file of the folder.
    pub files: BTreeMap<String, Fingerprint>,
}

/// Only the version: read first, so that a newer manifest is called newer and not malformed.
#[derive(Deserialize)]
pub struct VersionOnly {
    /// See [`VERSION`].
    pub version: u64,
}

/// Length and hash that a file must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Length.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// Fingerprints what passes through it on the way to or from `inner`, so that no file is read twice.
pub struct Fingerprinting<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Fingerprinting<T> {
    /// Nothing has passed yet.
    pub fn new(inner: T) -> Self {
        Fingerprinting { inner, hash: Sha256::new(), bytes: 0 }
    }

    /// Length and hash of all that passed, with `inner`.
    pub fn finish(self) -> (T, Fingerprint) {
        let sha256 = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, Fingerprint { bytes: self.bytes, sha256 })
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Fingerprinting<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.passed(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Fingerprinting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(&buffer[..read]);
        Ok(read)
    }
}
