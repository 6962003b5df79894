//! The line that tells how far something is, as wide as a terminal or a log file takes it.

use crate::terminal::{about, duration, grouped, rate};

/// Units whose speed a person wants to know.
const SPEEDS: [&str; 2] = ["images", "samples"];
/// Widths of a bar, characters, without its frame.
const BARS: [usize; 2] = [24, 12];

/// Progress in numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// `stage 1 of 4, pretrain`.
    pub title: &'a str,
    pub unit: &'static str,
    /// `loss 2.31`; may be empty.
    pub message: &'a str,
    pub done: u64,
    /// 0 where it is unknown.
    pub total: u64,
    /// Units a second of late.
    pub speed: Option<f64>,
    /// Seconds left.
    pub left_s: Option<f64>,
    /// Seconds left of the whole run, where more comes after this.
    pub run_s: Option<f64>,
}

/// End of something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub seconds: f64,
    /// Units a second on average.
    pub mean: Option<f64>,
}

/// Parts of a line that a narrow terminal goes without.
#[derive(Debug, Clone, Copy)]
struct Parts {
    short_title: bool,
    bar: usize,
    counts: bool,
    message: bool,
    speed: bool,
    run: bool,
}

impl Line<'_> {
    /// Everything, for a log.
    pub fn whole(&self) -> String {
        let percent = if self.total > 0 { format!(" ({})", self.percent()) } else { String::new() };
        let parts = [self.message(), self.speed(), self.left(), self.run()];
        let parts = parts.into_iter().flatten().map(|part| format!(", {part}"));
        format!("{}: {}{percent}{}", self.title, self.counts(), parts.collect::<String>())
    }

    /// As much as fits into so many columns, with a bar where there is room for it.
    pub fn fitted(&self, columns: usize) -> String {
        let all =
            Parts { short_title: false, bar: BARS[0], counts: true, message: true, speed: true, run: true };
        let narrower = [
            all,
            Parts { bar: BARS[1], ..all },
            Parts { bar: BARS[1], short_title: true, ..all },
            Parts { bar: 0, short_title: true, ..all },
            Parts { bar: 0, short_title: true, run: false, ..all },
            Parts { bar: 0, counts: false, short_title: true, run: false, ..all },
            Parts { bar: 0, counts: false, short_title: true, run: false, speed: false, ..all },
        ];
        let fitting =
            narrower.into_iter().map(|parts| self.with(parts)).find(|line| line.chars().count() < columns);
        fitting.unwrap_or_else(|| {
            let least =
                Parts { bar: 0, counts: false, message: false, speed: false, run: false, short_title: true };
            self.with(least).chars().take(columns.saturating_sub(1)).collect()
        })
    }

    /// The last line.
    pub fn ended(&self, ends: &Ends) -> String {
        let counts = match self.done == self.total {
            true => format!("{} {}", grouped(self.done), self.unit),
            false => self.counts(),
        };
        let mean = ends.mean.filter(|_| SPEEDS.contains(&self.unit) && ends.seconds >= 1.0);
        let mean =
            mean.map(|mean| format!(", {} {}/s on average", rate(mean), self.unit)).unwrap_or_default();
        let message = self.message().map(|message| format!(", {message}")).unwrap_or_default();
        format!("{}: {counts} in {}{mean}{message}", self.title, duration(ends.seconds))
    }

    fn with(&self, parts: Parts) -> String {
        let title = if parts.short_title { self.short_title() } else { self.title.to_owned() };
        let mut line = match (self.total, parts.bar) {
            (0, _) => title,
            (_, 0) => format!("{title} {}", self.percent()),
            (_, bar) => format!("{title} [{}] {}", self.drawn(bar), self.percent()),
        };
        let told = [
            Some(self.counts()).filter(|_| parts.counts || self.total == 0),
            self.message().filter(|_| parts.message),
            self.speed().filter(|_| parts.speed),
            self.left(),
            self.run().filter(|_| parts.run),
        ];
        for part in told.into_iter().flatten() {
            line.push_str(", ");
            line.push_str(&part);
        }
        line
    }

    /// `1/4 pretrain` for `stage 1 of 4, pretrain`.
    fn short_title(&self) -> String {
        let short = || {
            let (stage, kind) = self.title.strip_prefix("stage ")?.split_once(", ")?;
            Some(format!("{} {kind}", stage.replace(" of ", "/")))
        };
        short().unwrap_or_else(|| self.title.to_owned())
    }

    fn share(&self) -> f64 {
        (self.done as f64 / self.total.max(1) as f64).min(1.0)
    }

    fn percent(&self) -> String {
        // Not 100 before the end.
        format!("{:.0} %", (100.0 * self.share()).floor())
    }

    fn drawn(&self, width: usize) -> String {
        let full = (self.share() * width as f64) as usize;
        let tip = if full < width { ">" } else { "" };
        format!("{:<width$}", format!("{}{tip}", "=".repeat(full)))
    }

    fn counts(&self) -> String {
        match self.total {
            0 => format!("{} {}", grouped(self.done), self.unit),
            total => format!("{}/{} {}", grouped(self.done), grouped(total), self.unit),
        }
    }

    fn message(&self) -> Option<String> {
        (!self.message.is_empty()).then(|| self.message.to_owned())
    }

    fn speed(&self) -> Option<String> {
        let speed = self.speed.filter(|_| SPEEDS.contains(&self.unit))?;
        Some(format!("{} {}/s", rate(speed), self.unit))
    }

    fn left(&self) -> Option<String> {
        let left = self.left_s.filter(|_| self.total > 0)?;
        Some(format!("{} left", about(left)))
    }

    fn run(&self) -> Option<String> {
        Some(format!("run {}", about(self.run_s?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line<'_> = Line {
        title: "stage 1 of 4, pretrain",
        unit: "images",
        message: "loss 1.8104",
        done: 200_960,
        total: 512_000,
        speed: Some(2_444.0),
        left_s: Some(127.3),
        run_s: Some(300.0),
    };

    #[test]
    fn a_log_line_has_everything() {
        assert_eq!(
            LINE.whole(),
            "stage 1 of 4, pretrain: 200,960/512,000 images (39 %), loss 1.8104, 2,444 images/s, 2 min left, run 5 min"
        );
        let young = Line { speed: None, left_s: None, run_s: None, message: "", ..LINE };
        assert_eq!(young.whole(), "stage 1 of 4, pretrain: 200,960/512,000 images (39 %)");
        let slow = Line { speed: Some(0.04), ..LINE };
        assert!(slow.whole().contains("0.04 images/s"));
        let unknown = Line { title: "embed", total: 0, message: "", left_s: Some(0.0), run_s: None, ..LINE };
        assert_eq!(unknown.whole(), "embed: 200,960 images, 2,444 images/s");
    }

    #[test]
    fn a_narrow_terminal_gets_one_line_of_what_matters() {
        assert_eq!(
            LINE.fitted(140),
            "stage 1 of 4, pretrain [=========>              ] 39 %, 200,960/512,000 images, loss 1.8104, 2,444 images/s, \
             2 min left, run 5 min"
        );
        assert_eq!(LINE.fitted(60), "1/4 pretrain 39 %, loss 1.8104, 2,444 images/s, 2 min left");
        for columns in 1..200 {
            let line = LINE.fitted(columns);
            assert!(line.chars().count() < columns.max(2), "{columns}: {line}");
            assert!(!line.ends_with(',') || columns < 20, "{line}");
        }
    }

    #[test]
    fn the_end_has_the_mean_speed() {
        let ends = Ends { seconds: 204.0, mean: Some(2_510.0) };
        let done = Line { done: 512_000, ..LINE };
        assert_eq!(
            done.ended(&ends),
            "stage 1 of 4, pretrain: 512,000 images in 3.4 min, 2,510 images/s on average, loss 1.8104"
        );
        let quick = Line { title: "tokenizer", unit: "steps", message: "", done: 2, total: 2, ..LINE };
        assert_eq!(quick.ended(&Ends { seconds: 0.42, mean: None }), "tokenizer: 2 steps in 0.4 s");
    }
}
