//! Opens files: local ones in place, remote ones through a cache, packed ones unpacked.

pub(crate) mod attempts;
mod cache;
pub(crate) mod disk;
mod error;
mod fetch;
pub(crate) mod location;
mod progress;
#[cfg(feature = "remote")]
mod remote;
mod stall_timeout;
pub(crate) mod unpack;
#[cfg(feature = "remote")]
mod validator;

pub use error::StorageError;
pub use fetch::DeadLinks;
pub use location::Location;
pub use progress::{Progress, Reading};
pub use stall_timeout::{with_stall_timeout, StallTimeout, StallWatch};

use std::collections::HashSet;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::decode::LONGEST_IMAGE;
use crate::data::{Cause, Defect, Image, LoadError};

use crate::data::storage::attempts::Attempts;
use crate::data::storage::cache::{Cache, Entry};
use crate::data::storage::disk::{names_nothing, OpenFile};
use crate::data::storage::fetch::Fetch;
use crate::data::storage::unpack::{unpack, UnpackLimits, Unpacked};

/// Access to files: cache, attempts, stall timeout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Folder that keeps what is downloaded, and what is unpacked while it is in use. Several runs may share
    /// it. Default: `flip` in `$XDG_CACHE_HOME` or `~/.cache`; local files are unpacked in `$TMPDIR`.
    pub cache: Option<PathBuf>,
    /// Most that the folder keeps, GiB; what was used longest ago goes first.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub cache_gib: f64,
    /// Attempts at a file that come to nothing one after the other before it is given up and the run ends: transfers,
    /// of which those that bring at least a byte do not count, and reads that the machine refuses. Between them are
    /// growing pauses, of 0.2 seconds at first and 30 at most; eight attempts are about half a minute.
    pub attempts: NonZeroU64,
    /// Seconds without progress after which a warning names what is waited for, and a transfer is begun again
    /// where it stopped.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub stall_warning_s: f64,
    /// Seconds without progress after which the run stops with an error.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub stall_limit_s: f64,
    /// Most that a packed file may unpack to, GiB; what is behind is left out as damage of its shard.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub unpacked_gib: f64,
    /// Most that a packed file may unpack to, in times its own length; looked at from 1 GiB on.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub unpacked_times: f64,
    /// Most memory that the places of one shard's samples may take, MiB, about 200 bytes a sample; what is behind is
    /// left out as damage of the shard.
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub index_mib: f64,
    /// Treatment of an image of a table whose server does not answer, or refuses it.
    pub dead_links: DeadLinks,
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            cache: None,
            cache_gib: 100.0,
            attempts: NonZeroU64::MIN.saturating_add(7),
            stall_warning_s: 10.0,
            stall_limit_s: 300.0,
            unpacked_gib: 16.0,
            unpacked_times: 100.0,
            index_mib: 64.0,
            dead_links: DeadLinks::Stop,
        }
    }
}

impl StorageConfig {
    /// Stall timeout of these settings.
    pub fn stall_timeout(&self) -> StallTimeout {
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
        StallTimeout { warning: seconds(self.stall_warning_s), limit: seconds(self.stall_limit_s) }
    }

    fn attempts(&self) -> Attempts {
        Attempts { most: self.attempts.get(), within: self.stall_timeout().limit }
    }

    fn unpack_limits(&self) -> UnpackLimits {
        UnpackLimits { most: (self.unpacked_gib * (1u64 << 30) as f64) as u64, times: self.unpacked_times }
    }
}

/// Opens files; shared by everything that belongs to one source.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
    progress: Arc<Progress>,
    cache: OnceLock<Cache>,
    /// URLs that were had.
    had: Mutex<HashSet<String>>,
    fetch: Fetch,
}

impl Default for Storage {
    fn default() -> Self {
        Storage::new(&StorageConfig::default())
    }
}

impl Storage {
    /// Nothing is opened or created yet.
    pub fn new(config: &StorageConfig) -> Self {
        let progress = Arc::<Progress>::default();
        let fetch = Fetch {
            attempts: config.attempts.get(),
            silence: config.stall_timeout().warning,
            dead_links: config.dead_links,
            progress: progress.clone(),
            #[cfg(feature = "remote")]
            remote: OnceLock::new(),
        };
        Storage { config: config.clone(), progress, cache: OnceLock::new(), had: Mutex::default(), fetch }
    }

    /// Reads in progress.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Stall timeout of these settings.
    pub fn stall_timeout(&self) -> StallTimeout {
        self.config.stall_timeout()
    }

    /// Attempts of these settings.
    pub(crate) fn attempts(&self) -> Attempts {
        self.config.attempts()
    }

    /// Most bytes of memory for the index of a shard.
    pub fn longest_index(&self) -> u64 {
        (self.config.index_mib * (1u64 << 20) as f64) as u64
    }

    /// Opens a file for reading at any place: one attempt, but for the transfer of a URL.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn open(&self, location: &Location) -> Result<Unpacked, StorageError> {
        let _reading = self.progress.reading(location.to_string().into());
        let failed = |source| StorageError::Io { location: location.clone(), source };
        let limits = self.config.unpack_limits();
        match location {
            Location::File(path) => {
                let folder = self.config.cache.clone().unwrap_or_else(std::env::temp_dir);
                let file = OpenFile::open(path).map_err(failed)?;
                unpack(file, &folder, limits, &self.progress).map_err(failed)
            }
            Location::Url(url) => {
                let cache = self.cache().map_err(failed)?;
                let file = match cache.entry(url, || self.progress.advance()).map_err(failed)? {
                    Entry::Whole(file) => file,
                    Entry::Absent(part) => match self.fetch.download(location, url, cache, part) {
                        // What was there a while ago has not ceased to exist.
                        Err(StorageError::Absent { detail, .. }) if self.was_had(url) => {
                            let detail = format!("{detail}, and had it before");
                            return Err(failed(io::Error::new(io::ErrorKind::NotFound, detail)));
                        }
                        file => file?,
                    },
                };
                self.had.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone());
                let file = OpenFile::of(file, cache.folder());
                unpack(file, cache.folder(), limits, &self.progress).map_err(failed)
            }
        }
    }

    fn was_had(&self, url: &str) -> bool {
        self.had.lock().unwrap_or_else(PoisonError::into_inner).contains(url)
    }

    /// Removes a file that turned out to be damaged from the cache; where it was. `None` where it lies elsewhere.
    pub(crate) fn forget(&self, location: &Location) -> Option<PathBuf> {
        match (location, self.cache.get()) {
            (Location::Url(url), Some(cache)) => Some(cache.forget(url)),
            _ => None,
        }
    }

    /// All bytes of a file, as they are; it is not kept in the cache. Where the system says that there is no such file
    /// on this machine, `is_absent` says whether that is so or a failure of the machine.
    ///
    /// # Errors
    /// It cannot be had, or has more than `longest` bytes.
    pub fn read(
        &self,
        location: &Location,
        longest: u64,
        is_absent: impl Fn() -> bool,
    ) -> Result<Vec<u8>, StorageError> {
        let _reading = self.progress.reading(location.to_string().into());
        let path = match location {
            Location::File(path) => path,
            Location::Url(url) => return self.fetch.read(location, url, longest),
        };
        self.attempts().make(|| {
            let mut bytes = Vec::new();
            let read = |bytes: &mut Vec<u8>| {
                (&OpenFile::open(path)?).take(longest.saturating_add(1)).read_to_end(bytes)
            };
            match read(&mut bytes) {
                Ok(_) if bytes.len() as u64 > longest => {
                    Err(StorageError::TooLong { location: location.clone(), longest })
                }
                Ok(_) => Ok(bytes),
                Err(error) if names_nothing(&error) && is_absent() => {
                    Err(StorageError::Absent { location: location.clone(), detail: error.to_string() })
                }
                Err(source) => Err(StorageError::Io { location: location.clone(), source }),
            }
        })
    }

    /// An image file that was found when its source was opened.
    ///
    /// # Errors
    /// It is too long, or cannot be read.
    pub fn image(&self, path: &Path) -> Result<Image, LoadError> {
        let location = Location::File(path.to_owned());
        self.read(&location, LONGEST_IMAGE, || false)
            .map(Image::Encoded)
            .map_err(|error| self.cause(error).of(|| location.to_string()))
    }

    /// The consequence for a sample of an image that cannot be read: a defect of the sample, or a failure of the run.
    pub(crate) fn cause(&self, error: StorageError) -> Cause {
        let reason = match &error {
            StorageError::TooLong { .. } => "image_too_large",
            StorageError::Absent { .. } => "image_missing",
            StorageError::Remote { .. } if self.config.dead_links == DeadLinks::Skip => "url_unreachable",
            StorageError::Io { .. } | StorageError::Remote { .. } | StorageError::Changed { .. } => {
                return error.into()
            }
        };
        Defect::new(reason, error.to_string()).into()
    }

    /// The files that a URL with wildcards stands for, sorted.
    ///
    /// # Errors
    /// The store cannot list, or does not answer.
    pub fn list(&self, pattern: &str) -> Result<Vec<Location>, StorageError> {
        let location = Location::Url(pattern.to_owned());
        let _reading = self.progress.reading(location.to_string().into());
        self.fetch.list(&location, pattern)
    }

    fn cache(&self) -> io::Result<&Cache> {
        if let Some(cache) = self.cache.get() {
            return Ok(cache);
        }
        let folder = self.config.cache.clone().unwrap_or_else(usual_cache);
        let limit = (self.config.cache_gib * (1u64 << 30) as f64) as u64;
        // Whoever waits for a source gives up first, and names the shard; this ends the thread that it leaves.
        let cache = Cache::open(&folder, limit, self.stall_timeout().limit.saturating_mul(2))
            .map_err(|error| io::Error::new(error.kind(), format!("cache {}: {error}", folder.display())))?;
        Ok(self.cache.get_or_init(|| cache))
    }
}

/// The folder where programs of this user keep such files.
fn usual_cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    caches.map_or_else(|| std::env::temp_dir().join("flip-cache"), |folder| folder.join("flip"))
}
