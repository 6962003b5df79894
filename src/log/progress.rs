//! Progress of a stage: a bar on a terminal, a plain line now and then elsewhere.

use std::fmt::Display;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{
    HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle,
};

use crate::outside;
use crate::terminal::{self, Screen};

/// Most drawings of the bars in a second.
const DRAWN_PER_S: u8 = 20;
/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Output of bars and log lines. Clones share the same terminal.
#[derive(Debug, Clone)]
pub struct Progress {
    output: Output,
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
                Progress { output: Output::Terminal(MultiProgress::with_draw_target(target)) }
            }
            None => Self::lines(LINE_EVERY),
        }
    }

    /// A log line of target `flip::progress` every so often, whatever stderr is.
    pub fn lines(every: Duration) -> Self {
        Progress { output: Output::Lines(every) }
    }

    /// True if stderr is a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self.output, Output::Terminal(_))
    }

    /// Begins a bar of `total` `unit`s, for example ("pretrain", 5000, "steps").
    pub fn bar(&self, title: &str, total: u64, unit: &'static str) -> Bar {
        let shown = match &self.output {
            Output::Terminal(bars) => {
                let template = format!(
                    "{{prefix:.bold}} [{{bar:24}}] {{human_pos}}/{{human_len}} {unit}, {{eta}} left{{msg}}"
                );
                // Added before anything is set: alone, it would draw itself at once.
                let bar = bars.add(ProgressBar::new(total).with_finish(ProgressFinish::AndClear));
                if let Ok(style) = ProgressStyle::with_template(&template) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(outside::shown(title).into_owned());
                Shown::Bar(bar)
            }
            Output::Lines(every) => {
                let now = Instant::now();
                let pace =
                    Pace { started: now, began: now, from: 0, done: 0, said: now, message: String::new() };
                Shown::Lines(*every, Mutex::new(pace))
            }
        };
        Bar { title: title.to_string(), total, unit, shown }
    }

    /// Writes a whole log line to stderr, above the bars.
    pub(super) fn write_above(&self, line: &[u8]) -> io::Result<()> {
        let write = || terminal::write_error(line);
        match &self.output {
            Output::Terminal(bars) => bars.suspend(write),
            Output::Lines(_) => write(),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// A progress bar. Dropped, it disappears from the terminal.
#[derive(Debug)]
pub struct Bar {
    title: String,
    total: u64,
    unit: &'static str,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines(Duration, Mutex<Pace>),
}

/// Numbers of a plain line.
#[derive(Debug)]
struct Pace {
    started: Instant,
    /// Since then the speed is measured: since the line before.
    began: Instant,
    /// Done before `began`.
    from: u64,
    done: u64,
    said: Instant,
    message: String,
}

impl Bar {
    /// Continues where a former process stopped; what it did does not count as speed of this one.
    pub fn start_at(&self, done: u64) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_position(done);
                bar.reset_elapsed();
                bar.reset_eta();
            }
            Shown::Lines(_, pace) => {
                let mut pace = lock(pace);
                (pace.from, pace.done, pace.began) = (done, done, Instant::now());
                pace.started = pace.began;
            }
        }
    }

    /// `done` of the total; `message` is for example "loss 2.31, 5,120 images/s". Cheap enough for every
    /// step: the screen is redrawn at most 20 times a second.
    pub fn update(&self, done: u64, message: impl Display) {
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(suffix(&outside::shown(&message.to_string())));
            }
            Shown::Lines(every, pace) => {
                let mut pace = lock(pace);
                pace.done = done;
                pace.message = message.to_string();
                if pace.said.elapsed() >= *every {
                    pace.said = Instant::now();
                    let line = self.line(&pace);
                    if done > pace.from {
                        (pace.from, pace.began) = (done, pace.said);
                    }
                    drop(pace);
                    tracing::info!(target: "flip::progress", "{line}");
                }
            }
        }
    }

    /// Ends the bar and logs where it ended, so that the record stays on the terminal and in the files.
    pub fn finish(self) {
        let (done, elapsed, message) = match &self.shown {
            Shown::Bar(bar) => {
                let ended = (bar.position(), bar.elapsed(), bar.message());
                bar.finish_and_clear();
                ended
            }
            Shown::Lines(_, pace) => {
                let pace = lock(pace);
                (pace.done, pace.started.elapsed(), suffix(&pace.message))
            }
        };
        let elapsed = HumanDuration(elapsed);
        tracing::info!(target: "flip::progress", "{} in {elapsed}{message}", self.counts(done));
    }

    fn counts(&self, done: u64) -> String {
        format!("{}: {}/{} {}", self.title, HumanCount(done), HumanCount(self.total), self.unit)
    }

    fn line(&self, pace: &Pace) -> String {
        let (done_here, left) = (pace.done.saturating_sub(pace.from), self.total.saturating_sub(pace.done));
        let percent = 100.0 * pace.done as f64 / self.total.max(1) as f64;
        let mut line = format!("{} ({percent:.0} %){}", self.counts(pace.done), suffix(&pace.message));
        if done_here > 0 {
            let seconds = pace.began.elapsed().as_secs_f64() * left as f64 / done_here as f64;
            // Out of range only for a pace so slow that no number would help.
            if let Ok(left) = Duration::try_from_secs_f64(seconds) {
                line.push_str(&format!(", {} left", HumanDuration(left)));
            }
        }
        line
    }
}

fn suffix(message: &str) -> String {
    match message {
        "" => String::new(),
        message => format!(", {message}"),
    }
}

/// A panic while the lock was held leaves at worst a stale number.
fn lock(pace: &Mutex<Pace>) -> std::sync::MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(from: u64, done: u64, seconds: u64) -> Pace {
        let now = Instant::now();
        let began = now.checked_sub(Duration::from_secs(seconds)).unwrap();
        Pace { started: began, began, from, done, said: now, message: "loss 2.31".into() }
    }

    #[test]
    fn a_plain_line_tells_how_far_and_how_long() {
        let bar = Progress::lines(LINE_EVERY).bar("pretrain", 5_000, "steps");
        assert_eq!(
            bar.line(&pace(0, 1_250, 60)),
            "pretrain: 1,250/5,000 steps (25 %), loss 2.31, 3 minutes left"
        );
        // Resumed at 1,000: only the 250 steps since then tell the speed.
        assert_eq!(
            bar.line(&pace(1_000, 1_250, 60)),
            "pretrain: 1,250/5,000 steps (25 %), loss 2.31, 15 minutes left"
        );
        assert_eq!(bar.line(&pace(0, 0, 60)), "pretrain: 0/5,000 steps (0 %), loss 2.31");
        let empty = Progress::lines(LINE_EVERY).bar("evaluate", 0, "images");
        assert_eq!(empty.line(&pace(0, 0, 1)), "evaluate: 0/0 images (0 %), loss 2.31");
    }

    #[test]
    fn a_bar_template_is_valid_and_takes_updates() {
        let bars = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let progress = Progress { output: Output::Terminal(bars) };
        let bar = progress.bar("unmask", 10, "steps");
        bar.start_at(4);
        bar.update(5, format_args!("loss {:.2}", 1.5));
        let Shown::Bar(inner) = &bar.shown else { panic!("a terminal has bars") };
        assert_eq!((inner.position(), inner.message()), (5, ", loss 1.50".to_string()));
        bar.finish();
    }
}
