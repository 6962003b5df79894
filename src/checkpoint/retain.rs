//! Removal of older snapshots, and the hidden folders that make removal and replacement safe to interrupt.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::error::CheckpointError;
use super::name::Name;
use crate::whole_file;

/// A folder in the middle of something. Its name is the snapshot's behind a prefix that starts with a dot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hidden {
    /// Not complete yet.
    Writing,
    /// Was complete; a new one of the same name takes its place.
    Replaced,
    /// Being removed.
    Removing,
}

impl Hidden {
    const ALL: [Hidden; 3] = [Hidden::Writing, Hidden::Replaced, Hidden::Removing];

    fn prefix(self) -> &'static str {
        match self {
            Hidden::Writing => ".writing-",
            Hidden::Replaced => ".replaced-",
            Hidden::Removing => ".removing-",
        }
    }

    pub(super) fn path(self, dir: &Path, name: Name) -> PathBuf {
        dir.join(format!("{}{name}", self.prefix()))
    }

    fn parse(file_name: &str) -> Option<(Hidden, Name)> {
        Self::ALL.into_iter().find_map(|hidden| {
            let name = file_name.strip_prefix(hidden.prefix())?.parse().ok()?;
            Some((hidden, name))
        })
    }
}

/// Creates `dir` where needed and clears what a killed write or removal left there; call it once before a
/// run writes. Returns the folders it removed. A snapshot that was moved aside for a replacement which
/// never came is put back.
pub fn prepare(dir: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    fs::create_dir_all(dir).map_err(CheckpointError::io("create", dir))?;
    let mut removed = Vec::new();
    for file_name in file_names(dir)? {
        let Some((hidden, name)) = Hidden::parse(&file_name) else { continue };
        let path = dir.join(&file_name);
        let folder = dir.join(name.to_string());
        if matches!(hidden, Hidden::Replaced) && !folder.exists() {
            fs::rename(&path, &folder).map_err(CheckpointError::io("put back", &folder))?;
        } else {
            remove_folder(&path)?;
            removed.push(path);
        }
    }
    sync_folder(dir)?;
    removed.sort();
    Ok(removed)
}

/// Removes snapshots older than `current`, the one just written, except the `keep` newest (`current`
/// counts as one), the last of every stage, and the `protected`. Snapshots that sort after `current` stay:
/// a run that went back to an older one has not reached them yet. Returns the folders it removed.
pub fn retain(
    dir: &Path,
    current: Name,
    keep: NonZeroUsize,
    protected: &[Name],
) -> Result<Vec<PathBuf>, CheckpointError> {
    let past: Vec<Name> = snapshots(dir)?.into_iter().filter(|name| *name <= current).collect();
    let last_of_stage: BTreeMap<usize, Name> = past.iter().map(|name| (name.stage, *name)).collect();
    let older = past.len().saturating_sub(keep.get());
    let mut removed = Vec::new();
    for name in &past[..older] {
        if protected.contains(name) || last_of_stage.get(&name.stage) == Some(name) {
            continue;
        }
        let folder = dir.join(name.to_string());
        let hidden = Hidden::Removing.path(dir, *name);
        remove_folder(&hidden)?;
        // Renamed first: a removal cut short must not leave something that looks like a snapshot.
        let renamed = whole_file::step().and_then(|()| fs::rename(&folder, &hidden));
        renamed.map_err(CheckpointError::io("remove", &folder))?;
        remove_folder(&hidden)?;
        removed.push(folder);
    }
    Ok(removed)
}

/// Names of the snapshots in `dir`, oldest first; none where there is no such folder.
pub(super) fn snapshots(dir: &Path) -> Result<Vec<Name>, CheckpointError> {
    let mut names: Vec<Name> = file_names(dir)?.iter().filter_map(|name| name.parse().ok()).collect();
    names.sort();
    Ok(names)
}

/// Removes a folder that may be absent.
pub(super) fn remove_folder(folder: &Path) -> Result<(), CheckpointError> {
    match whole_file::step().and_then(|()| fs::remove_dir_all(folder)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

fn file_names(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(CheckpointError::io("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("list", dir))?;
        // A name that is not text is none of ours.
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// Makes renames and new entries of a folder survive a power loss.
pub(super) fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    let synced = whole_file::step().and_then(|()| whole_file::sync_folder(folder));
    synced.map_err(CheckpointError::io("sync", folder))
}
