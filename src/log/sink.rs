//! Destinations of formatted lines.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::Metadata;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{LogError, LoggingConfig, Progress, Sink};
use crate::terminal;

/// Open files by path, so that a new configuration goes on with those it shares with the former one.
pub type OpenFiles = HashMap<PathBuf, Arc<File>>;

/// The sinks of one configuration. A line is formatted once and handed to each that takes its level.
#[derive(Debug)]
pub struct Sinks {
    sinks: Vec<(LevelFilter, Output)>,
}

#[derive(Debug)]
enum Output {
    Stderr(Progress),
    File(Arc<File>),
}

impl Sinks {
    /// Opens what `config` names and `files` does not hold yet; on success `files` holds what is in use.
    pub fn open(
        config: &LoggingConfig,
        progress: &Progress,
        files: &mut OpenFiles,
    ) -> Result<Self, LogError> {
        let mut in_use = OpenFiles::new();
        let mut sinks = Vec::new();
        for sink in &config.sinks {
            sinks.push(match sink {
                Sink::Stderr { level } => (level.filter(), Output::Stderr(progress.clone())),
                Sink::File { path, level } => {
                    let file = match in_use.get(path).or_else(|| files.get(path)) {
                        Some(file) => Arc::clone(file),
                        None => Arc::new(open_file(path)?),
                    };
                    in_use.insert(path.clone(), Arc::clone(&file));
                    (level.filter(), Output::File(file))
                }
            });
        }
        *files = in_use;
        Ok(Sinks { sinks })
    }
}

fn open_file(path: &Path) -> Result<File, LogError> {
    let open = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        OpenOptions::new().append(true).create(true).open(path)
    };
    open().map_err(|source| LogError::Io { action: "open the log file", path: path.to_path_buf(), source })
}

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sinks: self, level: LevelFilter::ERROR }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { sinks: self, level: LevelFilter::from_level(*event.level()) }
    }
}

/// Writes one event of a level to the sinks that take it. The formatter hands it over as a whole.
#[derive(Debug)]
pub struct Line<'a> {
    sinks: &'a Sinks,
    level: LevelFilter,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut result = Ok(line.len());
        for (level, output) in &self.sinks.sinks {
            if self.level > *level {
                continue;
            }
            let written = match output {
                Output::Stderr(progress) => progress.write_above(line),
                // Appended in one write: lines of several threads do not mix.
                Output::File(file) => {
                    let plain = without_colour(line);
                    let line = terminal::safe(&String::from_utf8_lossy(&plain), false).into_owned();
                    file.as_ref().write_all(line.as_bytes())
                }
            };
            // One broken sink must not keep a line from the others.
            if let Err(error) = written {
                result = Err(error);
            }
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes the colours that the formatter put in for the terminal: `ESC [ ... m`. It escapes those that are
/// part of a message, so nothing else is lost.
fn without_colour(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\x1b[") {
        plain.extend_from_slice(&rest[..at]);
        let sequence = &rest[at + 2..];
        let end = sequence.iter().position(|byte| byte.is_ascii_alphabetic());
        rest = end.map_or(&[], |end| &sequence[end + 1..]);
    }
    plain.extend_from_slice(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_go_and_text_stays() {
        assert_eq!(without_colour(b"\x1b[2m12:00\x1b[0m \x1b[1;32mINFO\x1b[0m x[0m\n"), b"12:00 INFO x[0m\n");
        assert_eq!(without_colour("größer → 3\n".as_bytes()), "größer → 3\n".as_bytes());
        assert_eq!(without_colour(b"cut \x1b[1"), b"cut ");
        assert_eq!(without_colour(b""), b"");
    }
}
