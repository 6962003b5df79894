//! Writing a file as a whole: whoever reads it, after a kill, a full disk or a power loss too, finds the former file or
//! the new one, never a part of it.
//!
//! The bytes go into a hidden file beside it, `.NAME.*.partial`, which is synced and renamed; then the folder is synced.
//! Leftovers of a killed process are removed by [`remove_leftovers`], and harm nobody until then.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Ending of a file that is being written.
const PARTIAL: &str = ".partial";
/// Characters of a file's name that its hidden name repeats: file systems end at 255 bytes.
const REPEATED: usize = 50;

/// Writes `contents` to `path`, in the place of what is there.
///
/// # Errors
/// The file at `path` is as it was, and nothing lies beside it.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_with(path, |out| {
        let (first, second) = contents.split_at(contents.len() / 2);
        out.write_all(first)?;
        step()?;
        out.write_all(second)
    })
}

/// As [`replace`], with what `fill` writes. What is no plain file, for example `/dev/stdout`, is written to directly.
///
/// # Errors
/// `fill`'s own, or the disk's; as for [`replace`].
pub fn replace_with<T>(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> io::Result<T> {
    let there = fs::metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        let mut out = BufWriter::new(File::create(path)?);
        let filled = fill(&mut out)?;
        out.flush()?;
        return Ok(filled);
    }
    let path = behind_links(path);
    let folder = folder_of(&path);
    step()?;
    let partial = create_beside(&path, folder)?;
    step()?;
    let mut out = BufWriter::new(partial.as_file().try_clone()?);
    let filled = fill(&mut out)?;
    out.flush()?;
    step()?;
    if let Some(there) = there {
        // The new file may be read by those who could read the former one. Some file systems know no permissions.
        let _ = partial.as_file().set_permissions(there.permissions());
    }
    partial.as_file().sync_all()?;
    step()?;
    partial.persist(&path)?;
    step()?;
    sync_folder(folder)?;
    Ok(filled)
}

/// Makes new and renamed entries of a folder survive a power loss.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and a rename is as durable as the system makes it.
    if cfg!(unix) {
        match File::open(folder)?.sync_all() {
            // A file system that cannot do this has no better to offer.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Removes what processes that were killed left half-written in `folder`; one that is still writing keeps its file. A
/// folder that is not there has none.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    remove_named(folder, ".")
}

/// The same of what was to become the file at `path`, in a folder where others may have hidden files of their own.
pub fn remove_leftovers_of(path: &Path) -> io::Result<()> {
    let path = behind_links(path);
    remove_named(folder_of(&path), &prefix_of(&path))
}

fn remove_named(folder: &Path, prefix: &str) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(PARTIAL));
        if !hidden || !entry.file_type()?.is_file() {
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) if file.try_lock().is_ok() => fs::remove_file(entry.path())?,
            // Renamed meanwhile, or in use.
            _ => {}
        }
    }
    Ok(())
}

fn create_beside(path: &Path, folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let prefix = prefix_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(PARTIAL);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As every new file: the user's mask takes from these.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder)?;
    // Tells `remove_leftovers` of another process that this one lives. Not every file system locks.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Begin of the name of a file that is to become the one at `path`.
fn prefix_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!(".{}.", name.chars().take(REPEATED).collect::<String>())
}

/// The file that a link names: it is replaced, and the link stays.
fn behind_links(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A moment between two changes on the disk, at which a test can end the process or fill the disk.
#[cfg(not(test))]
#[inline(always)]
pub(crate) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use interrupted::step;

/// Ends the process, or fails, at a step that the environment names.
#[cfg(test)]
pub(crate) mod interrupted {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::OnceLock;

    /// `abort:N` ends the process at its Nth step, `full:N` fails that step and every later one as a full disk does.
    pub const STEP: &str = "FLIP_TEST_INTERRUPTED_AT";

    static TAKEN: AtomicU64 = AtomicU64::new(0);

    /// Steps that this process has taken.
    pub fn taken() -> u64 {
        TAKEN.load(Ordering::SeqCst)
    }

    pub fn step() -> io::Result<()> {
        static AT: OnceLock<Option<(bool, u64)>> = OnceLock::new();
        let step = TAKEN.fetch_add(1, Ordering::SeqCst) + 1;
        let at = AT.get_or_init(|| {
            let given = std::env::var(STEP).ok()?;
            let (how, at) = given.split_once(':')?;
            Some((how == "abort", at.parse().ok()?))
        });
        match *at {
            Some((true, at)) if step == at => std::process::abort(),
            Some((false, at)) if step >= at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_leaves_the_former_file_and_nothing_else() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("eval.json");
        replace(&path, b"former").unwrap();
        let full = replace_with(&path, |out| {
            out.write_all(b"half of the new")?;
            out.flush()?;
            Err::<(), _>(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"former");
        assert_eq!(names(there.path()), ["eval.json"]);
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(there.path()), ["eval.json"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_is_being_written_is_not() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("eval.json");
        fs::write(there.path().join(".eval.json.x1y2z3.partial"), b"[{").unwrap();
        fs::write(there.path().join("mine.partial"), b"a person's").unwrap();
        let other = there.path().join(".other.x1y2z3.partial");
        fs::write(&other, b"[{").unwrap();
        remove_leftovers_of(&there.path().join("absent.json")).unwrap();
        remove_leftovers_of(&path).unwrap();
        assert_eq!(names(there.path()), [".other.x1y2z3.partial", "mine.partial"]);
        fs::write(there.path().join(".eval.json.x1y2z3.partial"), b"[{").unwrap();
        replace_with(&path, |out| {
            remove_leftovers(there.path())?;
            out.write_all(b"[]")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"[]");
        assert_eq!(names(there.path()), ["eval.json", "mine.partial"]);
        remove_leftovers(&there.path().join("absent")).unwrap();
    }

    #[test]
    fn names_as_long_as_they_may_be_are_written() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("ä".repeat(127));
        replace(&path, b"here").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"here");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay_and_what_is_no_file_is_written_to() {
        use std::os::unix::fs::{symlink, PermissionsExt};
        let there = tempfile::tempdir().unwrap();
        let [path, link] = ["card.md", "link.md"].map(|name| there.path().join(name));
        fs::write(&path, b"former").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        replace(Path::new("/dev/null"), b"nothing").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
