//! The processes that worked on a run, `processes.json` of a run folder: command, version, machine, beginning.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::{read_if_there, RecordError, RunPaths};
use crate::outside;
use crate::whole_file;

/// A process that worked on a run. Of several ranks it is rank 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its beginning: UTC, RFC 3339.
    pub began: String,
    /// `flip 0.1.0`.
    pub version: String,
    /// Its arguments, as a shell takes them, without the secrets of URLs.
    pub command: String,
    /// Processor or GPU, and memory.
    pub machine: String,
    /// Processes that worked together.
    pub ranks: usize,
    /// Training data, as the recipe names it.
    pub data: String,
}

impl Process {
    /// This process, from now on. `gpu` is the name of the one it computes on, `data` is the recipe's training data.
    pub fn here(gpu: Option<&str>, ranks: usize, data: &str) -> Process {
        let arguments = std::env::args_os().skip(1).map(|argument| quoted(&argument.to_string_lossy()));
        let command: Vec<String> = std::iter::once("flip".to_owned()).chain(arguments).collect();
        Process {
            began: now(),
            version: concat!("flip ", env!("CARGO_PKG_VERSION")).into(),
            command: outside::without_secrets(&command.join(" ")).into_owned(),
            machine: machine(gpu),
            ranks,
            data: outside::without_secrets(data).into_owned(),
        }
    }

    /// Adds it to those of a run folder. A file that is there and damaged is begun anew: it decides no number.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn append_to(self, run_dir: &Path) -> Result<(), RecordError> {
        let path = RunPaths::new(run_dir).processes();
        let mut all = Process::read_all(run_dir)?;
        all.push(self);
        let text = serde_json::to_string_pretty(&all)
            .map_err(|error| RecordError::io("write", &path)(error.into()))?;
        whole_file::replace(&path, format!("{text}\n").as_bytes()).map_err(RecordError::io("write", &path))
    }

    /// Those of a run folder, in order; none where the file is absent or damaged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_all(run_dir: &Path) -> Result<Vec<Process>, RecordError> {
        let text = read_if_there(&RunPaths::new(run_dir).processes())?.unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }
}

/// This moment: UTC, RFC 3339.
pub fn now() -> String {
    let mut text = String::new();
    // Writing into a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', "'\\''")),
    }
}

/// Processor and memory of this machine as far as Linux tells them, and the GPU.
fn machine(gpu: Option<&str>) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let named =
        |line: &str| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned());
    let processor = processor.lines().find_map(named).unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let mut parts = Vec::new();
    parts.extend(gpu.map(str::to_owned));
    parts.push(format!("{processor} ({threads} threads)"));
    let memory = read("/proc/meminfo");
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    if let Some(kib) = kib.and_then(|kib| kib.parse::<f64>().ok()) {
        parts.push(format!("{:.0} GiB of memory", kib / f64::from(1 << 20)));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_as_a_shell_needs_it() {
        let shown = ["a/b.ron", "x=Random(0.5)", "it's", ""].map(quoted);
        assert_eq!(shown, ["a/b.ron", "'x=Random(0.5)'", "'it'\\''s'", "''"]);
    }

    #[test]
    fn processes_are_kept_in_order_and_a_damaged_file_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let process = |data: &str| Process::here(None, 1, data);
        process("first https://h/a?sig=s3cret").append_to(folder.path()).unwrap();
        process("second").append_to(folder.path()).unwrap();
        let all = Process::read_all(folder.path()).unwrap();
        assert_eq!([&*all[0].data, &*all[1].data], ["first https://h/a?...", "second"]);
        assert!(all[0].began.ends_with('Z') && all[0].began.len() == 20, "{}", all[0].began);
        fs::write(folder.path().join("processes.json"), "[{").unwrap();
        process("third").append_to(folder.path()).unwrap();
        assert_eq!(Process::read_all(folder.path()).unwrap().len(), 1);
    }
}
