//! TensorBoard event files, scalars only.
//!
//! A file is a sequence of TFRecords, each: length as u64, masked CRC-32C of these 8 bytes, the record,
//! masked CRC-32C of the record, all little-endian. A record is an `Event` of
//! `tensorflow/core/util/event.proto`; the messages below are the part of it that scalars need.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::ReportError;
use crate::whole_file;

/// One record of an event file.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    #[prost(int64, tag = "2")]
    pub step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    pub what: Option<What>,
}

/// Content of a record.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum What {
    /// The first record of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<ScalarValue>,
}

/// A named number.
#[derive(Clone, PartialEq, Message)]
pub struct ScalarValue {
    #[prost(string, tag = "1")]
    pub tag: String,
    #[prost(float, tag = "2")]
    pub simple_value: f32,
}

/// Tells TensorBoard that a run begins, or begins again.
#[derive(Clone, PartialEq, Message)]
pub struct SessionLog {
    /// [`START`].
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// `SessionLog.SessionStatus.START`.
pub const START: i32 = 1;

/// Appends scalars to an event file of its own.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Begins an event file in `dir`, which is created where needed. `first_step` is the first step that
    /// will be written, 0 for a new run. A resumed run writes a file that sorts after those there are, and
    /// says that it starts again at `first_step`: TensorBoard then drops what earlier files have from this
    /// step on and shows one curve.
    pub fn create(dir: &Path, first_step: u64) -> Result<Self, ReportError> {
        fs::create_dir_all(dir).map_err(ReportError::io("create", dir))?;
        let latest = latest(dir).map_err(ReportError::io("list", dir))?;
        // Files are read in the order of their names. A clock that was set back must not change it.
        let mut second = latest.map_or(0, |latest| latest + 1).max(now().as_secs());
        let (file, path) = loop {
            let path = dir.join(format!("events.out.tfevents.{second:010}.flip"));
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => second += 1,
                Err(error) => return Err(ReportError::io("create", &path)(error)),
            }
        };
        let mut writer = EventWriter { file, path };
        writer.write(0, What::FileVersion("brain.Event:2".into()))?;
        writer.write(first_step, What::SessionLog(SessionLog { status: START }))?;
        Ok(writer)
    }

    /// Writes values of a step, for example `("train/loss", 2.3)`. The step counts on through the stages of
    /// a run. It is one write: a reader that looks in between sees whole records.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f32)]) -> Result<(), ReportError> {
        let values = scalars
            .iter()
            .map(|(tag, value)| ScalarValue { tag: tag.to_string(), simple_value: *value })
            .collect();
        self.write(step, What::Summary(Summary { values }))
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, step: u64, what: What) -> Result<(), ReportError> {
        // No run takes 2^63 steps.
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event { wall_time: now().as_secs_f64(), step, what: Some(what) };
        let record = record(&event.encode_to_vec());
        let written = whole_file::step().and_then(|()| self.file.write_all(&record));
        written.map_err(ReportError::io("append to", &self.path))
    }
}

/// The largest second in the name of an event file.
fn latest(dir: &Path) -> io::Result<Option<u64>> {
    let mut latest = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let second = name
            .to_str()
            .and_then(|name| name.strip_prefix("events.out.tfevents."))
            .and_then(|rest| rest.split('.').next()?.parse().ok());
        latest = latest.max(second);
    }
    Ok(latest)
}

/// Time since 1970; zero on a clock before it.
fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Frames the bytes of one event.
fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(event.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(event);
    record.extend(masked_crc(event).to_le_bytes());
    record
}

/// A CRC of data that contains CRCs is weak, so TFRecord rotates and offsets it.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The events of a file up to the first damaged record.
pub fn read(path: &Path) -> Result<Vec<Event>, ReportError> {
    let bytes = fs::read(path).map_err(ReportError::io("read", path))?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while let Some((event, after)) = next_event(rest) {
        events.push(event);
        rest = after;
    }
    Ok(events)
}

fn next_event(bytes: &[u8]) -> Option<(Event, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length_crc) != masked_crc(length) {
        return None;
    }
    let (event, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (event_crc, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*event_crc) != masked_crc(event) {
        return None;
    }
    Some((Event::decode(event).ok()?, rest))
}
