//! A run folder that a process has entered: the lock that keeps two processes out of it, and writing into it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::RunPaths;
use crate::whole_file;

/// A run folder that cannot be entered or written into.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// The disk, or permissions.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A run was to start where there is one.
    #[error(
        "{path} already holds a run; continue it with --resume, start it again with --restart (which deletes it), or \
         choose another folder with --out"
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A run was to go on where there is none.
    #[error(
        "{path} holds no run to resume (there is no recipe.ron in it); leave out --resume to start one, or write \
         --resume-or-start"
    )]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has entered it.
    #[error("{path} is in use by another process that is still running")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// It was there, and is not any more.
    #[error(
        "the run folder is no longer at {path}: it was moved, deleted or replaced while the run was writing into it. What \
         has been written so far is in it, wherever it is now; move it back and go on with --resume"
    )]
    Moved {
        /// The folder.
        path: PathBuf,
    },
    /// There is a file.
    #[error("{path} is not a folder; a run needs a new or an empty one")]
    NoFolder {
        /// The file.
        path: PathBuf,
    },
}

/// The state that a run folder must be in to be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The folder must be new or empty of runs.
    Start,
    /// A run that is there is deleted first.
    Restart,
    /// A run must be there.
    Resume,
}

/// An entered run folder: a lock, held until this is dropped, on the files that [`RunPaths`] lists.
#[derive(Debug)]
pub struct RunFolder {
    paths: RunPaths,
    lock: File,
}

impl Deref for RunFolder {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

impl RunFolder {
    /// Creates or opens the folder `root`, and locks it.
    ///
    /// # Errors
    /// The folder is not in the state that `entry` asks for, another process is in it, or the disk's.
    pub fn enter(root: &Path, entry: Entry) -> Result<RunFolder, RunFolderError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RunFolderError::Io { path, source }
        };
        if root.exists() && !root.is_dir() {
            return Err(RunFolderError::NoFolder { path: root.into() });
        }
        let paths = RunPaths::new(root);
        match entry {
            Entry::Resume if !paths.holds_run() => {
                return Err(RunFolderError::NothingToResume { path: root.into() })
            }
            Entry::Start if paths.holds_run() || paths.model().exists() => {
                return Err(RunFolderError::Occupied { path: root.into() })
            }
            _ => {}
        }
        fs::create_dir_all(root).map_err(io(root))?;
        let lock_path = paths.lock_file();
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunFolderError::Locked { path: root.into() }),
            Err(TryLockError::Error(source)) => return Err(RunFolderError::Io { path: lock_path, source }),
        }
        let folder = RunFolder { paths, lock };
        if entry == Entry::Restart {
            folder.delete_run()?;
        }
        for folder in [root.to_path_buf(), folder.examples(), folder.curves()] {
            whole_file::remove_leftovers(&folder).map_err(io(&folder))?;
        }
        Ok(folder)
    }

    /// Removes the files of a run, and nothing else that a person may have put there.
    fn delete_run(&self) -> Result<(), RunFolderError> {
        let files = [
            self.recipe(),
            self.metrics(),
            self.timing(),
            self.evaluations(),
            self.tokenizer(),
            self.identity(),
            self.amendments(),
            self.lengths(),
            self.processes(),
            self.model(),
            self.masks(),
            self.complete(),
            self.report(),
        ];
        let folders =
            [self.checkpoints(), self.tensorboard(), self.examples(), self.curves(), self.rank_logs()];
        let files = files.into_iter().map(|path| (fs::remove_file(&path), path));
        let folders = folders.into_iter().map(|path| (fs::remove_dir_all(&path), path));
        for (removed, path) in files.chain(folders) {
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RunFolderError::Io { path, source })
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses to go on where the folder is no longer where it was entered. Who writes by its name asks first: a folder that was
    /// moved away would be made anew, half of a run in each.
    ///
    /// # Errors
    /// It was moved, deleted or replaced.
    pub fn still_there(&self) -> Result<(), RunFolderError> {
        let path = self.lock_file();
        let entered = self.lock.metadata().and_then(|lock| Ok((lock, fs::metadata(&path)?)));
        match entered {
            Ok((lock, there)) if same_file(&lock, &there) => Ok(()),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunFolderError::Io { path, source })
            }
            _ => Err(RunFolderError::Moved { path: self.root().to_path_buf() }),
        }
    }

    /// Writes a whole file so that a reader (or a crash) sees the old or the new one, never half of it.
    ///
    /// # Errors
    /// The folder was moved, or the disk's.
    pub fn replace(&self, path: &Path, contents: &[u8]) -> Result<(), RunFolderError> {
        self.still_there()?;
        whole_file::replace(path, contents).map_err(|source| RunFolderError::Io { path: path.into(), source })
    }
}

#[cfg(unix)]
fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    one.created().ok() == other.created().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_moved_away_is_not_written_to() {
        let there = tempfile::tempdir().unwrap();
        let [root, moved] = ["run", "moved"].map(|name| there.path().join(name));
        let folder = RunFolder::enter(&root, Entry::Start).unwrap();
        folder.replace(&folder.recipe(), b"()").unwrap();
        fs::rename(&root, &moved).unwrap();
        let write = || folder.replace(&folder.complete(), b"flip");
        assert!(matches!(write(), Err(RunFolderError::Moved { .. })));
        assert!(!root.exists());
        fs::create_dir(&root).unwrap();
        let other = RunFolder::enter(&root, Entry::Start).unwrap();
        assert!(matches!(write(), Err(RunFolderError::Moved { .. })));
        drop(other);
        fs::remove_dir_all(&root).unwrap();
        fs::rename(&moved, &root).unwrap();
        write().unwrap();
    }

    #[test]
    fn a_run_is_not_overwritten_and_not_shared() {
        let there = tempfile::tempdir().unwrap();
        let root = there.path().join("run");
        assert!(matches!(
            RunFolder::enter(&root, Entry::Resume),
            Err(RunFolderError::NothingToResume { .. })
        ));
        let folder = RunFolder::enter(&root, Entry::Start).unwrap();
        folder.replace(&folder.recipe(), b"()").unwrap();
        assert!(matches!(RunFolder::enter(&root, Entry::Resume), Err(RunFolderError::Locked { .. })));
        drop(folder);
        assert!(matches!(RunFolder::enter(&root, Entry::Start), Err(RunFolderError::Occupied { .. })));
        let note = root.join("note.txt");
        fs::write(&note, "mine").unwrap();
        RunFolder::enter(&root, Entry::Restart).unwrap();
        assert!(note.exists() && !RunPaths::new(&root).holds_run());
    }
}
