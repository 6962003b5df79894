//! `logging.ron`: levels, format and destinations of log lines.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::LogError;

/// Levels, format and destinations of log lines. The file may be edited while a run goes on; the change applies within
/// a second, and a file with a mistake in it changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// Level of everything that `targets` does not name.
    pub level: Level,
    /// Levels by target, the module path an event comes from, for example `"flip::data": Debug`. The longest
    /// target that an event's begins with decides.
    pub targets: BTreeMap<String, Level>,
    /// Format of a line.
    pub format: Format,
    /// Destinations of lines; none at all where the list is empty.
    pub sinks: Vec<Sink>,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        LoggingConfig {
            level: Level::Info,
            targets: BTreeMap::new(),
            format: Format::Compact,
            sinks: vec![Sink::Stderr { level: Level::Trace }],
        }
    }
}

/// From nothing to everything; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Level {
    /// Nothing.
    Off,
    /// Failures.
    Error,
    /// And things that a person should look at.
    Warn,
    /// And the course of a run.
    Info,
    /// And its details.
    Debug,
    /// And everything.
    Trace,
}

/// Format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// Time, level, target, message and fields on one line.
    #[default]
    Compact,
    /// The same with the spans an event happened in, and their fields, before it.
    Full,
    /// One JSON object a line.
    Json,
}

/// Destination of lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub enum Sink {
    /// The terminal, above the progress bars.
    Stderr {
        /// The most verbose level that goes here; `targets` apply before it.
        #[serde(default = "everything")]
        level: Level,
    },
    /// A file, appended to.
    File {
        /// A relative path starts at the folder of `logging.ron`. Missing folders are created.
        path: PathBuf,
        /// The most verbose level that goes here; `targets` apply before it.
        #[serde(default = "everything")]
        level: Level,
    },
}

fn everything() -> Level {
    Level::Trace
}

impl LoggingConfig {
    /// Reads `path`. Errors carry line and column.
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let failed = |source| LogError::Io { action: "read", path: path.to_path_buf(), source };
        let mut text = String::new();
        // Of something without an end, the first MiB is no logging file either.
        let file = fs::File::open(path).map_err(failed)?;
        file.take(1 << 20).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text, path)
    }

    /// Parses the `text` of the file `path`. Paths of sinks become relative to the file's folder.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, LogError> {
        let options =
            ron::Options::default().with_default_extension(ron::extensions::Extensions::IMPLICIT_SOME);
        let mut config: LoggingConfig = options.from_str(text).map_err(|error| LogError::Config {
            path: path.to_path_buf(),
            line: error.span.start.line,
            column: error.span.start.col,
            reason: error.code.to_string(),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for sink in &mut config.sinks {
            if let Sink::File { path, .. } = sink {
                *path = folder.join(&*path);
            }
        }
        Ok(config)
    }

    /// The levels as a filter.
    pub(super) fn filter(&self) -> Targets {
        let targets = self.targets.iter().map(|(target, level)| (target.clone(), level.filter()));
        Targets::new().with_default(self.level.filter()).with_targets(targets)
    }
}

impl Level {
    pub(super) fn filter(self) -> LevelFilter {
        match self {
            Level::Off => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<LoggingConfig, String> {
        LoggingConfig::parse(text, Path::new("run/logging.ron")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_whole_file_and_an_empty_one() {
        assert_eq!(parse("()"), Ok(LoggingConfig::default()));
        let config = parse(
            r#"(level: Warn, targets: {"flip::data": Debug, "flip": Info}, format: Json,
                sinks: [Stderr(), Stderr(level: Error), File(path: "logs/all.jsonl"), File(path: "/tmp/x", level: Off)])"#,
        )
        .unwrap();
        assert_eq!(config.targets["flip::data"], Level::Debug);
        assert_eq!(
            config.sinks,
            [
                Sink::Stderr { level: Level::Trace },
                Sink::Stderr { level: Level::Error },
                Sink::File { path: "run/logs/all.jsonl".into(), level: Level::Trace },
                Sink::File { path: "/tmp/x".into(), level: Level::Off },
            ]
        );
        let filter = config.filter();
        assert!(filter.would_enable("flip::data::webdataset", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("flip::stage", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("notify", &tracing::Level::INFO));
    }

    #[test]
    fn what_is_written_is_read() {
        let config = LoggingConfig {
            targets: BTreeMap::from([("flip".into(), Level::Trace)]),
            sinks: vec![Sink::File { path: "/var/log/flip".into(), level: Level::Info }],
            ..LoggingConfig::default()
        };
        assert_eq!(parse(&ron::to_string(&config).unwrap()), Ok(config));
    }

    #[test]
    fn mistakes_are_placed_and_explained() {
        for (text, place, why) in [
            ("(levl: Info)", "run/logging.ron:1:2: ", "levl"),
            ("(\n  level: Loud,\n)", "run/logging.ron:2:10: ", "Loud"),
            ("(targets: {\"flip\": 3})", "run/logging.ron:1:2", ""),
            ("(sinks: [Syslog()])", "run/logging.ron:1:10: ", "Syslog"),
            ("(sinks: [File()])", "run/logging.ron:1:", "path"),
            ("(sinks: [File(path: \"a\", size: 3)])", "run/logging.ron:1:", "size"),
            ("(level: Info", "run/logging.ron:1:", ""),
            ("", "run/logging.ron:1:1: ", ""),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with(place) && message.contains(why), "{text}: {message}");
        }
    }
}
