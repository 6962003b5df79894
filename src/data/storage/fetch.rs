//! Brings files from behind URLs: into the cache, or into memory.

use std::fs::File;
#[cfg(feature = "remote")]
use std::io;
use std::sync::Arc;
#[cfg(feature = "remote")]
use std::sync::OnceLock;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::storage::cache::{Cache, PartialFile};
#[cfg(feature = "remote")]
use crate::data::storage::remote::{Refusal, Remote, Sink};
use crate::data::storage::{Location, Progress, StorageError};

/// Treatment of an image whose server does not answer, answers with an error or refuses it. An image that the
/// server says it does not have (404, 410) is a broken sample either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeadLinks {
    /// The run stops with a checkpoint when all attempts have failed: the network may be at fault.
    #[default]
    Stop,
    /// It is left out after three attempts and counted as `url_unreachable`: for lists of the open web, where many
    /// servers are gone. What the network failed to bring is then counted the same.
    Skip,
}

/// Brings files; nothing is connected before the first.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Attempts that come to nothing one after the other.
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    pub attempts: u64,
    /// After so long without a byte a connection is given up.
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    pub silence: Duration,
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    pub dead_links: DeadLinks,
    #[cfg_attr(not(feature = "remote"), allow(dead_code))]
    pub progress: Arc<Progress>,
    #[cfg(feature = "remote")]
    pub remote: OnceLock<Remote>,
}

#[cfg(feature = "remote")]
impl Fetch {
    /// The files that a URL with wildcards stands for, sorted.
    ///
    /// # Errors
    /// The store cannot list, or does not answer.
    pub fn list(&self, location: &Location, pattern: &str) -> Result<Vec<Location>, StorageError> {
        let listed = self.remote(location)?.list(pattern, &self.progress);
        let urls = listed.map_err(|refusal| storage_error(location, refusal, 0))?;
        Ok(urls.into_iter().map(Location::Url).collect())
    }

    fn remote(&self, location: &Location) -> Result<&Remote, StorageError> {
        if let Some(remote) = self.remote.get() {
            return Ok(remote);
        }
        let remote = Remote::new(self.silence)
            .map_err(|detail| StorageError::Remote { location: location.clone(), detail })?;
        Ok(self.remote.get_or_init(|| remote))
    }

    /// Brings a file into its place in the cache.
    ///
    /// # Errors
    /// It does not come, or there is no room for it.
    pub fn download(
        &self,
        location: &Location,
        url: &str,
        cache: &Cache,
        mut part: PartialFile,
    ) -> Result<File, StorageError> {
        let failed = |source| StorageError::Io { location: location.clone(), source };
        let mut sink = Download { cache, part: &mut part };
        let fetched = self.remote(location).and_then(|remote| {
            remote
                .fetch(url, &mut sink, self.attempts, &self.progress)
                .map_err(|refusal| storage_error(location, refusal, 0))
        });
        match fetched {
            Ok(()) => part.finish().map_err(failed),
            Err(error) => {
                part.give_up();
                Err(error)
            }
        }
    }

    /// Brings a file into memory.
    ///
    /// # Errors
    /// It does not come, or has more than `longest` bytes.
    pub fn read(&self, location: &Location, url: &str, longest: u64) -> Result<Vec<u8>, StorageError> {
        // Where it may be left out, one sample of many is not worth as many attempts as a shard.
        let attempts = match self.dead_links {
            DeadLinks::Stop => self.attempts,
            DeadLinks::Skip => self.attempts.min(3),
        };
        let mut bytes = Bounded { bytes: Vec::new(), longest };
        let fetched = self.remote(location)?.fetch(url, &mut bytes, attempts, &self.progress);
        match fetched.map_err(|refusal| storage_error(location, refusal, longest)) {
            Ok(()) => Ok(bytes.bytes),
            Err(StorageError::Remote { location, detail }) if self.dead_links == DeadLinks::Stop => {
                let help = "with `dead_links: Skip` in data.storage such images are left out and counted";
                Err(StorageError::Remote { location, detail: format!("{detail}; {help}") })
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(not(feature = "remote"))]
impl Fetch {
    fn absent<T>(&self, location: &Location) -> Result<T, StorageError> {
        let detail = "this build reads no URLs; build it with --features remote".to_owned();
        Err(StorageError::Remote { location: location.clone(), detail })
    }

    /// # Errors
    /// Always: URLs are not part of this build.
    pub fn list(&self, location: &Location, _: &str) -> Result<Vec<Location>, StorageError> {
        self.absent(location)
    }

    pub fn download(
        &self,
        location: &Location,
        _: &str,
        _: &Cache,
        part: PartialFile,
    ) -> Result<File, StorageError> {
        part.give_up();
        self.absent(location)
    }

    pub fn read(&self, location: &Location, _: &str, _: u64) -> Result<Vec<u8>, StorageError> {
        self.absent(location)
    }
}

#[cfg(feature = "remote")]
fn storage_error(location: &Location, refusal: Refusal, longest: u64) -> StorageError {
    let location = location.clone();
    match refusal {
        Refusal::Absent(detail) => StorageError::Absent { location, detail },
        Refusal::Denied(detail) | Refusal::Broken { detail, .. } => StorageError::Remote { location, detail },
        Refusal::Unwritten(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            StorageError::TooLong { location, longest }
        }
        Refusal::Unwritten(source) => StorageError::Io { location, source },
    }
}

/// A transfer into the cache.
#[cfg(feature = "remote")]
struct Download<'a> {
    cache: &'a Cache,
    part: &'a mut PartialFile,
}

#[cfg(feature = "remote")]
impl Sink for Download<'_> {
    fn expect(&mut self, bytes: u64) -> io::Result<()> {
        self.cache.reserve(self.part, bytes)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.cache.reserve_some(self.part, at + bytes.len() as u64)?;
        std::os::unix::fs::FileExt::write_all_at(&self.part.file, bytes, at)
    }
}

/// A transfer into memory.
#[cfg(feature = "remote")]
struct Bounded {
    bytes: Vec<u8>,
    longest: u64,
}

#[cfg(feature = "remote")]
impl Sink for Bounded {
    fn expect(&mut self, bytes: u64) -> io::Result<()> {
        match bytes > self.longest {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(()),
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.expect(at + bytes.len() as u64)?;
        self.bytes.truncate(at as usize);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
