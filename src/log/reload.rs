//! The subscriber whose levels, format and sinks follow `logging.ron` while the run goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{span, Dispatch, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self, FormatFields, FormattedFields};
use tracing_subscriber::layer::{Context, Layer, Layered, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;

use super::sink::{OpenFiles, Sinks};
use super::warnings::Warnings;
use super::watch::Watch;
use super::{Format, Level, LogError, LoggingConfig, Progress, Sink};
use crate::terminal;

type Spans = Layered<SpanFields, Registry>;
type Filtered = Layered<reload::Layer<Targets, Spans>, Spans>;
type Lines = Box<dyn Layer<Filtered> + Send + Sync>;

/// Follows `logging.ron` until it is dropped. What was logged is written by then: lines are not buffered.
#[derive(Debug)]
#[must_use = "dropping it ends the watch on logging.ron"]
pub struct Logging {
    _watch: Option<Watch>,
}

impl Logging {
    /// Makes the whole process log as `path` says, and follow its edits. Without a path, or while there is
    /// no such file, the defaults of [`LoggingConfig`] apply. A mistake in the file is an error now, and
    /// only a warning later.
    pub fn start(path: Option<&Path>, progress: &Progress) -> Result<Logging, LogError> {
        let (logging, dispatch) = Logging::subscriber(path, progress)?;
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::AlreadyStarted)?;
        Ok(logging)
    }

    /// Makes the whole process log into one file, at the levels and in the format of `path` as it is now, whatever sinks
    /// are named there. For a process whose lines must not mix with those of another; its [`Warnings`] are counted.
    pub fn start_in_file(path: &Path, to: &Path) -> Result<Logging, LogError> {
        let config = match LoggingConfig::read(path) {
            Err(LogError::Io { .. }) => LoggingConfig::default(),
            read => read?,
        };
        let sinks = vec![Sink::File { path: to.to_path_buf(), level: Level::Trace }];
        let config = LoggingConfig { sinks, ..config };
        let mut files = OpenFiles::new();
        let progress = Progress::lines(Duration::MAX);
        let lines = lines(&config, Sinks::open(&config, &progress, &mut files)?);
        let (filter, _) = reload::Layer::new(config.filter());
        let (lines, _) = reload::Layer::new(lines);
        let subscriber = tracing_subscriber::registry().with(SpanFields).with(filter).with(lines);
        let dispatch = Dispatch::new(subscriber.with(Warnings));
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::AlreadyStarted)?;
        Ok(Logging { _watch: None })
    }

    /// As [`start`](Logging::start), but the subscriber is returned, not installed, so that a test can give
    /// it to its own threads with `tracing::dispatcher::with_default`.
    pub fn subscriber(path: Option<&Path>, progress: &Progress) -> Result<(Logging, Dispatch), LogError> {
        let text = match path.map(|path| (path, fs::read_to_string(path))) {
            Some((_, Ok(text))) => Some(text),
            Some((path, Err(source))) if source.kind() != io::ErrorKind::NotFound => {
                return Err(LogError::Io { action: "read", path: path.to_path_buf(), source })
            }
            _ => None,
        };
        let config = match (path, &text) {
            (Some(path), Some(text)) => LoggingConfig::parse(text, path)?,
            _ => LoggingConfig::default(),
        };
        let mut files = OpenFiles::new();
        let lines = lines(&config, Sinks::open(&config, progress, &mut files)?);
        let (filter, filter_handle) = reload::Layer::new(config.filter());
        let (lines, lines_handle) = reload::Layer::new(lines);
        let dispatch =
            Dispatch::new(tracing_subscriber::registry().with(SpanFields).with(filter).with(lines));

        let watch = path.and_then(|path| {
            let mut reload = Reload {
                path: path.to_path_buf(),
                progress: progress.clone(),
                text: text.unwrap_or_default(),
                files,
                filter: filter_handle,
                lines: lines_handle,
            };
            let speaker = dispatch.clone();
            let changed = move || tracing::dispatcher::with_default(&speaker, || reload.follow());
            tracing::dispatcher::with_default(&dispatch, || watch(path, changed))
        });
        Ok((Logging { _watch: watch }, dispatch))
    }
}

/// Starts the watch. A run is worth more than its log: whatever fails here is only a warning.
fn watch(path: &Path, changed: impl FnMut() + Send + 'static) -> Option<Watch> {
    match Watch::start(path, changed) {
        Ok((watch, None)) => Some(watch),
        Ok((watch, Some(reason))) => {
            tracing::warn!("cannot watch {} ({reason}); looking twice a second instead", path.display());
            Some(watch)
        }
        Err(reason) => {
            tracing::warn!("edits of {} will not be noticed: {reason}", path.display());
            None
        }
    }
}

/// Handles through which another configuration is applied.
struct Reload {
    path: PathBuf,
    progress: Progress,
    /// As last read, applied or not: each version is applied, or complained about, once.
    text: String,
    files: OpenFiles,
    filter: reload::Handle<Targets, Spans>,
    lines: reload::Handle<Lines, Filtered>,
}

impl Reload {
    /// Applies the file if it changed. A file that went away or cannot be read changes nothing.
    fn follow(&mut self) {
        match fs::read_to_string(&self.path) {
            Ok(text) if text == self.text => {}
            Ok(text) => {
                self.text = text;
                match self.apply() {
                    Ok(()) => tracing::info!("{} applied", self.path.display()),
                    Err(error) => tracing::warn!("{error}; logging goes on as before"),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!("cannot read {}: {error}; logging goes on as before", self.path.display());
            }
        }
    }

    fn apply(&mut self) -> Result<(), LogError> {
        let config = LoggingConfig::parse(&self.text, &self.path)?;
        let sinks = Sinks::open(&config, &self.progress, &mut self.files)?;
        let gone = |error: reload::Error| LogError::Reload(error.to_string());
        // Each swap waits for the lines being written and holds up the next: none is lost.
        self.lines.reload(lines(&config, sinks)).map_err(gone)?;
        self.filter.reload(config.filter()).map_err(gone)
    }
}

/// Formats events and hands them to the sinks.
fn lines(config: &LoggingConfig, sinks: Sinks) -> Lines {
    // Without internal errors: they are told with eprintln!, which panics where stderr is closed.
    let lines = fmt::layer().with_writer(sinks).with_timer(Seconds).log_internal_errors(false);
    match config.format {
        Format::Compact => lines.with_ansi(terminal::colours()).compact().boxed(),
        Format::Full => lines.with_ansi(terminal::colours()).boxed(),
        Format::Json => lines.with_ansi(false).json().boxed(),
    }
}

/// The time in UTC, to the second.
struct Seconds;

impl FormatTime for Seconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let mut exact = String::new();
        SystemTime.format_time(&mut Writer::new(&mut exact))?;
        let second = exact.split(['.', 'Z']).next().unwrap_or_default();
        write!(writer, "{second}Z")
    }
}

/// Records the fields of every new span for each format there is. A format looks for what its own kind of
/// recorder left, and the JSON one panics where it finds nothing, as in a span that was opened before an
/// edit chose JSON.
struct SpanFields;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanFields {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut text = FormattedFields::<DefaultFields>::new(String::new());
        let mut json = FormattedFields::<JsonFields>::new(String::new());
        let formatted = DefaultFields::new()
            .format_fields(text.as_writer(), attributes)
            .and_then(|()| JsonFields::new().format_fields(json.as_writer(), attributes));
        if formatted.is_ok() {
            let mut extensions = span.extensions_mut();
            extensions.insert(text);
            extensions.insert(json);
        }
    }
}
