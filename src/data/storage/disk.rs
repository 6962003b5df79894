//! The calls by which files are read and unpacked. They are few and in one place, so that tests can make each of them
//! fail as a machine does.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::data::storage::attempts::fixed;

/// A file that is open for reading at any place.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    /// The last error of reading it.
    failure: Mutex<Option<io::Error>>,
    /// Its path, or the folder of a file without a name.
    #[cfg(test)]
    path: PathBuf,
}

impl OpenFile {
    /// Opens a regular file; anything else could block for ever.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn open(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        faults::raise(faults::Call::Open, path)?;
        if !std::fs::metadata(path)?.is_file() {
            return Err(fixed(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(OpenFile::of(File::open(path)?, path))
    }

    /// A new file without a name in a folder, for writing too.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn temporary(folder: &Path) -> io::Result<Self> {
        #[cfg(test)]
        faults::raise(faults::Call::Create, folder)?;
        Ok(OpenFile::of(tempfile::tempfile_in(folder)?, folder))
    }

    /// One that is open already; `path` is where it lies.
    pub fn of(file: File, _path: &Path) -> Self {
        OpenFile {
            file,
            failure: Mutex::default(),
            #[cfg(test)]
            path: _path.to_owned(),
        }
    }

    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills the buffer from this place of the file.
    ///
    /// # Errors
    /// The system refuses it, or the file ends before: [`io::ErrorKind::UnexpectedEof`].
    pub fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut read = 0;
        while read < buffer.len() {
            match self.read_at(&mut buffer[read..], at + read as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads some bytes from this place of the file; none at its end.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.noting(|| self.file.read_at(buffer, at))
    }

    /// The last error of reading it, which a parser or a decoder told as if the file were damaged.
    pub fn take_failure(&self) -> Option<io::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn noting(&self, read: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        #[cfg(test)]
        let read = || faults::raise(faults::Call::Read, &self.path).and_then(|()| read());
        read().inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(copied(error));
            }
        })
    }
}

/// Errors cannot be cloned.
fn copied(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Metadata of the file of this name; `None` where there is none.
///
/// # Errors
/// The system cannot tell.
pub fn look(path: &Path) -> io::Result<Option<Metadata>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if names_nothing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if the system says that there is no such file, or that there can be none: its name is too long, or it is a
/// folder's.
pub(crate) fn names_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
    )
}

/// A folder that files are named in, by which a file that does not exist is told from a disk that is away.
#[derive(Debug, Clone)]
pub struct Base {
    folder: PathBuf,
    /// Device and number: an empty mount point has others than what is mounted there.
    identity: (u64, u64),
}

impl Base {
    /// The folder as it is now.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(folder: &Path) -> io::Result<Self> {
        // The folder of a plain file name.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let metadata = std::fs::metadata(folder)?;
        Ok(Base { folder: folder.to_owned(), identity: (metadata.dev(), metadata.ino()) })
    }

    /// True if a file is named in it.
    pub fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.folder) || (self.folder == Path::new(".") && path.is_relative())
    }

    /// True if it is still there.
    pub fn is_there(&self) -> bool {
        Base::of(&self.folder).is_ok_and(|now| now.identity == self.identity)
    }
}

/// From its beginning on, in order.
impl Read for &OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.noting(|| (&self.file).read(buffer))
    }
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        faults::raise(faults::Call::Write, &self.path)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Failures of the machine, made for tests.
#[cfg(test)]
pub(crate) mod faults {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, PoisonError};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Call {
        Open,
        Create,
        Read,
        Write,
    }

    struct Fault {
        call: Call,
        /// Files below it.
        folder: PathBuf,
        number: i32,
        /// Calls that succeed before.
        after: usize,
        times: usize,
    }

    static FAULTS: Mutex<Vec<Fault>> = Mutex::new(Vec::new());

    /// Calls for files of this folder fail with the error of this number: so many times, after so many that succeed.
    pub fn set(call: Call, folder: &Path, number: i32, after: usize, times: usize) {
        let fault = Fault { call, folder: folder.to_owned(), number, after, times };
        FAULTS.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// True if all failures of this folder have come.
    pub fn done(folder: &Path) -> bool {
        let faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter().all(|fault| fault.folder != folder || fault.times == 0)
    }

    pub fn raise(call: Call, path: &Path) -> io::Result<()> {
        let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter_mut().filter(|fault| fault.call == call && path.starts_with(&fault.folder)) {
            match (fault.after, fault.times) {
                (0, 0) => {}
                (0, times) => {
                    fault.times = times - 1;
                    return Err(io::Error::from_raw_os_error(fault.number));
                }
                (after, _) => fault.after = after - 1,
            }
        }
        Ok(())
    }
}
