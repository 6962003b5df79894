//! A folder of downloaded files with a limit on its size.
//!
//! A file is written beside its place and renamed, so that what is there is whole. Processes that want the same
//! file at the same time wait for one of them to bring it. Files that were used longest ago make room; a
//! removed file stays readable for whoever has it open.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::data::storage::attempts::fixed;

/// Extension of whole files.
const WHOLE: &str = "whole";
/// Extension of files that are being written; whoever writes one holds a lock on it.
const PART: &str = "part";
/// A file of a length that nobody knows takes room in steps of this many bytes.
const STEP: u64 = 64 << 20;
/// Time between two looks at a lock that another process holds.
const LOOK: Duration = Duration::from_millis(20);

/// The folder.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    /// Bytes.
    limit: u64,
    /// Time that another process may take without the file growing.
    stall_timeout: Duration,
}

/// A file that is being brought.
#[derive(Debug)]
pub struct PartialFile {
    pub file: File,
    path: PathBuf,
    whole: PathBuf,
}

/// The state of a name in the cache.
#[derive(Debug)]
pub enum Entry {
    /// The whole file.
    Whole(File),
    /// Nothing; the caller has to bring it, and nobody else does meanwhile.
    Absent(PartialFile),
}

impl Cache {
    /// Opens the folder and creates it where it is not there.
    pub fn open(folder: &Path, limit: u64, stall_timeout: Duration) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Cache { folder: folder.to_owned(), limit, stall_timeout })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, name: &str) -> PathBuf {
        let digest = Sha256::digest(name.as_bytes());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(hex)
    }

    /// The file of this name, or the place to write it to. `grown` is called whenever the file has grown that
    /// another thread or process is writing meanwhile.
    ///
    /// # Errors
    /// The folder cannot be used, or another one has been at the file for too long.
    pub fn entry(&self, name: &str, mut grown: impl FnMut()) -> io::Result<Entry> {
        let whole = self.path(name).with_extension(WHOLE);
        let path = self.path(name).with_extension(PART);
        let mut wait = Growth::begin();
        loop {
            match File::open(&whole) {
                Ok(file) => {
                    // The time of last use; a folder that does not keep it loses older files first.
                    let _ = file.set_modified(SystemTime::now());
                    return Ok(Entry::Whole(file));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => {
                    // Between the first look and the lock another process may have finished.
                    if whole.exists() {
                        let _ = fs::remove_file(&path);
                        continue;
                    }
                    file.set_len(0)?;
                    return Ok(Entry::Absent(PartialFile { file, path, whole }));
                }
                // It was finished or given up meanwhile.
                Ok(()) => continue,
                Err(TryLockError::WouldBlock) => {
                    if wait.grown(file.metadata()?.modified().ok()) {
                        grown();
                    }
                    if wait.since.elapsed() > self.stall_timeout {
                        let detail =
                            format!("somebody else has been writing {} for too long", path.display());
                        return Err(fixed(io::ErrorKind::TimedOut, detail));
                    }
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Makes room for all of a file before it is written: its length is reserved, so that other processes see
    /// what is still to come.
    ///
    /// # Errors
    /// It is larger than the limit, or other processes need the room for too long.
    pub fn reserve(&self, part: &PartialFile, bytes: u64) -> io::Result<()> {
        if bytes > self.limit {
            let detail = format!(
                "a file of {bytes} bytes in a cache of {} bytes; raise data.storage.cache_gib",
                self.limit
            );
            return Err(fixed(io::ErrorKind::StorageFull, detail));
        }
        let began = Instant::now();
        loop {
            if self.try_reserve(part, bytes)? {
                return Ok(());
            }
            if began.elapsed() > self.stall_timeout {
                let detail =
                    "the cache is full of files that are being written; raise data.storage.cache_gib";
                return Err(fixed(io::ErrorKind::StorageFull, detail));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Makes room for the first `bytes` bytes of a file whose length is not known, and for some more.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_some(&self, part: &PartialFile, bytes: u64) -> io::Result<()> {
        if bytes <= part.file.metadata()?.len() {
            return Ok(());
        }
        let steps = bytes.checked_next_multiple_of(STEP).unwrap_or(bytes);
        self.reserve(part, steps.min(self.limit).max(bytes))
    }

    /// Removes a file that turned out to be another one than it should; where it was.
    pub fn forget(&self, name: &str) -> PathBuf {
        let whole = self.path(name).with_extension(WHOLE);
        // Whoever cannot remove it reads it again, and tells of it again.
        let _ = fs::remove_file(&whole);
        whole
    }

    fn try_reserve(&self, part: &PartialFile, bytes: u64) -> io::Result<bool> {
        // One process at a time counts and reserves.
        let guard = self.folder.join("lock");
        let guard = OpenOptions::new().write(true).create(true).truncate(false).open(guard)?;
        match guard.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut whole = Vec::new();
        let mut used = 0;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // A file may vanish between the listing and the look at it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let extension = path.extension().unwrap_or_default();
            if extension == PART && path != part.path {
                if abandoned(&path) {
                    let _ = fs::remove_file(&path);
                } else {
                    used += metadata.len();
                }
            } else if extension == WHOLE {
                used += metadata.len();
                whole.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), path));
            }
        }
        whole.sort();
        for (_, length, path) in whole {
            if used + bytes <= self.limit {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => used -= length,
            }
        }
        if used + bytes > self.limit {
            return Ok(false);
        }
        part.file.set_len(bytes)?;
        Ok(true)
    }
}

impl PartialFile {
    /// Puts the file into its place, whole: it is then found under its name.
    pub fn finish(self) -> io::Result<File> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.whole)?;
        // Opened again, so that the lock ends here whatever the caller does with the file.
        File::open(&self.whole)
    }

    /// Leaves nothing behind.
    pub fn give_up(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// True if a file that was opened is still the one under its name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(opened), Ok(named)) => identity(opened) == identity(named),
        _ => false,
    }
}

/// True if nobody writes a partial file any more: its process is gone.
fn abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// Tells a file that another process writes from one that it has stopped writing.
struct Growth {
    last: Option<SystemTime>,
    since: Instant,
}

impl Growth {
    fn begin() -> Self {
        Growth { last: None, since: Instant::now() }
    }

    /// True if it has grown since the last look; the first only remembers its size.
    fn grown(&mut self, changed: Option<SystemTime>) -> bool {
        let grown = self.last.is_some() && changed != self.last;
        if grown {
            self.since = Instant::now();
        }
        self.last = changed;
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn cache(folder: &Path, limit: u64) -> Cache {
        Cache::open(folder, limit, Duration::from_millis(300)).unwrap()
    }

    fn bring(cache: &Cache, name: &str, bytes: usize) -> io::Result<bool> {
        match cache.entry(name, || ())? {
            Entry::Whole(_) => Ok(false),
            Entry::Absent(mut part) => {
                cache.reserve(&part, bytes as u64)?;
                part.file.write_all(&vec![name.as_bytes()[0]; bytes])?;
                part.finish()?;
                Ok(true)
            }
        }
    }

    fn used(folder: &Path) -> u64 {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    #[test]
    fn the_least_recently_used_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 1000);
        for name in ["a", "b", "c"] {
            assert!(bring(&cache, name, 300).unwrap());
            std::thread::sleep(Duration::from_millis(15));
        }
        assert!(!bring(&cache, "a", 300).unwrap(), "used again");
        std::thread::sleep(Duration::from_millis(15));
        let Entry::Whole(mut open) = cache.entry("b", || ()).unwrap() else { panic!("it is there") };
        std::thread::sleep(Duration::from_millis(15));
        bring(&cache, "a", 300).unwrap();
        assert!(bring(&cache, "d", 500).unwrap());
        assert!(used(folder.path()) <= 1000);
        assert!(!bring(&cache, "a", 300).unwrap(), "c and b were older");
        let mut kept = String::new();
        open.read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "b".repeat(300), "an open file stays whole");
        let error = bring(&cache, "e", 1001).unwrap_err().to_string();
        assert!(
            error.contains("1001 bytes in a cache of 1000 bytes; raise data.storage.cache_gib"),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_brought_by_one_while_the_others_wait() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1000, Duration::from_secs(20)).unwrap();
        let brought: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| match cache.entry("x", || ()).unwrap() {
                        Entry::Whole(_) => 0,
                        Entry::Absent(mut part) => {
                            cache.reserve(&part, 5).unwrap();
                            std::thread::sleep(Duration::from_millis(60));
                            part.file.write_all(b"whole").unwrap();
                            part.finish().unwrap();
                            1
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(brought, 1);
    }

    #[test]
    fn whoever_waits_is_told_that_the_file_grows() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 1000, Duration::from_millis(1500)).unwrap();
        let Entry::Absent(mut part) = cache.entry("a", || ()).unwrap() else { panic!("nothing is there") };
        let mut told = 0;
        std::thread::scope(|scope| {
            // For longer than the stall_timeout, and never still for nearly as long.
            scope.spawn(move || {
                for _ in 0..40 {
                    std::thread::sleep(Duration::from_millis(50));
                    part.file.write_all(b"more").unwrap();
                }
                part.finish().unwrap();
            });
            assert!(matches!(cache.entry("a", || told += 1).unwrap(), Entry::Whole(_)));
        });
        assert!(told > 0);
    }

    #[test]
    fn parts_hold_their_room_and_abandoned_ones_give_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 1000);
        let Entry::Absent(part) = cache.entry("a", || ()).unwrap() else { panic!("nothing is there") };
        cache.reserve(&part, 800).unwrap();
        let error = cache.entry("a", || ()).unwrap_err().to_string();
        assert!(error.contains("somebody else has been writing"), "{error}");
        let error = bring(&cache, "b", 300).unwrap_err().to_string();
        assert!(error.contains("full of files that are being written"), "{error}");
        drop(part);
        assert!(bring(&cache, "b", 300).unwrap(), "whoever wrote a is gone");
        assert!(bring(&cache, "a", 600).unwrap());
        let Entry::Absent(part) = cache.entry("c", || ()).unwrap() else { panic!("nothing is there") };
        part.give_up();
        assert_eq!(used(folder.path()), 900);
    }
}
