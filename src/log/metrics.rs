//! `metrics.jsonl` and `timing.jsonl`: one JSON object a line.
//!
//! They are two files on purpose. A run that is killed and resumed computes the same losses as one that is
//! not, so its `metrics.jsonl` is the same, byte for byte, and comparing two files proves it. How fast the
//! machine was is never the same twice, and goes to `timing.jsonl`.
//!
//! A float that is not finite is written as null: JSON has no word for it, and readers of a string in the
//! place of a number break.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::LogError;
use crate::whole_file;

/// A line of `metrics.jsonl`: what the computation gave, and nothing that depends on the clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepMetrics {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of this stage that are done.
    pub step: u64,
    /// Pairs the whole run has seen.
    pub samples: u64,
    /// Of the batch of this step, before its update; nats.
    pub loss: f32,
    /// Learning rate of this update.
    pub lr: f64,
    /// The factor on the similarities (the exponential of the parameter).
    pub logit_scale: f32,
    /// Global L2 norm before clipping.
    pub grad_norm: f32,
}

/// A line of `timing.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepTiming {
    /// Index of the stage in the recipe.
    pub stage: usize,
    /// Updates of this stage that are done.
    pub step: u64,
    /// Pairs a second since the line before.
    pub images_per_s: f64,
    /// Share of that time spent waiting for data, 0 to 1.
    pub data_wait: f64,
    /// Mean milliseconds of a step since the line before: without evaluations, checkpoints, and time in which the
    /// process was stopped.
    pub step_ms: f64,
    /// Seconds since this process began the stage.
    pub elapsed_s: f64,
}

/// `metrics.jsonl`.
pub type Metrics = JsonLines<StepMetrics>;
/// `timing.jsonl`.
pub type Timing = JsonLines<StepTiming>;

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
    pub fn open(path: &Path, keep_bytes: Option<u64>) -> Result<Self, LogError> {
        let io = |action| move |source| LogError::Io { action, path: path.to_path_buf(), source };
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
                return Err(LogError::NotContinued { path: path.to_path_buf(), expected, found })
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
    pub fn append(&mut self, row: &Row) -> Result<(), LogError> {
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
                Err(LogError::Io { action: "append to", path: self.path.clone(), source })
            }
        }
    }

    /// Bytes of whole lines, for a checkpoint to record.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Makes the lines survive a power loss; call it before a checkpoint records the position.
    pub fn sync(&self) -> Result<(), LogError> {
        whole_file::step().and_then(|()| self.file.sync_data()).map_err(|source| LogError::Io {
            action: "sync",
            path: self.path.clone(),
            source,
        })
    }
}

/// Whether a line ends at byte `position` of a file of `length` bytes.
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
