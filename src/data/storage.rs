//! Opens files wherever they are: local ones in place, remote ones through a cache, packed ones unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cache::{Cache, Entry, Part};
use super::location::Location;
use super::patience::Patience;
use super::pulse::Pulse;
#[cfg(feature = "remote")]
use super::remote::{Refusal, Remote, Sink};
use super::unpack::{unpack, Unpacked};

/// How files are reached, and how long they may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Folder that keeps what is downloaded, and what is unpacked while it is in use. Several runs may share
    /// it. Default: `flip` in `$XDG_CACHE_HOME` or `~/.cache`; local files are unpacked in `$TMPDIR`.
    pub cache: Option<PathBuf>,
    /// Most that the folder keeps, GiB; what was used longest ago goes first.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub cache_gib: f64,
    /// Attempts at a transfer that come to nothing one after the other before it is given up; those that bring
    /// at least a byte do not count. Between them is a growing pause.
    pub attempts: NonZeroU64,
    /// Seconds without progress after which a warning names what is waited for, and a transfer is begun again
    /// where it stopped.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub stall_warning_s: f64,
    /// Seconds without progress after which the run stops with an error.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub stall_limit_s: f64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            cache: None,
            cache_gib: 100.0,
            attempts: NonZeroU64::MIN.saturating_add(7),
            stall_warning_s: 10.0,
            stall_limit_s: 300.0,
        }
    }
}

impl StorageConfig {
    pub fn patience(&self) -> Patience {
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
        Patience { warning: seconds(self.stall_warning_s), limit: seconds(self.stall_limit_s) }
    }
}

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// It is not there, and will not be a minute later.
    #[error("{location}: {detail}")]
    Absent { location: Location, detail: String },
    #[error("{location}: {source}")]
    Io { location: Location, source: io::Error },
    /// A server refuses it, or every attempt failed.
    #[error("{location}: {detail}")]
    Remote { location: Location, detail: String },
    /// It is longer than it may be.
    #[error("{location}: longer than {longest} bytes")]
    TooLong { location: Location, longest: u64 },
}

/// Opens files; shared by everything that belongs to one source.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
    pulse: Arc<Pulse>,
    cache: OnceLock<Cache>,
    #[cfg(feature = "remote")]
    remote: OnceLock<Remote>,
}

impl Default for Storage {
    fn default() -> Self {
        Storage::new(&StorageConfig::default())
    }
}

impl Storage {
    /// Nothing is opened or created yet.
    pub fn new(config: &StorageConfig) -> Self {
        Storage {
            config: config.clone(),
            pulse: Arc::default(),
            cache: OnceLock::new(),
            #[cfg(feature = "remote")]
            remote: OnceLock::new(),
        }
    }

    /// What is being read.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    pub fn patience(&self) -> Patience {
        self.config.patience()
    }

    /// Opens a file for reading at any place.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn open(&self, location: &Location) -> Result<Unpacked, StorageError> {
        let _reading = self.pulse.reading(location.to_string().into());
        let failed = |source| StorageError::Io { location: location.clone(), source };
        match location {
            Location::File(path) => {
                let folder = self.config.cache.clone().unwrap_or_else(std::env::temp_dir);
                unpack(open_file(path).map_err(failed)?, &folder, &self.pulse).map_err(failed)
            }
            Location::Url(url) => {
                let cache = self.cache().map_err(failed)?;
                let file = match cache.entry(url, || self.pulse.beat()).map_err(failed)? {
                    Entry::Whole(file) => file,
                    Entry::Absent(part) => self.download(location, url, cache, part)?,
                };
                unpack(file, cache.folder(), &self.pulse).map_err(failed)
            }
        }
    }

    /// All bytes of a file, as they are; it is not kept in the cache.
    ///
    /// # Errors
    /// It cannot be had, or has more than `longest` bytes.
    pub fn read(&self, location: &Location, longest: u64) -> Result<Vec<u8>, StorageError> {
        let _reading = self.pulse.reading(location.to_string().into());
        match location {
            Location::File(path) => {
                let failed = |source| StorageError::Io { location: location.clone(), source };
                let file = open_file(path).map_err(failed)?;
                let mut bytes = Vec::new();
                file.take(longest.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
                match bytes.len() as u64 > longest {
                    true => Err(StorageError::TooLong { location: location.clone(), longest }),
                    false => Ok(bytes),
                }
            }
            Location::Url(url) => self.read_url(location, url, longest),
        }
    }

    fn cache(&self) -> io::Result<&Cache> {
        if let Some(cache) = self.cache.get() {
            return Ok(cache);
        }
        let folder = self.config.cache.clone().unwrap_or_else(usual_cache);
        let limit = (self.config.cache_gib * (1u64 << 30) as f64) as u64;
        // Whoever waits for a source gives up first, and names the shard; this ends the thread that it leaves.
        let cache = Cache::open(&folder, limit, self.patience().limit.saturating_mul(2))
            .map_err(|error| io::Error::new(error.kind(), format!("cache {}: {error}", folder.display())))?;
        Ok(self.cache.get_or_init(|| cache))
    }
}

#[cfg(feature = "remote")]
impl Storage {
    /// The files that a URL with wildcards stands for, sorted.
    ///
    /// # Errors
    /// The store cannot list, or does not answer.
    pub fn list(&self, pattern: &str) -> Result<Vec<Location>, StorageError> {
        let location = Location::Url(pattern.to_owned());
        let _reading = self.pulse.reading(location.to_string().into());
        let listed = self.remote(&location)?.list(pattern, &self.pulse);
        let urls = listed.map_err(|refusal| told(&location, refusal, 0))?;
        Ok(urls.into_iter().map(Location::Url).collect())
    }

    fn remote(&self, location: &Location) -> Result<&Remote, StorageError> {
        if let Some(remote) = self.remote.get() {
            return Ok(remote);
        }
        let remote = Remote::new(self.patience().warning)
            .map_err(|detail| StorageError::Remote { location: location.clone(), detail })?;
        Ok(self.remote.get_or_init(|| remote))
    }

    fn download(
        &self,
        location: &Location,
        url: &str,
        cache: &Cache,
        mut part: Part,
    ) -> Result<File, StorageError> {
        let failed = |source| StorageError::Io { location: location.clone(), source };
        let mut sink = Download { cache, part: &mut part };
        let attempts = self.config.attempts.get();
        let fetched = self.remote(location).and_then(|remote| {
            remote.fetch(url, &mut sink, attempts, &self.pulse).map_err(|refusal| told(location, refusal, 0))
        });
        match fetched {
            Ok(()) => part.finish().map_err(failed),
            Err(error) => {
                part.give_up();
                Err(error)
            }
        }
    }

    fn read_url(&self, location: &Location, url: &str, longest: u64) -> Result<Vec<u8>, StorageError> {
        // One sample of many: it is not worth as much patience as a shard.
        let attempts = self.config.attempts.get().min(3);
        let mut bytes = Bounded { bytes: Vec::new(), longest };
        let fetched = self.remote(location)?.fetch(url, &mut bytes, attempts, &self.pulse);
        fetched.map_err(|refusal| told(location, refusal, longest))?;
        Ok(bytes.bytes)
    }
}

#[cfg(not(feature = "remote"))]
impl Storage {
    fn absent<T>(&self, location: &Location) -> Result<T, StorageError> {
        let detail = "this build reads no URLs; build it with --features remote".to_owned();
        Err(StorageError::Remote { location: location.clone(), detail })
    }

    /// # Errors
    /// Always: URLs are not part of this build.
    pub fn list(&self, pattern: &str) -> Result<Vec<Location>, StorageError> {
        self.absent(&Location::Url(pattern.to_owned()))
    }

    fn download(&self, location: &Location, _: &str, _: &Cache, part: Part) -> Result<File, StorageError> {
        part.give_up();
        self.absent(location)
    }

    fn read_url(&self, location: &Location, _: &str, _: u64) -> Result<Vec<u8>, StorageError> {
        self.absent(location)
    }
}

#[cfg(feature = "remote")]
fn told(location: &Location, refusal: Refusal, longest: u64) -> StorageError {
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
    part: &'a mut Part,
}

#[cfg(feature = "remote")]
impl Sink for Download<'_> {
    fn expect(&mut self, bytes: u64) -> io::Result<()> {
        self.cache.reserve(self.part, bytes)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
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

/// Opens a regular file; anything else could block for ever.
fn open_file(path: &Path) -> io::Result<File> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)
}

/// Where programs of this user keep such files.
fn usual_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    caches.map_or_else(|| std::env::temp_dir().join("flip-cache"), |folder| folder.join("flip"))
}
