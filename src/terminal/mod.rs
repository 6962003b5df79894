//! Standard output and standard error, written to by nothing else.
//!
//! A stream can be closed, full, or a terminal that went away; that must end no run. Nothing here panics. A reader that
//! closes standard output has seen enough, as `head` has: it is no fault, and exit codes are those of the command. Any
//! other failure of standard output is remembered, and the command ends with exit code 1. There is nobody to tell of a
//! failure of standard error.
//!
//! Lines are shown without the secrets of URLs, and with control characters written out, whoever put them there.

#![warn(missing_docs)]

mod number;
mod screen;
mod wrap;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use crate::outside;

pub use number::{about, bytes, duration, flop, grouped, rate, scaled};
pub use screen::Screen;
pub use wrap::{width, wrapped};

/// Prints a line to standard output.
macro_rules! say {
    ($($piece:tt)*) => { $crate::terminal::print_line(format_args!($($piece)*)) };
}

/// Prints a line to standard error.
macro_rules! say_error {
    ($($piece:tt)*) => { $crate::terminal::print_error(format_args!($($piece)*)) };
}

pub(crate) use {say, say_error};

/// The first failure of standard output.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// True if standard output was a terminal when the program began: one that went away no longer says that it is one.
static IS_TERMINAL: OnceLock<bool> = OnceLock::new();

/// Looks at the streams; called before the first line.
pub fn begin() {
    out_is_terminal();
}

fn out_is_terminal() -> bool {
    *IS_TERMINAL.get_or_init(|| io::stdout().is_terminal())
}

/// True if lines to standard error may have colours.
pub fn colours() -> bool {
    io::stderr().is_terminal() && no_wish_against_colours()
}

/// True if lines to standard output may have colours.
pub fn out_colours() -> bool {
    out_is_terminal() && no_wish_against_colours()
}

/// Columns of standard output, where it is a terminal that tells them.
pub fn out_columns() -> Option<usize> {
    let (_, columns) = console::Term::stdout().size_checked().filter(|_| out_is_terminal())?;
    Some(usize::from(columns).max(FEWEST_COLUMNS))
}

/// Fewest columns that text is broken for.
const FEWEST_COLUMNS: usize = 20;

/// <https://no-color.org>
fn no_wish_against_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line to standard output, as `say!` prints it. A failure is remembered for [`outcome`].
pub fn print_line(line: fmt::Arguments<'_>) {
    // A failure is remembered.
    let _ = writeln!(stdout(), "{line}");
}

/// A line to standard error, as `say_error!` prints it. It may hold the colours of a message that was made for a
/// terminal.
pub fn print_error(line: fmt::Arguments<'_>) {
    let _ = write_error(format!("{line}\n").as_bytes());
}

/// Writes whole lines to standard error.
pub fn write_error(lines: &[u8]) -> io::Result<()> {
    let lines = String::from_utf8_lossy(lines);
    write_all(&mut io::stderr().lock(), safe(&lines, colours()).as_bytes())
}

/// Standard output as a whole.
///
/// # Errors
/// It could not be written, and a reader who had enough is not the reason.
pub fn outcome() -> Result<(), String> {
    if FAILURE.get().is_none() {
        if let Err(error) = flush(&mut io::stdout().lock()) {
            remember(error);
        }
    }
    match FAILURE.get() {
        Some(error) if !has_enough(error) => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(()),
    }
}

/// True if the reader went away: a pipe that was closed, or a terminal.
fn has_enough(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
        || out_is_terminal() && matches!(error.raw_os_error(), Some(libc::EIO | libc::ENXIO))
}

fn remember(error: io::Error) -> Unwritten {
    let shown = error.to_string();
    let _ = FAILURE.set(error);
    Unwritten(shown)
}

/// Standard output could not be written. Whoever sees it may stop: nobody reads on. [`outcome`] says whether it is a
/// fault.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct Unwritten(String);

impl Unwritten {
    /// True of an error that comes of standard output.
    pub fn is_behind(error: &(dyn std::error::Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if inside.is_some_and(|inside| inside.is::<Unwritten>()) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Standard output for a command that has nothing else to do than to print: a line that cannot be written is an error.
pub fn stdout() -> Stdout {
    Stdout { line: Vec::new(), goes_on: false }
}

/// Standard output for a command whose work is worth more than what it prints: a line that cannot be written is
/// remembered for [`outcome`], and the work goes on.
pub fn stdout_that_goes_on() -> Stdout {
    Stdout { line: Vec::new(), goes_on: true }
}

/// Standard output, line by line.
#[derive(Debug)]
pub struct Stdout {
    /// Beginning of a line that has no end yet.
    line: Vec<u8>,
    goes_on: bool,
}

impl Stdout {
    fn print(&mut self, until: usize) -> io::Result<()> {
        let lines: Vec<u8> = self.line.drain(..until).collect();
        let lines = String::from_utf8_lossy(&lines);
        let mut out = io::stdout().lock();
        let written = match FAILURE.get() {
            // After a failure nothing more is written: a text with a hole in it is worse than none.
            Some(error) => Err(Unwritten(error.to_string())),
            None => write_all(&mut out, safe(&lines, out_colours()).as_bytes()).map_err(remember),
        };
        match written {
            Err(unwritten) if !self.goes_on => Err(io::Error::other(unwritten)),
            _ => Ok(()),
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(text);
        match self.line.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => self.print(end + 1).map(|()| text.len()),
            None => Ok(text.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.print(self.line.len())
    }
}

impl Drop for Stdout {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // A failure is remembered.
            let _ = self.flush();
        }
    }
}

/// Between two tries of a stream that takes nothing at the moment.
const FULL_PIPE: Duration = Duration::from_millis(5);

/// Writes everything, and waits where a pipe that was set to non-blocking by another program is full.
fn write_all(to: &mut impl Write, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match to.write(text) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if waits(&error) => {}
            Err(error) => return Err(error),
        }
    }
    flush(to)
}

fn flush(to: &mut impl Write) -> io::Result<()> {
    loop {
        match to.flush() {
            Err(error) if waits(&error) => {}
            flushed => return flushed,
        }
    }
}

fn waits(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::WouldBlock {
        std::thread::sleep(FULL_PIPE);
        return true;
    }
    error.kind() == io::ErrorKind::Interrupted
}

/// Lines without the secrets of URLs, and without what steers a terminal, but for colours (`ESC [ ... m`) where they are
/// `coloured`. Escapes are spelled as JSON spells them, `\u001b`, so that JSON stays JSON.
pub fn safe(lines: &str, coloured: bool) -> Cow<'_, str> {
    let lines = outside::without_secrets(lines);
    if !lines.contains(|c: char| outside::steers(c) && c != '\n' && c != '\t') {
        return lines;
    }
    let mut safe = String::with_capacity(lines.len() + 16);
    let mut rest = &*lines;
    while let Some(c) = rest.chars().next() {
        let colour = if coloured { colour(rest) } else { 0 };
        if colour > 0 {
            safe.push_str(&rest[..colour]);
            rest = &rest[colour..];
            continue;
        }
        match c {
            '\n' | '\t' => safe.push(c),
            c if outside::steers(c) => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            c => safe.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    safe.into()
}

/// Bytes of the colour that a text begins with; 0 where it begins with none.
fn colour(text: &str) -> usize {
    let Some(numbers) = text.strip_prefix("\u{1b}[") else { return 0 };
    match numbers.find(|c: char| !c.is_ascii_digit() && c != ';') {
        Some(end) if numbers[end..].starts_with('m') => "\u{1b}[".len() + end + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_colours_and_lose_everything_else_that_steers() {
        assert_eq!(
            safe("\u{1b}[1;31merror\u{1b}[0m: x\n\ty\n", true),
            "\u{1b}[1;31merror\u{1b}[0m: x\n\ty\n"
        );
        assert_eq!(
            safe("a\u{1b}]0;t\u{7}\u{1b}[2Jb\rc\u{9b}d\n", true),
            "a\\u001b]0;t\\u0007\\u001b[2Jb\\u000dc\\u009bd\n"
        );
        assert_eq!(
            safe("{\"a\":\"\u{7f}\"} https://h/a?sig=1\n", true),
            "{\"a\":\"\\u007f\"} https://h/a?...\n"
        );
        assert_eq!(safe("\u{1b}[", true), "\\u001b[");
        assert_eq!(safe("\u{1b}[31m", false), "\\u001b[31m");
    }

    #[test]
    fn a_full_pipe_that_does_not_block_is_waited_for() {
        struct Busy(Vec<u8>, u32);
        impl Write for Busy {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    _ => {
                        self.0.push(text[0]);
                        Ok(1)
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut busy = Busy(Vec::new(), 0);
        write_all(&mut busy, b"all of it").unwrap();
        assert_eq!(busy.0, b"all of it");
    }

    #[test]
    fn an_error_of_standard_output_is_known_behind_others() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let unwritten = || io::Error::other(Unwritten("full".into()));
        assert!(Unwritten::is_behind(&unwritten()));
        assert!(Unwritten::is_behind(&Outer(unwritten())));
        assert!(!Unwritten::is_behind(&Outer(io::Error::other("full"))));
    }
}
