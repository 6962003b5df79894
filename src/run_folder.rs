//! The folder of one run: where each file lies, and the lock that keeps two processes out of it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::whole_file;

/// Locked by the process that writes into the folder.
const LOCK: &str = ".lock";
/// See [`RunFolder::model`].
const MODEL: &str = "model.ron";

/// Something is wrong with a run folder.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} already holds a run; continue it with --resume, start it again with --restart (which deletes it), or \
         choose another folder with --out"
    )]
    Occupied { path: PathBuf },
    #[error("{path} holds no run to resume (there is no recipe.ron in it); leave out --resume to start one, or write --resume-or-start")]
    NothingToResume { path: PathBuf },
    #[error("{path} is in use by another process that is still running")]
    Locked { path: PathBuf },
    #[error(
        "the run folder is no longer at {path}: it was moved, deleted or replaced while the run was writing into it. What \
         has been written so far is in it, wherever it is now; move it back and go on with --resume"
    )]
    Moved { path: PathBuf },
    #[error("{path} is not a folder; a run needs a new or an empty one")]
    NoFolder { path: PathBuf },
}

/// How a command wants to enter a run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The folder must be new or empty of runs.
    Start,
    /// A run that is there is deleted first.
    Restart,
    /// A run must be there.
    Resume,
}

/// An entered run folder. The lock is held until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    lock: File,
}

impl RunFolder {
    /// Creates or opens the folder, and locks it.
    pub fn enter(root: &Path, entry: Entry) -> Result<RunFolder, RunFolderError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RunFolderError::Io { path, source }
        };
        if root.exists() && !root.is_dir() {
            return Err(RunFolderError::NoFolder { path: root.into() });
        }
        let recipe = Self::recipe_of(root);
        match entry {
            Entry::Resume if !recipe.exists() => {
                return Err(RunFolderError::NothingToResume { path: root.into() })
            }
            Entry::Start if recipe.exists() || root.join(MODEL).exists() => {
                return Err(RunFolderError::Occupied { path: root.into() })
            }
            _ => {}
        }
        fs::create_dir_all(root).map_err(io(root))?;
        let lock_path = root.join(LOCK);
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunFolderError::Locked { path: root.into() }),
            Err(TryLockError::Error(source)) => return Err(RunFolderError::Io { path: lock_path, source }),
        }
        let folder = RunFolder { root: root.into(), lock };
        if entry == Entry::Restart {
            folder.delete_run()?;
        }
        for folder in [root.to_path_buf(), folder.examples(), root.join("curves")] {
            whole_file::remove_leftovers(&folder).map_err(io(&folder))?;
        }
        Ok(folder)
    }

    /// Removes what a run wrote, and nothing else that a person may have put there.
    fn delete_run(&self) -> Result<(), RunFolderError> {
        for file in [
            self.recipe(),
            self.metrics(),
            self.timing(),
            self.evaluations(),
            self.tokenizer(),
            self.identity(),
            self.amendments(),
            self.model(),
            self.masks(),
            self.complete(),
            self.root.join("report.html"),
        ] {
            match fs::remove_file(&file) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RunFolderError::Io { path: file, source }),
            }
        }
        let ranks = self.root.join("ranks");
        for folder in
            [self.checkpoints(), self.tensorboard(), self.examples(), self.root.join("curves"), ranks]
        {
            match fs::remove_dir_all(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(RunFolderError::Io { path: folder, source }),
            }
        }
        Ok(())
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The recipe with every default and override written out.
    pub fn recipe(&self) -> PathBuf {
        Self::recipe_of(&self.root)
    }
    /// The same of a folder that is not entered yet.
    pub fn recipe_of(root: &Path) -> PathBuf {
        root.join("recipe.ron")
    }
    /// Whether there is a run in a folder that is not entered yet.
    pub fn holds_run(root: &Path) -> bool {
        Self::recipe_of(root).exists()
    }
    /// The architecture of weights that were imported: such a folder has no recipe.
    pub fn model(&self) -> PathBuf {
        self.root.join(MODEL)
    }
    /// A line per logged step: what the seed determines.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }
    /// A line per logged step: what the clock says.
    pub fn timing(&self) -> PathBuf {
        self.root.join("timing.jsonl")
    }
    /// Results of the evaluation stages.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("eval.json")
    }
    /// The tokenizer the model was trained with.
    pub fn tokenizer(&self) -> PathBuf {
        Self::tokenizer_of(&self.root)
    }
    /// The same of a folder that is not entered yet.
    pub fn tokenizer_of(root: &Path) -> PathBuf {
        root.join("tokenizer.json")
    }
    /// What the run is of, and the list of its training files.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }
    /// What was changed in the recipe after the run began.
    pub fn amendments(&self) -> PathBuf {
        self.root.join("amendments.json")
    }
    /// There once the run has come to its end.
    pub fn complete(&self) -> PathBuf {
        Self::complete_of(&self.root)
    }
    /// The same of a folder that is not entered.
    pub fn complete_of(root: &Path) -> PathBuf {
        root.join("complete")
    }
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }
    /// Training images beside what their masks leave.
    pub fn masks(&self) -> PathBuf {
        self.root.join("masks.png")
    }
    /// Evaluated images with what was found for them, a file an evaluation.
    pub fn examples(&self) -> PathBuf {
        self.root.join("examples")
    }
    /// What a rank other than 0 logs, in a folder that is not entered.
    pub fn log_of_rank(root: &Path, rank: usize) -> PathBuf {
        root.join("ranks").join(format!("rank{rank:04}.log"))
    }
    /// Log levels, format and sinks; watched while the run goes on.
    pub fn logging(&self) -> PathBuf {
        Self::logging_of(&self.root)
    }
    /// The same of a folder that is not entered yet.
    pub fn logging_of(root: &Path) -> PathBuf {
        root.join("logging.ron")
    }

    /// Asks whether the folder is still where it was entered. Who writes by its name asks first: a folder that was moved
    /// away would be made anew, half of a run in each.
    pub fn still_there(&self) -> Result<(), RunFolderError> {
        let path = self.root.join(LOCK);
        let entered = self.lock.metadata().and_then(|lock| Ok((lock, fs::metadata(&path)?)));
        match entered {
            Ok((lock, there)) if same_file(&lock, &there) => Ok(()),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunFolderError::Io { path, source })
            }
            _ => Err(RunFolderError::Moved { path: self.root.clone() }),
        }
    }

    /// Writes a whole file so that a reader (or a crash) sees the old or the new one, never half of it.
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
        assert!(note.exists() && !root.join("recipe.ron").exists());
    }
}
