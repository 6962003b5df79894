//! Logging follows `logging.ron` while a run goes on; metrics files survive kills.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flip::log::{LogError, Logging, Progress};
use flip::record::{Metrics, RecordError, StepMetrics, StepTiming, Timing};
use tempfile::TempDir;
use tracing::dispatcher::with_default;
use tracing::Dispatch;

/// The promise: an edit applies within a second.
const SECOND: Duration = Duration::from_secs(1);

/// A run folder with a `logging.ron` that logs into `out.log`, and a subscriber that follows it.
struct Run {
    folder: TempDir,
    dispatch: Dispatch,
    /// Dropped before the folder.
    _logging: Logging,
}

impl Run {
    fn new(config: &str) -> Run {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logging.ron");
        fs::write(&path, config).unwrap();
        let progress = Progress::lines(Duration::ZERO);
        let (logging, dispatch) = Logging::subscriber(Some(&path), &progress).unwrap();
        Run { folder, dispatch, _logging: logging }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("out.log")).unwrap_or_default()
    }

    fn rewrite(&self, config: &str) {
        fs::write(self.path("logging.ron"), config).unwrap();
    }

    /// Whether an event of this level is written to `out.log`.
    fn writes(&self, level: tracing::Level) -> bool {
        let before = self.log().len();
        with_default(&self.dispatch, || match level {
            tracing::Level::TRACE => tracing::trace!("probe"),
            tracing::Level::DEBUG => tracing::debug!("probe"),
            tracing::Level::INFO => tracing::info!("probe"),
            tracing::Level::WARN => tracing::warn!("probe"),
            tracing::Level::ERROR => tracing::error!("probe"),
        });
        self.log()[before..].contains("probe")
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SECOND, "not within a second: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const INFO: &str = r#"(level: Info, sinks: [File(path: "out.log")])"#;
const DEBUG: &str = r#"(level: Debug, sinks: [File(path: "out.log")])"#;

#[test]
fn an_edit_applies_within_a_second() {
    let run = Run::new(INFO);
    assert!(run.writes(tracing::Level::INFO) && !run.writes(tracing::Level::DEBUG));
    run.rewrite(DEBUG);
    eventually("debug is logged", || run.writes(tracing::Level::DEBUG));
    run.rewrite(INFO);
    eventually("debug is no longer logged", || !run.writes(tracing::Level::DEBUG));
    assert!(run.log().contains("logging.ron applied"));
    run.rewrite(r#"(level: Off, targets: {"logging": Trace}, sinks: [File(path: "out.log")])"#);
    eventually("only the target of this test is logged", || run.writes(tracing::Level::TRACE));
    let before = run.log();
    with_default(&run.dispatch, || tracing::error!(target: "other", "unseen"));
    assert_eq!(run.log(), before);
}

/// Most editors write beside the file and rename; the watch must outlive that, twice.
#[test]
fn an_editor_that_replaces_the_file_is_followed() {
    let run = Run::new(INFO);
    for _ in 0..2 {
        for (config, debug) in [(DEBUG, true), (INFO, false)] {
            fs::write(run.path(".logging.ron.swp"), config).unwrap();
            fs::rename(run.path(".logging.ron.swp"), run.path("logging.ron")).unwrap();
            eventually("the replaced file is read", || run.writes(tracing::Level::DEBUG) == debug);
        }
    }
}

#[test]
fn a_bad_edit_is_reported_with_its_place_and_ignored() {
    let run = Run::new(DEBUG);
    run.rewrite("(\n  level: Info,\n  sinks: [Fil(path: \"other.log\")],\n)");
    let place = format!("{}:3:11: ", run.path("logging.ron").display());
    eventually("the mistake is reported", || run.log().contains(&place));
    let log = run.log();
    let line = log.lines().find(|line| line.contains(&place)).unwrap();
    assert!(line.contains("WARN") && line.contains("Fil") && line.contains("as before"), "{line}");
    assert!(run.writes(tracing::Level::DEBUG), "the former levels stay");
    assert!(!run.path("other.log").exists());

    // A file that cannot be opened is a bad edit too.
    run.rewrite(r#"(sinks: [File(path: "logging.ron/out.log")])"#);
    eventually("the sink is reported", || run.log().contains("cannot open the log file"));
    assert!(run.writes(tracing::Level::DEBUG));

    // A good edit after bad ones works, and the mistakes were told once.
    run.rewrite(INFO);
    eventually("the good edit applies", || !run.writes(tracing::Level::DEBUG));
    assert_eq!(run.log().matches(&place).count(), 1);
}

#[test]
fn deleting_the_file_keeps_what_it_said() {
    let run = Run::new(DEBUG);
    fs::remove_file(run.path("logging.ron")).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    assert!(run.writes(tracing::Level::DEBUG));
    run.rewrite(INFO);
    eventually("a file that comes back is read", || !run.writes(tracing::Level::DEBUG));
}

#[test]
fn a_sink_moves_to_another_file_and_takes_only_its_level() {
    let run = Run::new(INFO);
    assert!(run.writes(tracing::Level::INFO));
    run.rewrite(r#"(sinks: [File(path: "logs/all.log"), File(path: "out.log", level: Warn)])"#);
    eventually("infos leave the first file", || !run.writes(tracing::Level::INFO));
    assert!(run.writes(tracing::Level::WARN));
    let all = fs::read_to_string(run.path("logs/all.log")).unwrap();
    assert!(all.contains("INFO") && all.contains("WARN"), "{all}");
}

/// The JSON format looks up what spans recorded; a span opened under another format must not break it.
#[test]
fn the_format_changes_in_the_middle_of_a_span() {
    let run = Run::new(r#"(format: Full, sinks: [File(path: "out.log")])"#);
    with_default(&run.dispatch, || {
        let span = tracing::info_span!("stage", index = 2).entered();
        tracing::info!(loss = 1.5, "step \x1b[31mred");
        assert!(run.log().contains("stage{index=2}") && run.log().contains("loss=1.5"), "{}", run.log());
        assert!(!run.log().contains('\x1b'), "{}", run.log());

        run.rewrite(r#"(format: Json, sinks: [File(path: "out.log")])"#);
        eventually("a line is JSON", || {
            tracing::info!(loss = 0.5, "step");
            run.log().lines().last().unwrap().starts_with('{')
        });
        let log = run.log();
        let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(line["span"]["index"], 2);
        assert_eq!(line["fields"]["loss"], 0.5);

        run.rewrite(r#"(format: Compact, sinks: [File(path: "out.log")])"#);
        eventually("a line is text", || {
            tracing::info!("step");
            !run.log().lines().last().unwrap().starts_with('{')
        });
        span.exit();
    });
}

/// Levels, formats and sinks change under threads that log; every line arrives, once and whole.
#[test]
fn no_line_is_lost_or_torn_by_reloading() {
    let run = Run::new(INFO);
    let done = AtomicBool::new(false);
    let written: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let (dispatch, done) = (&run.dispatch, &done);
                scope.spawn(move || {
                    with_default(dispatch, || {
                        let mut count = 0;
                        while !done.load(Ordering::Relaxed) {
                            tracing::warn!("thread {thread} line {count} end");
                            count += 1;
                            std::thread::sleep(Duration::from_micros(50));
                        }
                        count
                    })
                })
            })
            .collect();
        for round in 0..4 {
            let format = ["Compact", "Json", "Full"][round % 3];
            run.rewrite(&format!(r#"(level: Info, format: {format}, sinks: [File(path: "out.log")])"#));
            std::thread::sleep(Duration::from_millis(250));
        }
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let log = run.log();
    assert!(log.matches("logging.ron applied").count() >= 3, "it was reloaded");
    for (thread, count) in written.iter().enumerate() {
        assert!(*count > 100);
        let marker = format!("thread {thread} line ");
        let mut numbers = log.lines().filter_map(|line| line.split_once(&marker)).map(|(_, rest)| {
            let (number, end) = rest.split_once(' ').unwrap();
            assert!(end.starts_with("end"), "{rest}");
            number.parse::<u64>().unwrap()
        });
        assert!((0..*count).all(|expected| numbers.next() == Some(expected)));
        assert_eq!(numbers.next(), None);
    }
}

#[test]
fn without_a_file_the_defaults_apply_and_a_new_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logging.ron");
    let progress = Progress::lines(Duration::ZERO);
    let (_logging, dispatch) = Logging::subscriber(Some(&path), &progress).unwrap();
    fs::write(&path, INFO).unwrap();
    eventually("the new file is read", || {
        std::thread::sleep(Duration::from_millis(50));
        with_default(&dispatch, || tracing::info!("probe"));
        fs::read_to_string(folder.path().join("out.log")).is_ok_and(|log| log.contains("probe"))
    });
}

/// No folder, so no watch; the file is polled.
#[test]
fn where_nothing_can_be_watched_the_file_is_polled() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("not/yet");
    let path = inner.join("logging.ron");
    let progress = Progress::lines(Duration::ZERO);
    let (_logging, dispatch) = Logging::subscriber(Some(&path), &progress).unwrap();
    fs::create_dir_all(&inner).unwrap();
    fs::write(&path, INFO).unwrap();
    eventually("the file is read", || {
        std::thread::sleep(Duration::from_millis(50));
        with_default(&dispatch, || tracing::info!("probe"));
        fs::read_to_string(inner.join("out.log")).is_ok_and(|log| log.contains("probe"))
    });
}

#[test]
fn a_mistake_at_the_start_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logging.ron");
    fs::write(&path, "(level: Info,\n format: Xml)").unwrap();
    let error = Logging::subscriber(Some(&path), &Progress::lines(SECOND)).unwrap_err();
    assert!(matches!(error, LogError::Config { line: 2, column: 10, .. }), "{error:?}");
    let error = Logging::subscriber(Some(folder.path()), &Progress::lines(SECOND)).unwrap_err();
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    fs::write(&path, r#"(sinks: [File(path: "logging.ron/x")])"#).unwrap();
    let error = Logging::subscriber(Some(&path), &Progress::lines(SECOND)).unwrap_err();
    assert!(error.to_string().contains("logging.ron/x"), "{error}");
}

#[test]
fn the_process_has_one_logging() {
    let progress = Progress::lines(SECOND);
    let _first = Logging::start(None, &progress).unwrap();
    assert!(matches!(Logging::start(None, &progress), Err(LogError::AlreadyStarted)));
}

#[test]
fn progress_without_a_terminal_is_logged() {
    let run = Run::new(INFO);
    with_default(&run.dispatch, || {
        let bar = Progress::lines(Duration::ZERO).bar("pretrain", 2_000, "steps");
        bar.update(1_000, format_args!("loss {:.2}", 2.5));
        bar.finish();
    });
    let log = run.log();
    assert!(log.contains("flip::progress: pretrain: 1,000/2,000 steps (50 %), loss 2.50, "), "{log}");
    assert!(log.contains("pretrain: 1,000/2,000 steps in 0.0 s, loss 2.50"), "{log}");
}

fn line(step: u64, loss: f32) -> StepMetrics {
    StepMetrics { stage: 0, step, samples: step * 64, loss, lr: 1e-3, logit_scale: 14.285714, grad_norm: 0.5 }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_resumed_file_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.jsonl");
    let killed = folder.path().join("killed.jsonl");
    let mut metrics = Metrics::open(&whole, None).unwrap();
    (1..=6).for_each(|step| metrics.append(&line(step, 1.0 / step as f32)).unwrap());

    let mut metrics = Metrics::open(&killed, None).unwrap();
    (1..=2).for_each(|step| metrics.append(&line(step, 1.0 / step as f32)).unwrap());
    metrics.sync().unwrap();
    let recorded = metrics.position();
    assert_eq!(recorded, text(&killed).len() as u64);
    // Steps 3 and 4 are lost with the process, and done again.
    (3..=4).for_each(|step| metrics.append(&line(step, 1.0 / step as f32)).unwrap());
    drop(metrics);
    let mut metrics = Metrics::open(&killed, Some(recorded)).unwrap();
    (3..=6).for_each(|step| metrics.append(&line(step, 1.0 / step as f32)).unwrap());
    assert_eq!(text(&killed), text(&whole));
    assert_eq!(
        text(&whole).lines().next().unwrap(),
        r#"{"stage":0,"step":1,"samples":64,"loss":1.0,"lr":0.001,"logit_scale":14.285714,"grad_norm":0.5}"#
    );
}

#[test]
fn a_torn_last_line_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let long = format!("{{\"torn\":\"{}", "x".repeat(10_000));
    for (before, after) in [
        ("", ""),
        ("{\"a\":1}\n", "{\"a\":1}\n"),
        ("{\"a\":1}\n{\"b\"", "{\"a\":1}\n"),
        ("{\"a\"", ""),
        (long.as_str(), ""),
    ] {
        fs::write(&path, before).unwrap();
        let metrics = Metrics::open(&path, None).unwrap();
        assert_eq!(text(&path), after);
        assert_eq!(metrics.position(), after.len() as u64);
    }
    fs::write(&path, format!("{{}}\n{long}")).unwrap();
    Metrics::open(&path, None).unwrap();
    assert_eq!(text(&path), "{}\n");
}

#[test]
fn a_file_that_lost_lines_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    fs::write(&path, "{\"a\":1}\n{\"b\":2}\n").unwrap();
    for expected in [17, 9, u64::MAX] {
        let error = Metrics::open(&path, Some(expected)).unwrap_err();
        assert!(matches!(error, RecordError::NotContinued { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("metrics.jsonl") && message.contains("16 bytes"), "{message}");
    }
    assert_eq!(text(&path).len(), 16, "it is left as it was");
    assert_eq!(Metrics::open(&path, Some(8)).unwrap().position(), 8);
    assert_eq!(text(&path), "{\"a\":1}\n");
    Metrics::open(&path, Some(0)).unwrap();
    assert_eq!(text(&path), "");
    let error = Metrics::open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn what_is_not_finite_is_null() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut metrics = Metrics::open(&path, None).unwrap();
    for loss in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        metrics.append(&line(1, loss)).unwrap();
    }
    for line in text(&path).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["loss"].is_null());
    }
    let timing = folder.path().join("timing.jsonl");
    let row = StepTiming {
        stage: 0,
        step: 1,
        images_per_s: 100.0,
        data_wait: 0.25,
        step_ms: 640.0,
        elapsed_s: 0.64,
        ranks: Vec::new(),
    };
    Timing::open(&timing, None).unwrap().append(&row).unwrap();
    assert_eq!(
        text(&timing),
        "{\"stage\":0,\"step\":1,\"images_per_s\":100.0,\"data_wait\":0.25,\"step_ms\":640.0,\"elapsed_s\":0.64}\n"
    );
}

/// A device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let mut metrics = Metrics::open(Path::new("/dev/full"), None).unwrap();
    let error = metrics.append(&line(1, 1.0)).unwrap_err().to_string();
    assert!(error.starts_with("cannot append to /dev/full: No space"), "{error}");
    assert_eq!(metrics.position(), 0);
}
