//! Progress of a stage: a bar on a terminal, a plain line now and then elsewhere.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle, TermLike};

use super::progress_line::{Ends, Line};
use crate::outside;
use crate::terminal::{self, Screen};

/// Most drawings of the bars in a second.
const DRAWN_PER_S: u8 = 20;
/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Length of the past that a speed is measured over.
const RECENT: Duration = Duration::from_secs(30);
/// Least time between two measurements of it.
const MEASURED_EVERY: Duration = Duration::from_millis(500);

/// Output of bars and log lines. Clones share the same terminal.
#[derive(Debug, Clone)]
pub struct Progress {
    output: Output,
    /// Work of each stage of the run, in operations, where it is known.
    stages: Arc<Mutex<Vec<Option<f64>>>>,
}

#[derive(Debug, Clone)]
enum Output {
    Terminal(MultiProgress),
    /// Log events of target `flip::progress`.
    Lines(Duration),
}

impl Progress {
    /// Bars if stderr is a terminal that can draw them, else a log line every ten seconds.
    pub fn new() -> Self {
        match Screen::open() {
            Some(screen) => {
                let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen), DRAWN_PER_S);
                Self::on(Output::Terminal(MultiProgress::with_draw_target(target)))
            }
            None => Self::lines(LINE_EVERY),
        }
    }

    /// A log line of target `flip::progress` every so often, whatever stderr is.
    pub fn lines(every: Duration) -> Self {
        Self::on(Output::Lines(every))
    }

    fn on(output: Output) -> Self {
        Progress { output, stages: Arc::default() }
    }

    /// True where stderr is a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self.output, Output::Terminal(_))
    }

    /// Tells how much work each stage of the run is, in operations: bars then say which of how many stages theirs is, and
    /// how long the run takes to its end.
    pub fn expect(&self, stages: Vec<Option<f64>>) {
        *lock(&self.stages) = stages;
    }

    /// `stage 1 of 4`, for the index of a stage.
    pub fn stage(&self, index: usize) -> String {
        match lock(&self.stages).len() {
            n if n > index => format!("stage {} of {n}", index + 1),
            _ => format!("stage {}", index + 1),
        }
    }

    /// Begins a bar of `total` `unit`s, for example ("tokenizer", 2, "steps").
    pub fn bar(&self, title: &str, total: u64, unit: &'static str) -> Bar {
        self.begin(title.to_owned(), None, total, unit)
    }

    /// Begins the bar of a training stage, for example (0, "pretrain", 512_000, "images").
    pub fn stage_bar(&self, index: usize, kind: &str, total: u64, unit: &'static str) -> Bar {
        let stages = lock(&self.stages).clone();
        let work = |stage: &Option<f64>| stage.filter(|work| work.is_finite());
        let own = stages.get(index).and_then(work).filter(|work| *work > 0.0);
        let later: Option<f64> = stages.iter().skip(index + 1).map(work).sum();
        // In units of this bar.
        let after = own.zip(later).map(|(own, later)| later / own * total as f64);
        self.begin(format!("{}, {kind}", self.stage(index)), after.filter(|after| *after > 0.0), total, unit)
    }

    fn begin(&self, title: String, after: Option<f64>, total: u64, unit: &'static str) -> Bar {
        let shown = match &self.output {
            Output::Terminal(bars) => {
                // Added before anything is set: alone, it would draw itself at once.
                let bar = bars.add(ProgressBar::new(total).with_finish(ProgressFinish::AndClear));
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    bar.set_style(style);
                }
                Shown::Bar(bar)
            }
            Output::Lines(every) => Shown::Lines(*every),
        };
        let title = outside::shown(&title).into_owned();
        Bar { title, after, total, unit, shown, pace: Mutex::new(Pace::from(0, Instant::now())) }
    }

    /// Writes a whole log line to stderr, above the bars, broken at spaces where the terminal is narrower.
    pub(super) fn write_above(&self, line: &[u8]) -> io::Result<()> {
        match &self.output {
            Output::Terminal(bars) => {
                let columns = Screen::open().map_or(usize::MAX, |screen| usize::from(screen.width()));
                let line = terminal::wrapped(&String::from_utf8_lossy(line), columns, 4);
                bars.suspend(|| terminal::write_error(line.as_bytes()))
            }
            Output::Lines(_) => terminal::write_error(line),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Progress of one thing. Dropped, it disappears from the terminal.
#[derive(Debug)]
pub struct Bar {
    title: String,
    /// Work that comes after it, in its own units.
    after: Option<f64>,
    total: u64,
    unit: &'static str,
    shown: Shown,
    pace: Mutex<Pace>,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    /// A plain line so often.
    Lines(Duration),
}

/// Speed, recent and on average.
#[derive(Debug)]
struct Pace {
    /// When this process began, and how much was done then.
    begin: (Instant, u64),
    /// The recent past, oldest first: at most [`RECENT`] long, never empty.
    recent: VecDeque<(Instant, u64)>,
    done: u64,
    /// When the last plain line was written.
    told: Instant,
    message: String,
}

impl Pace {
    fn from(done: u64, now: Instant) -> Pace {
        let begin = (now, done);
        Pace { begin, recent: VecDeque::from([begin]), done, told: now, message: String::new() }
    }

    fn advance(&mut self, done: u64, now: Instant) {
        self.done = done;
        if self.recent.back().is_none_or(|(last, _)| now.duration_since(*last) >= MEASURED_EVERY) {
            self.recent.push_back((now, done));
        }
        // One older than the window stays, so that it is always full.
        while self.recent.get(1).is_some_and(|(second, _)| now.duration_since(*second) >= RECENT) {
            self.recent.pop_front();
        }
    }

    /// Units a second of late; none before the first.
    fn speed(&self, now: Instant) -> Option<f64> {
        let (from, done) = self.recent.front()?;
        positive((self.done.saturating_sub(*done)) as f64 / now.duration_since(*from).as_secs_f64())
    }

    /// Units a second of this process.
    fn mean(&self, now: Instant) -> Option<f64> {
        let (from, done) = self.begin;
        positive((self.done.saturating_sub(done)) as f64 / now.duration_since(from).as_secs_f64())
    }
}

fn positive(speed: f64) -> Option<f64> {
    (speed.is_finite() && speed > 0.0).then_some(speed)
}

impl Bar {
    /// Continues where a former process stopped; its work does not count as speed of this one.
    pub fn start_at(&self, done: u64) {
        *lock(&self.pace) = Pace::from(done, Instant::now());
    }

    /// `done` of the total; `message` is for example "loss 2.31". Cheap enough for every step: the screen is redrawn at
    /// most 20 times a second.
    pub fn update(&self, done: u64, message: impl Display) {
        let now = Instant::now();
        let mut pace = lock(&self.pace);
        pace.advance(done, now);
        pace.message = outside::shown(&message.to_string()).into_owned();
        match &self.shown {
            Shown::Bar(bar) => {
                let columns = Screen::open().map_or(usize::MAX, |screen| usize::from(screen.width()));
                let text = self.line(&pace, now).fitted(columns);
                drop(pace);
                bar.set_message(text);
            }
            Shown::Lines(every) => {
                if now.duration_since(pace.told) < *every {
                    return;
                }
                pace.told = now;
                let text = self.line(&pace, now).whole();
                drop(pace);
                tracing::info!(target: "flip::progress", "{text}");
            }
        }
    }

    /// Ends the bar and logs its end with the mean speed, so that the record stays on the terminal and in the files.
    pub fn finish(self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        let now = Instant::now();
        let pace = lock(&self.pace);
        let ends = Ends { seconds: now.duration_since(pace.begin.0).as_secs_f64(), mean: pace.mean(now) };
        let text = self.line(&pace, now).ended(&ends);
        tracing::info!(target: "flip::progress", "{text}");
    }

    fn line<'a>(&'a self, pace: &'a Pace, now: Instant) -> Line<'a> {
        let speed = pace.speed(now);
        let left = self.total.saturating_sub(pace.done) as f64;
        let left_s = speed.map(|speed| left / speed);
        let run_s = speed.zip(self.after).map(|(speed, after)| (left + after) / speed);
        let (title, unit, message) = (&*self.title, self.unit, &*pace.message);
        Line { title, unit, message, done: pace.done, total: self.total, speed, left_s, run_s }
    }
}

/// A panic while the lock was held leaves at worst a stale number.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pace of 1,000 a second until 1,000,000, then of 100 a second for a minute.
    fn slower(begin: Instant) -> (Pace, Instant) {
        let mut pace = Pace::from(0, begin);
        for second in 1..=1_000 {
            pace.advance(1_000 * second, begin + Duration::from_secs(second));
        }
        for second in 1..=60 {
            pace.advance(1_000_000 + 100 * second, begin + Duration::from_secs(1_000 + second));
        }
        (pace, begin + Duration::from_secs(1_060))
    }

    #[test]
    fn the_time_left_goes_by_the_recent_speed_and_the_end_by_the_mean() {
        let (pace, now) = slower(Instant::now());
        assert_eq!(pace.speed(now), Some(100.0));
        let mean = pace.mean(now).unwrap();
        assert!((mean - 1_006_000.0 / 1_060.0).abs() < 1e-9, "{mean}");
        assert!(pace.recent.len() < 40, "the past is forgotten: {}", pace.recent.len());
    }

    #[test]
    fn a_resumed_stage_has_the_speed_of_this_process() {
        let begin = Instant::now();
        let mut pace = Pace::from(1_000, begin);
        assert_eq!(pace.speed(begin), None);
        pace.advance(1_250, begin + Duration::from_secs(60));
        assert_eq!(pace.speed(begin + Duration::from_secs(60)), Some(250.0 / 60.0));
    }

    #[test]
    fn a_stage_is_one_of_those_that_are_expected() {
        let progress = Progress::lines(LINE_EVERY);
        assert_eq!(progress.stage(0), "stage 1");
        progress.expect(vec![Some(2e9), Some(0.0), Some(1e9), Some(0.0)]);
        let bar = progress.stage_bar(0, "pretrain", 1_000, "images");
        assert_eq!((&*bar.title, bar.after), ("stage 1 of 4, pretrain", Some(500.0)));
        assert_eq!(progress.stage_bar(2, "unmask", 10, "images").after, None);
        progress.expect(vec![Some(2e9), None]);
        assert_eq!(progress.stage_bar(0, "pretrain", 1_000, "images").after, None);
    }

    #[test]
    fn a_bar_on_a_terminal_takes_updates() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let bar = Progress::on(Output::Terminal(bars)).bar("unmask", 10, "steps");
        bar.start_at(4);
        bar.update(5, format_args!("loss {:.2}", 1.5));
        let Shown::Bar(inner) = &bar.shown else { panic!("a terminal has bars") };
        assert!(
            inner.message().contains("50 %") && inner.message().contains("loss 1.50"),
            "{}",
            inner.message()
        );
        bar.finish();
    }
}
