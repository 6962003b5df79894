//! Files of JSON lines: one object a line, growing at their end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::Serialize;

use super::{read_if_there, RecordError};
use crate::whole_file;

/// Bytes, more than the longest line of any of these files.
const LONGEST_LINE: u64 = 4096;

/// The rows of a file; none where it is absent. A line that is no row, such as one that is just being written, is left out.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read_lines<Row: DeserializeOwned>(path: &Path) -> Result<Vec<Row>, RecordError> {
    let bytes = read_if_there(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The last row of a file, of which only the end is read; none where there is no row.
pub fn last_line<Row: DeserializeOwned>(path: &Path) -> Option<Row> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LINE))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    String::from_utf8_lossy(&end).lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

/// A file of JSON lines that grows at its end. Every line is one write, so a reader sees whole lines and a
/// kill loses none that was appended.
#[derive(Debug)]
pub struct JsonLines<Row> {
    file: File,
    path: PathBuf,
    /// Bytes of whole lines in the file.
    position: u64,
    row: PhantomData<fn(Row)>,
}

impl<Row: Serialize> JsonLines<Row> {
    /// Opens or creates `path`. `keep_bytes` is the [`position`](Self::position) a checkpoint recorded: what
    /// comes after it was written by steps that will be done again, and is cut off. Without it everything
    /// stays, except a last line that was torn by a power loss.
    pub fn open(path: &Path, keep_bytes: Option<u64>) -> Result<Self, RecordError> {
        let io = |action| move |source| RecordError::Io { action, path: path.to_path_buf(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open"))?;
        let found = file.metadata().map_err(io("open"))?.len();
        let position = match keep_bytes {
            Some(expected) if !ends_line(&mut file, expected, found).map_err(io("read"))? => {
                return Err(RecordError::NotContinued { path: path.to_path_buf(), expected, found })
            }
            Some(expected) => expected,
            None => whole_lines(&mut file, found).map_err(io("read"))?,
        };
        if position < found {
            whole_file::step().map_err(io("truncate"))?;
            file.set_len(position).map_err(io("truncate"))?;
        }
        file.seek(SeekFrom::Start(position)).map_err(io("truncate"))?;
        Ok(JsonLines { file, path: path.to_path_buf(), position, row: PhantomData })
    }

    /// Appends a line. If it cannot be written as a whole, for example on a full disk, none of it stays.
    pub fn append(&mut self, row: &Row) -> Result<(), RecordError> {
        let written = serde_json::to_vec(row).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            whole_file::step()?;
            self.file.write_all(&line)?;
            whole_file::step()?;
            Ok(line.len() as u64)
        });
        match written {
            Ok(bytes) => {
                self.position += bytes;
                Ok(())
            }
            Err(source) => {
                // The write error is the one to tell; a torn line is also cut off when the file is next opened.
                let _ = self.file.set_len(self.position);
                let _ = self.file.seek(SeekFrom::Start(self.position));
                Err(RecordError::Io { action: "append to", path: self.path.clone(), source })
            }
        }
    }

    /// Bytes of whole lines, for a checkpoint to record.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes the lines survive a power loss; call it before a checkpoint records the position.
    pub fn sync(&self) -> Result<(), RecordError> {
        whole_file::step().and_then(|()| self.file.sync_data()).map_err(|source| RecordError::Io {
            action: "sync",
            path: self.path.clone(),
            source,
        })
    }
}

/// True if a line ends at byte `position` of a file of `length` bytes.
fn ends_line(file: &mut File, position: u64, length: u64) -> io::Result<bool> {
    if position == 0 || position > length {
        return Ok(position == 0);
    }
    let mut last = [0u8];
    file.seek(SeekFrom::Start(position - 1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// The length without a torn last line, searching backwards from `length`.
fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut window = [0u8; 4096];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(window.len() as u64);
        let window = &mut window[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(window)?;
        if let Some(at) = window.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Metrics, StepMetrics, StepTiming};

    #[test]
    fn rows_are_read_whatever_is_null_absent_or_torn() {
        let there = tempfile::tempdir().unwrap();
        let path = there.path().join("metrics.jsonl");
        let row = |step, loss| StepMetrics {
            stage: 0,
            step,
            samples: 8 * step,
            loss,
            lr: 1e-3,
            logit_scale: 14.3,
            grad_norm: f32::NAN,
        };
        let mut metrics = Metrics::open(&path, None).unwrap();
        metrics.append(&row(1, 2.5)).unwrap();
        metrics.append(&row(2, f32::INFINITY)).unwrap();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "{\"stage\":0,\"st").unwrap();
        let read: Vec<StepMetrics> = read_lines(&path).unwrap();
        assert_eq!((read.len(), read[0].loss, read[1].samples), (2, 2.5, 16));
        assert!(read[0].grad_norm.is_nan() && read[1].loss.is_nan());
        assert_eq!(last_line::<StepMetrics>(&path).unwrap().step, 2);
        // A row of another version.
        std::fs::write(&path, "{\"stage\":1,\"step\":7,\"more\":1}\n").unwrap();
        assert!(read_lines::<StepTiming>(&path).unwrap()[0].step_ms.is_nan());
        assert!(read_lines::<StepTiming>(&there.path().join("absent")).unwrap().is_empty());
        assert!(last_line::<StepTiming>(&there.path().join("absent")).is_none());
    }
}
